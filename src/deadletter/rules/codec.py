"""Task ↔ bytes, Row → TaskRecord.

A body holds what the row itself does not: ``{"p": payload}`` and, where they are not the default, the rest of the
envelope under one letter each. Keys that this version does not know were written by a newer one and are ignored.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import orjson

from ..interfaces.codec import Codec
from ..model.errors import InvalidTask, Undecodable, UnserializablePayload
from ..model.record import Failure, Reason, State, TaskRecord
from ..model.row import FailureRow, Row
from ..model.task import Origin, Priority, Task, from_ms, seconds
from .redaction import marked_paths
from .strict_json import MAX_DEPTH, check_json, too_deep

_STRICT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_CANONICAL = _STRICT | orjson.OPT_SORT_KEYS
_PRIORITIES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)  # by rank
_REASONS = {reason.value: reason for reason in Reason}
_BROKEN = (Reason.NOT_REPLAYABLE, Reason.UNDECODABLE)

_FIELDS = {  # of a body
    "p": "payload",
    "r": "max_retries",
    "k": "idempotency_key",
    "t": "timeout",
    "x": "expires_in",
    "u": "on_uncertain",
    "m": "metadata",
    "o": "origin",
}
_NOT_REPLAYABLE = "nr"  # the payload holds reprs, not values
_EARLIER = "e"  # the payloads before each edit: views hide in old failures what they held
_EDITS = 20  # as many as a row keeps failures; an edit is noted as one


class JsonCodec(Codec):
    """JSON by orjson, strict: what would not come back as it went in is refused by its path."""

    def encode(self, document: Mapping[str, Any]) -> bytes:
        """The document as UTF-8 JSON; raises UnserializablePayload that names the path and says what to do."""
        try:
            body = orjson.dumps(document, _plain, _STRICT)
        except TypeError as error:
            check_json(document, "", depth=0)
            raise UnserializablePayload("document", str(error)) from None
        # orjson writes NaN as null, and tuples, UUIDs and enums as something else, without a word: only reading it
        # back tells. For 1 MB this is a fifth of what a walk in Python costs.
        restored = orjson.loads(body)
        deep = body.count(b"{") + body.count(b"[") > MAX_DEPTH and too_deep(restored, MAX_DEPTH + 1)
        if deep or restored != document:
            check_json(document, "", depth=0)
        return bytes(memoryview(body))  # a copy: orjson's own takes 4 kB at least, for as long as a row is held

    def decode(self, body: bytes) -> dict[str, Any]:
        """The document again; raises Undecodable."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Undecodable(f"not the JSON of a task: {error}") from None
        if type(document) is not dict:
            raise Undecodable(f"not a task, but a JSON {type(document).__name__}")
        return document


def task_document(task: Task, *, replayable: bool = True, earlier: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """What a task's body holds: all that its row does not, without the defaults. A delay is the row's due time."""
    document: dict[str, Any] = {"p": task.payload}
    if task.max_retries is not None:
        document["r"] = task.max_retries
    if task.idempotency_key is not None:
        document["k"] = task.idempotency_key
    if task.timeout is not None:
        document["t"] = seconds("timeout", task.timeout)
    if task.expires_in is not None:
        document["x"] = seconds("expires_in", task.expires_in)
    if task.on_uncertain is not None:
        document["u"] = task.on_uncertain
    if task.metadata:
        document["m"] = task.metadata
    if task.origin is not None:
        document["o"] = _origin_document(task.origin)
    if not replayable:
        document[_NOT_REPLAYABLE] = True
    if earlier:
        document[_EARLIER] = list(earlier[-_EDITS:])
    return document


def encode_task(
    codec: Codec,
    task: Task,
    *,
    max_payload_bytes: int,
    replayable: bool = True,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """A task's body.

    Args:
        codec: how the document becomes bytes.
        task: what to store.
        max_payload_bytes: the most that the payload's JSON may take.
        replayable: False where the payload holds reprs in place of the real arguments.
        earlier: the payloads before each edit; the last 20 are kept.

    Raises:
        InvalidTask: ``field`` is the path of what cannot be stored, such as ``payload.items[3].price``.
    """
    try:
        body = codec.encode(task_document(task, replayable=replayable, earlier=earlier))
    except InvalidTask as error:
        raise type(error)(_spelled_out(error.field), error.problem) from error.__cause__
    if len(body) > max_payload_bytes:  # metadata and a codec's own bytes are not the payload's
        size = len(_canonical(task.payload))
        if size > max_payload_bytes:
            raise InvalidTask(
                "payload",
                f"is {size} bytes, more than max_payload_bytes={max_payload_bytes};"
                " store it elsewhere and pass a reference",
            )
    return body


def decode_task(codec: Codec, row: Row) -> Task:
    """The task of a row that has a body; its delay is 0. Raises Undecodable that names the task."""
    return _task(row, _document(codec, row))


def digest(type: str, payload: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of type and payload; the order of keys does not matter. Raises UnserializablePayload."""
    return hashlib.sha256(f"{len(type)}:{type}".encode() + _canonical(payload), usedforsecurity=False).hexdigest()


def key_hash(queue: str, type: str, key: str) -> str:
    """SHA-256 (hex) of an idempotency key within its queue and type; the lengths keep neighbours apart."""
    return hashlib.sha256(f"{len(queue)}:{queue}{len(type)}:{type}{key}".encode(), usedforsecurity=False).hexdigest()


def failure_from_row(row: FailureRow) -> Failure:
    """What a user sees of a stored failure."""
    return Failure(
        attempt=row.attempt,
        at=from_ms(row.at_ms),
        duration=None if row.duration_ms is None else row.duration_ms / 1000,
        error_type=row.error_type,
        message=row.message,
        traceback=row.traceback,
        fingerprint=row.fingerprint,
        worker=row.worker,
        release=row.release,
        traceparent=row.traceparent,
    )


def record_from_row(codec: Codec, row: Row, *, queue: str) -> TaskRecord:
    """What a user sees of a row. Never raises for a body that cannot be read: what is broken is shown, not hidden."""
    reason = None if row.reason is None else _REASONS.get(row.reason)
    replayable, readable = reason not in _BROKEN, True
    earlier: Sequence[Mapping[str, Any]] = ()
    if row.body is None:  # an ended row that is remembered without its payload
        task = _bare(row, {})
    else:
        try:
            document = _document(codec, row)
            task = _task(row, document)
            replayable = replayable and not document.get(_NOT_REPLAYABLE)
            earlier = _earlier(row, document)
        except Undecodable:
            task, replayable, readable = _bare(row, {}), False, False
    ended = row.state in (State.DEAD, State.SUCCEEDED)
    expires_ms = row.keep_until_ms if ended else row.expires_ms
    return TaskRecord(
        task=task,
        state=State(row.state),
        attempts=row.attempts,
        due_at=from_ms(row.due_ms),
        created_at=from_ms(row.created_ms),
        died_at=from_ms(row.ended_ms) if row.state == State.DEAD and row.ended_ms is not None else None,
        expires_at=None if expires_ms is None else from_ms(expires_ms),
        reason=reason,
        history=tuple(failure_from_row(failure) for failure in row.history),
        lease_losses=row.lease_losses,
        postpones=row.postpones,
        replays=row.replays,
        replayable=replayable,
        queue=queue,
        redact=marked_paths(row.redact),
        readable=readable,
        earlier=earlier,
    )


def _plain(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _canonical(payload: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(payload, _plain, _CANONICAL)
    except TypeError as error:
        check_json(payload, "payload")
        raise UnserializablePayload("payload", str(error)) from None


def _spelled_out(path: str) -> str:
    """``p.items[3]`` as users know it: ``payload.items[3]``."""
    return _FIELDS.get(path[:1], path[:1]) + path[1:] if path[1:2] in ("", ".", "[") else path


def _origin_document(origin: Origin) -> dict[str, Any]:
    document = {"s": origin.system, "q": origin.queue, "i": origin.native_id}
    if origin.raw is not None:
        document["r"] = base64.b64encode(origin.raw).decode()
    return {name: value for name, value in document.items() if value is not None}


def _origin(document: Mapping[str, Any]) -> Origin:
    raw = document.get("r")
    return Origin(
        system=document["s"],
        queue=document.get("q"),
        native_id=document.get("i"),
        raw=None if raw is None else base64.b64decode(raw, validate=True),
    )


def _earlier(row: Row, document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    earlier = document.get(_EARLIER, ())
    if not isinstance(earlier, list | tuple) or not all(isinstance(payload, Mapping) for payload in earlier):
        raise Undecodable(
            f"task {row.id!r}: its body cannot be used: what it was before its edits is no list of payloads"
        )
    return earlier


def _document(codec: Codec, row: Row) -> dict[str, Any]:
    if row.body is None:
        raise Undecodable(f"task {row.id!r} is remembered without its payload")
    try:
        document = codec.decode(row.body)
    except Exception as error:  # a user's codec may raise anything: a wrong key, a broken stream
        raise Undecodable(f"task {row.id!r}: its body cannot be read: {error}; is the codec the right one?") from error
    if type(document.get("p")) is not dict:
        raise Undecodable(f"task {row.id!r}: its body holds no payload")
    return document


def _task(row: Row, document: dict[str, Any]) -> Task:
    if len(document) == 1:
        return _bare(row, document["p"])
    try:
        origin = document.get("o")
        return Task(
            type=row.type,
            payload=document["p"],
            id=row.id,
            priority=_PRIORITIES[row.priority],
            max_retries=document.get("r"),
            idempotency_key=document.get("k"),
            timeout=document.get("t"),
            expires_in=document.get("x"),
            on_uncertain=document.get("u"),
            metadata=document.get("m", {}),
            origin=None if origin is None else _origin(origin),
        )
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise Undecodable(f"task {row.id!r}: its body cannot be used: {error}") from error


(
    _put_type,
    _put_payload,
    _put_id,
    _put_priority,
    _put_max_retries,
    _put_key,
    _put_delay,
    _put_timeout,
    _put_expires_in,
    _put_on_uncertain,
    _put_metadata,
    _put_origin,
) = (getattr(Task, field.name).__set__ for field in attrs.fields(Task))


def _bare(row: Row, payload: dict[str, Any]) -> Task:
    """A task without options, built past the validators: its row was checked when it was written.

    Line by line, since a loop over the fields takes twice as long, and this is most of what decoding costs.
    """
    task = object.__new__(Task)
    _put_type(task, row.type)
    _put_payload(task, payload)
    _put_id(task, row.id)
    _put_priority(task, _PRIORITIES[row.priority])
    _put_max_retries(task, None)
    _put_key(task, None)
    _put_delay(task, 0)
    _put_timeout(task, None)
    _put_expires_in(task, None)
    _put_on_uncertain(task, None)
    _put_metadata(task, {})
    _put_origin(task, None)
    return task
