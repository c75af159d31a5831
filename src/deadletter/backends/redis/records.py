"""Rows and changes as they cross to Lua and back: fixed strides of texts and bytes.

What the rows or changes of one call have in common (nearly all but ids, tokens and payloads) is sent once, as a kind.
None, 0 and false are the empty text.
"""

from __future__ import annotations

import functools
import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

import orjson

from ...model.errors import Undecodable
from ...model.record import State
from ...model.row import BATCH, DEAD, FORMAT, Change, Claim, FailureRow, NewRow, Row, Scan
from ...rules.machine import HISTORY, brought
from .keys import BETWEEN, BODY, ESCAPE, NUMBER, RECORD, escaped, unescaped

Args: TypeAlias = "list[str | bytes | int]"
_Counts: TypeAlias = Sequence[tuple[str, str, str]]

NO_TRACE = "-" * 32  # a failure without a traceback
_STATES = {str(state): state for state in State}
_ESCAPE = ESCAPE.encode()
_SHA256 = 64  # digits
_LOOK = 500  # rows that one scan script looks at
_READ = 200  # rows whose texts one reads
_PLAIN = re.compile(r"[ !#-\[\]-~]+")  # ASCII that a JSON text says as it is

# Of a change: what its kind holds, and what is its own. Together they are all its fields.
KIND = (
    "was",
    "lapsed",
    "late",
    "to",
    "due_ms",
    "lease_ms",
    "keep_ms",
    "attempts",
    "lease_losses",
    "postpones",
    "reset",
    "revive",
    "started",
    "owner",
    "type",
    "reason",
    "free_key",
    "event",
    "why",
)
OWN = ("id", "op", "token", "generation", "new_token", "body", "failure", "count")

_kind_of = attrgetter(*KIND)
_NOTHING = ("", "", "", "")


def change_args(changes: Sequence[Change]) -> Args:
    """The arguments of ``apply.lua`` after the clock."""
    kinds: dict[tuple[Any, ...], int] = {}
    traces: dict[str, str] = {}
    rest: Args = []
    for change in changes:
        failure, body, generation = change.failure, change.body, change.generation
        told, trace, why_failed = "", "", _NOTHING
        if failure is not None:
            told, trace = _failure(failure), _trace(failure.traceback, traces)
            why_failed = (failure.fingerprint, failure.error_type, failure.worker or "", failure.release or "")
        kind = (_kind_of(change), tuple(change.count), body is not None, why_failed)
        number = kinds.get(kind)
        if number is None:
            number = kinds[kind] = len(kinds) + 1
        rest += (
            change.id,
            change.op,
            number,
            change.token or "",
            "" if generation is None else generation,
            change.new_token or "",
            body or b"",
            told,
            trace,
        )
    args: Args = [len(kinds), len(changes), len(traces)]
    for fields, counts, has_body, why_failed in kinds:
        args += _kind(fields, counts, has_body, why_failed)
    args += rest
    for name, text in traces.items():
        args += (name, text)
    return args


def _kind(fields: tuple[Any, ...], counts: _Counts, has_body: bool, why_failed: tuple[str, ...]) -> Args:
    values: dict[str, Any] = dict(zip(KIND, fields, strict=True))
    order = [*KIND[:16], "body", *KIND[16:]]  # as apply.lua names them
    values["body"] = has_body
    args: Args = []
    for name in order:
        value = values[name]
        if name == "started" and value is False:
            args.append("0")  # here None means "as it was"
        elif name in _DURATIONS:
            args.append("" if value is None else value)
        else:
            args.append(_plain(value))
    return [*args, _counters(counts), *map(escaped, why_failed)]


_DURATIONS = {"due_ms", "lease_ms", "keep_ms"}


def _plain(value: object) -> str | int:
    if not value:
        return ""
    if value is True:
        return "1"
    return value if isinstance(value, int) else escaped(str(value))


def _counters(counts: _Counts) -> str:
    return "\n".join(_counter(name) for name in counts)


@functools.lru_cache(1024)
def _counter(name: tuple[str, str, str]) -> str:
    return orjson.dumps([str(part) for part in name]).decode()


def _failure(failure: FailureRow) -> str:
    told = (
        failure.attempt,
        failure.duration_ms,
        failure.error_type,
        failure.message,
        failure.fingerprint,
        failure.worker,
        failure.release,
        *((failure.traceparent,) if failure.traceparent is not None else ()),
    )
    return "|" + orjson.dumps(told).decode()


def _trace(text: str, traces: dict[str, str]) -> str:
    if not text:
        return NO_TRACE
    name = content_name(text)
    traces[name] = text
    return name


@functools.lru_cache(256)
def content_name(text: str) -> str:
    """The name under which equal texts are stored once."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def shortened(digest: str) -> str:
    """A SHA-256 in hex by its first 132 bits, as insert.lua does; anything else as it is."""
    if len(digest) != _SHA256:
        return digest
    try:
        raw = bytes.fromhex(digest)
    except ValueError:
        return digest
    return urlsafe_b64encode(raw[:17])[:22].decode() if raw.hex() == digest else digest


@functools.lru_cache(256)
def list_name(redact: str) -> str:
    """The name under which equal lists of hidden paths are stored once; it stands in every record."""
    return urlsafe_b64encode(hashlib.blake2b(redact.encode(), digest_size=8).digest()).decode().rstrip("=")


_new_kind = attrgetter(
    "type",
    "priority",
    "state",
    "expires_ms",
    "keep_ms",
    "token",
    "lease_ms",
    "owner",
    "redact",
    "attempts",
    "replays",
    "reason",
    "release",
    "lease_losses",
    "postpones",
)


def insert_args(rows: Sequence[NewRow]) -> Args:
    """The arguments of ``insert.lua`` after the clock."""
    kinds: dict[tuple[Any, ...], int] = {}
    traces: dict[str, str] = {}
    rest: Args = []
    failures: Args = []
    for n, new in enumerate(rows, 1):
        history = new.history[-HISTORY:] if new.history else ()
        last = next(iter(brought(history, 1)), None) if history else None
        kind = (
            _new_kind(new),
            tuple(new.count),
            (last.fingerprint, last.error_type, last.worker, last.release) if last is not None else None,
        )
        number = kinds.get(kind)
        if number is None:
            number = kinds[kind] = len(kinds) + 1
        rest += (
            new.id,
            escaped(new.key or ""),
            shortened(escaped(new.digest)),
            new.body,
            new.due_ms,
            "" if new.due_at_ms is None else new.due_at_ms,
            number,
            "" if new.created_at_ms is None else new.created_at_ms,
            "" if new.ended_at_ms is None else new.ended_at_ms,
        )
        for failure in history:
            failures += (n, failure.at_ms or "", _failure(failure), _trace(failure.traceback, traces))
    args: Args = [len(kinds), len(rows), len(failures) // 4, len(traces)]
    for kind in kinds:
        args += _new_kind_args(*kind)
    args += rest
    args += failures
    for name, text in traces.items():
        args += (name, text)
    return args


@functools.lru_cache(256)
def _new_kind_args(
    fields: tuple[Any, ...], counts: _Counts, last: tuple[Any, ...] | None
) -> Sequence[str | bytes | int]:
    type_, rank, state, expires, keep, token, lease, owner, redact, attempts, replays, reason, release, *losses = fields
    fingerprint, error_type, worker, last_release = last if last is not None else _NOTHING
    return [
        escaped(type_),
        rank,
        str(state),
        "" if expires is None else expires,
        "" if keep is None else keep,
        token or "",
        "" if lease is None else lease,
        escaped(owner or ""),
        list_name(redact) if redact else "",
        escaped((last_release if last is not None else release) or ""),
        attempts or "",
        replays or "",
        escaped(fingerprint or ""),
        escaped(str(reason or "")),
        _counters(counts),
        escaped(error_type or ""),
        escaped(worker or ""),
        redact,
        *(n or "" for n in losses),
    ]


def claim_args(claim: Claim) -> Args:
    """The arguments of ``claim.lua`` after the clock."""
    ids = claim.ids
    return [
        claim.op,
        min(claim.limit, BATCH),
        claim.lease_ms,
        escaped(claim.owner),
        claim.start,
        "" if claim.max_losses is None else claim.max_losses,
        "1" if claim.alone else "",
        "" if claim.keep_ms is None else claim.keep_ms,
        "".join(map(str, claim.order)),
        "types" if ids is None else "ids",
        *dict.fromkeys(map(escaped, claim.types) if ids is None else ids),
    ]


NARROW = ("type", "priority", "fingerprint", "reason", "error_type", "release")


def scan_args(scan: Scan) -> Args:
    """The arguments of ``scan.lua`` after the clock."""
    index, answered = index_of(scan)
    after = scan.after
    args: Args = [
        index,
        str(scan.state),
        "1" if scan.newest_first else "",
        "" if after is None else after[0],
        "" if after is None else after[1],
        "" if scan.since_ms is None else scan.since_ms,
        "" if scan.until_ms is None else scan.until_ms,
        min(scan.limit, BATCH),
        scan.history,
        "1" if scan.body else "",
        *((_LOOK, "") if scan.text is None or not _PLAIN.fullmatch(scan.text) else (_READ, scan.text)),
    ]
    for name in NARROW:
        wanted = getattr(scan, name)
        if wanted is not None and name != answered:
            args += (NUMBER[name], escaped(str(wanted)))
    return args


def index_of(scan: Scan) -> tuple[str, str | None]:
    """The sorted set that a scan walks, and the condition that it answers: the rarest first."""
    if scan.state != DEAD:
        return ("done" if scan.state == State.SUCCEEDED else "live"), None
    named = (("fingerprint", "dx:fp:"), ("type", "dx:type:"), ("reason", "dx:reason:"), ("priority", "dead:"))
    for name, index in named:
        wanted = getattr(scan, name)
        if wanted is not None and wanted != "":
            return f"{index}{escaped(str(wanted))}", name
    return "dead", None


def texts_of(flat: Sequence[bytes]) -> dict[bytes, str]:
    """Texts by name, from names and texts in turn."""
    return {flat[at]: str(flat[at + 1], "utf-8") for at in range(0, len(flat), 2)}


def rows_of(told: Sequence[Any], more: Sequence[Any], flat: Sequence[bytes]) -> list[Row | None]:
    """The rows that a script answered, as rows.lua tells them; each ``redact`` is as yet a name."""
    texts = texts_of(flat)
    beside = {more[at]: (more[at + 1], more[at + 2]) for at in range(0, len(more), 3)}
    pairs = zip(told[::2], told[1::2], strict=True)
    if not beside:
        return [_row(id_, record, None, (), texts) if record is not None else None for id_, record in pairs]
    return [
        _row(id_, record, *beside.get(at, _BARE), texts) if record is not None else None
        for at, (id_, record) in enumerate(pairs)
    ]


_BARE: tuple[None, tuple[()]] = (None, ())


def _row(id_: bytes, fields: bytes, body: bytes | None, failures: Sequence[bytes], texts: Mapping[bytes, str]) -> Row:
    # Written out: it is run for every row that is claimed.
    if body is None:
        fields, marked, inline = fields.partition(BODY)
        if marked:
            body = inline
    v = str(fields, "utf-8").split(BETWEEN)
    if _ESCAPE in fields:
        v = [unescaped(text) for text in v]
    created_ms = int(v[27]) if v[27] else 0
    return Row(
        str(id_, "utf-8"),
        v[26],
        int(v[25]),
        _STATES.get(v[1]) or v[1],
        v[2] or None,
        v[3] or None,
        int(v[9]) if v[9] else 0,
        int(v[10]) if v[10] else 0,
        int(v[11]) if v[11] else 0,
        int(v[14]) if v[14] else 0,
        int(v[15]) if v[15] else 0,
        v[6] == "1",
        v[7] == "1",
        created_ms,
        int(v[16]) if v[16] else created_ms,
        int(v[17]) if v[17] else created_ms,
        int(v[18]) if v[18] else None,
        int(v[12]) if v[12] else None,
        int(v[4]) if v[4] else None,
        int(v[19]) if v[19] else None,
        int(v[8]) if v[8] else None,
        v[28] or None,
        v[29],
        v[5] or None,
        v[20] or None,
        v[21] or None,
        v[22] or None,
        v[23] or None,
        v[24] or None,
        v[30],
        FORMAT if (format_ := int(v[0])) <= RECORD else format_,
        body,
        [_failure_of(entry, texts) for entry in failures] if failures else [],
    )


def _failure_of(entry: bytes, texts: Mapping[bytes, str]) -> FailureRow:
    at_ms, _, told = entry[32:].partition(b"|")
    try:
        attempt, duration_ms, error_type, message, fingerprint, worker, release, *more = orjson.loads(told)
    except ValueError as error:
        raise Undecodable(f"a stored failure does not read: {error}") from error
    return FailureRow(
        attempt=attempt,
        at_ms=int(at_ms),
        duration_ms=duration_ms,
        error_type=error_type,
        message=message,
        traceback=texts.get(entry[:32], ""),
        fingerprint=fingerprint,
        worker=worker,
        release=release,
        traceparent=more[0] if more else None,
    )
