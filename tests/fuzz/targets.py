"""What strangers can send us, as functions of bytes: each returns, or fails where we break a promise.

An input may be refused, by an error of ours; it may never raise another one, hang, or come back as something else.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import attrs
import orjson

from deadletter import DeadLetterQueue, Query, TaskRecord
from deadletter.backends import backend_from_url
from deadletter.backends.memory import MemoryBackend
from deadletter.cli.letter_lines import line_of, row_of
from deadletter.model.errors import InvalidQuery, InvalidSetting, InvalidTask, MissingExtra, Undecodable
from deadletter.model.query import decode_cursor, encode_cursor, glob_match, is_glob, literal
from deadletter.model.row import DEAD, Row
from deadletter.retry import Never
from deadletter.rules import machine
from deadletter.rules.arguments import CallSignature
from deadletter.rules.codec import JsonCodec, decode_task, digest, encode_task, record_from_row
from deadletter.rules.redaction import hiding, redactor
from deadletter.settings import queue_options
from deadletter.views import item

from .signatures import FUNCTIONS

NOW_MS = 1_750_000_000_000
CODEC = JsonCodec()
Target = Callable[[bytes], object]


def dead_row(body: bytes) -> Row:
    """A letter with this body."""
    return Row("id", "type", 1, DEAD, created_ms=NOW_MS, due_ms=NOW_MS, ended_ms=NOW_MS, body=body, format=1)


def codec(data: bytes) -> None:
    """A stored body: read whole or told to be undecodable, shown in any case, and written again as it was."""
    row = dead_row(data)
    record = record_from_row(CODEC, row, queue="q")
    orjson.dumps(item(record, hiding(("*.password", "a.b"))), default=str)
    try:
        task = decode_task(CODEC, row)
    except Undecodable:
        assert not record.readable
        return
    try:
        body = encode_task(CODEC, task, max_payload_bytes=10_000_000)
        told = digest(task.type, task.payload)
    except InvalidTask:
        return
    again = decode_task(CODEC, attrs.evolve(row, body=body))
    assert again == task
    assert digest(again.type, again.payload) == told


def cursor(data: bytes) -> None:
    """A page's cursor, as a client gives it back."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        after = decode_cursor(text)
    except InvalidQuery:
        return
    assert decode_cursor(encode_cursor(after)) == after


def glob(data: bytes) -> None:
    """A pattern and a text, with a NUL between them: the answer of a regular expression, in linear time."""
    pattern, _, text = data.decode("utf-8", "surrogateescape").partition("\0")
    try:
        said = glob_match(pattern, text)
    except InvalidQuery:
        assert len(pattern) > 1000
        return
    if len(text) > 1000:
        assert not said
        return
    pieces = re.split(r"(\\\*|\*)", pattern)
    if sum(piece == "*" for piece in pieces) <= 4 and len(text) <= 100:  # the expression itself takes longer on more
        plain = "".join(".*" if piece == "*" else re.escape(piece.replace("\\*", "*")) for piece in pieces)
        assert said == (re.fullmatch(plain, text, re.DOTALL) is not None)
    if not is_glob(pattern):
        assert said == (text == literal(pattern))


def query(data: bytes) -> None:
    """The fields of a query, as JSON, held against letters."""
    fields = _json(data)
    if not isinstance(fields, dict):
        return
    known = {field.name for field in attrs.fields(Query)}
    try:
        asked = Query(**{name: value for name, value in fields.items() if name in known})
        now = asked.resolved(datetime.fromtimestamp(NOW_MS / 1000, UTC))
    except InvalidQuery:
        return
    except OverflowError:
        raise AssertionError("an age that no calendar holds was let in") from None
    now.scan_fields()
    for letter in _letters():
        assert now.matches(letter) in (True, False)


def import_lines(data: bytes) -> None:
    """Lines of an export: each a letter, that is exported as it came, or refused by the name of a field."""
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        try:
            new = row_of(line, _queue())
        except InvalidTask as error:
            str(error).encode()
            continue
        [stored] = machine.admit([new], {}, {}, NOW_MS, machine.Journal()).stored
        record = record_from_row(CODEC, stored, queue="q")
        assert record.readable, "an import stored what nobody can read"
        shown = orjson.dumps(line_of(record, item(record, redactor(())), reveal=True))
        again = row_of(shown, _queue())
        assert (again.id, again.type, again.digest, again.body) == (new.id, new.type, new.digest, new.body)


def settings(data: bytes) -> None:
    """An environment, NAME=value with NULs between: options that a queue takes, or a variable that is named."""
    pairs = [part.partition("=") for part in data.decode("utf-8", "surrogateescape").split("\0")]
    environ = {f"DEADLETTER_{name}": value for name, _, value in pairs}
    try:
        options = queue_options(environ)
    except InvalidSetting as error:
        assert error.name.startswith("DEADLETTER_")
        return
    options["backend"] = MemoryBackend()
    options.pop("spool", None)  # a path: making one is not reading a setting
    DeadLetterQueue(**options)  # who refuses a value here could not name its variable any more


def url(data: bytes) -> None:
    """The address of a store: a backend that has not connected yet, or a setting that is wrong."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        with _installed_once():
            backend = backend_from_url(text)
    except (InvalidSetting, MissingExtra):
        return
    assert isinstance(backend.url, str)


@contextmanager
def _installed_once() -> Iterator[None]:
    """What is installed does not change meanwhile, and reading it took nine tenths of the time."""
    real = metadata.entry_points
    metadata.entry_points = _entry_points
    try:
        yield
    finally:
        metadata.entry_points = real


_entry_points = functools.cache(metadata.entry_points)


def arguments(data: bytes) -> None:
    """A payload for some function, the first byte saying which: arguments of its types that are stored as they came."""
    signature = _signatures()[data[0] % len(FUNCTIONS)] if data else None
    payload = _json(data[1:])
    if signature is None or not isinstance(payload, dict):
        return
    try:
        args, kwargs = signature.load(payload)
    except InvalidTask as error:
        assert error.field
        return
    stored = signature.dump(args, kwargs)
    again, named = signature.load(stored)
    assert _same((again, named), (args, kwargs))
    assert orjson.dumps(signature.dump(again, named)) == orjson.dumps(stored)


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or "nan" in repr(one).lower()  # which is never equal; the stored forms are compared, too


@functools.cache
def _signatures() -> list[CallSignature]:
    return [CallSignature.of(function) for function in FUNCTIONS]


@functools.cache
def _queue() -> DeadLetterQueue:
    return DeadLetterQueue(MemoryBackend(), retry=Never())


@functools.cache
def _letters() -> list[TaskRecord]:
    bodies = [b'{"p":{"a":{"b":[1,2.5,null,true,"x"]}},"m":{"tenant":"t"},"k":"key"}', b'{"p":{}}', b"broken"]
    rows = [dead_row(body) for body in bodies]
    rows[0].history = [machine.FailureRow(attempt=1, error_type="ValueError", message="no", traceback="Traceback")]
    return [record_from_row(CODEC, row, queue="q") for row in rows]


TARGETS: dict[str, Target] = {
    "codec": codec,
    "cursor": cursor,
    "glob": glob,
    "query": query,
    "import": import_lines,
    "settings": settings,
    "url": url,
    "arguments": arguments,
}
