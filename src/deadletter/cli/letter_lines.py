"""A letter as a line of an export, and back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from ..engine.queue import DeadLetterQueue
from ..model.errors import InvalidTask
from ..model.record import Reason, State, TaskRecord
from ..model.row import DEAD, FailureRow, NewRow
from ..model.task import Origin, Task, seconds, to_ms
from ..rules.codec import digest, encode_task, key_hash
from ..rules.error_text import MESSAGE_LIMIT
from ..rules.frames import TEXT_LIMIT
from ..rules.redaction import check_paths, path_mark, refuse_redacted
from ..rules.strict_json import loads_strict

FORMAT = 1
LONGEST = 20_000_000  # bytes of a line
_RANK = {"high": 0, "normal": 1, "low": 2}
_MOST = 2**31 - 1
_LAST_YEAR = 9998  # what is stored must be shown in any time zone


def line_of(record: TaskRecord, item: dict[str, Any], *, reveal: bool) -> dict[str, Any]:
    """The item of a letter and what else it takes to store it again.

    Without ``reveal`` a raw message is left out: what it holds nobody here can read, and so nobody can hide.
    """
    task = record.task
    origin = task.origin
    return {
        **item,
        "format": FORMAT,
        "timeout": None if task.timeout is None else seconds("timeout", task.timeout),
        "expires_in": None if task.expires_in is None else seconds("expires_in", task.expires_in),
        "on_uncertain": task.on_uncertain,
        "lease_losses": record.lease_losses,
        "postpones": record.postpones,
        "redact": list(record.redact),
        **({"earlier": list(record.earlier)} if record.earlier else {}),
        "origin": origin
        and {
            "system": origin.system,
            "queue": origin.queue,
            "native_id": origin.native_id,
            "raw": base64.b64encode(origin.raw).decode() if origin.raw is not None and reveal else None,
        },
    }


def row_of(line: bytes, queue: DeadLetterQueue) -> NewRow:
    """The row to insert. Raises InvalidTask that names the field and says what is wrong with it.

    A letter with hidden values arrives as one that cannot be replayed, and leaves its key to the real one.
    """
    document = loads_strict(line, max_bytes=LONGEST, field="letter")
    if not isinstance(document, dict):
        raise InvalidTask("letter", "is no JSON object")
    letter = _Part(document)
    if document.get("format") != FORMAT:
        raise letter.bad("format", "is not one that this version reads; was it made by export?")
    if document.get("state") != State.DEAD:
        raise letter.bad("state", "cannot be imported; only dead letters can")
    task = _task(letter)
    hidden = _hides(task.payload)
    key = None if hidden else task.idempotency_key
    options = queue.options
    history = [_failure(entry) for entry in letter.parts("history")]
    return NewRow(
        id=task.id,
        type=task.type,
        priority=_RANK[task.priority],
        key=key_hash(options.name, task.type, key) if key is not None else None,
        digest=digest(task.type, task.payload),
        body=encode_task(
            queue.codec,
            task,
            max_payload_bytes=options.max_payload_bytes,
            replayable=not hidden and document.get("replayable") is not False,
            earlier=_earlier(letter),
        ),
        state=DEAD,
        keep_ms=_keep_ms(letter),
        redact=path_mark(_redact(letter), defaults=False),
        release=history[-1].release if history else None,
        reason=_reason(letter),
        attempts=letter.count("attempts"),
        lease_losses=letter.count("lease_losses"),
        postpones=letter.count("postpones"),
        replays=letter.count("replays"),
        history=history,
        due_at_ms=letter.time_ms("due_at"),
        created_at_ms=letter.time_ms("created_at"),
        ended_at_ms=letter.time_ms("died_at"),
        count=(("imported", task.type, ""),),
    )


@attrs.frozen
class _Part:
    """A JSON object of a line, read field by field; what is wrong is told with the field's path."""

    fields: Mapping[str, Any]
    path: str = ""

    def bad(self, name: str, problem: str) -> InvalidTask:
        value = repr(self.fields.get(name))
        return InvalidTask(f"{self.path}{name}", f"{value if len(value) <= 80 else value[:77] + '...'} {problem}")

    def text(self, name: str) -> str | None:
        value = self.fields.get(name)
        if value is not None and not isinstance(value, str):
            raise self.bad(name, "is no text")
        return value

    def count(self, name: str, *, least: int = 0) -> int:
        value = self.fields.get(name, least)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
            raise self.bad(name, f"is no count; give {least} or more")
        return value

    def time_ms(self, name: str) -> int:
        try:
            at = datetime.fromisoformat(self.text(name) or "")
        except ValueError:
            raise self.bad(name, "is no time; write it like 2026-11-24T17:07:49Z") from None
        if at.tzinfo is None:
            raise self.bad(name, "has no time zone")
        if not 1970 <= at.year <= _LAST_YEAR:
            raise self.bad(name, f"is not between 1970 and {_LAST_YEAR}")
        return to_ms(at)

    def parts(self, name: str) -> Iterator[_Part]:
        value = self.fields.get(name) or []
        if not isinstance(value, list):
            raise self.bad(name, "is no list")
        for at, entry in enumerate(value):
            if not isinstance(entry, dict):
                raise self.bad(name, f"holds at {at} what is no object")
            yield _Part(entry, f"{self.path}{name}[{at}].")


def _task(letter: _Part) -> Task:
    fields = letter.fields
    return Task(
        id=fields.get("id"),  # type: ignore[arg-type]
        type=fields.get("type"),  # type: ignore[arg-type]
        payload=fields.get("payload"),  # type: ignore[arg-type]
        priority=fields.get("priority", "normal"),
        max_retries=fields.get("max_retries"),
        idempotency_key=fields.get("idempotency_key"),
        metadata=fields.get("metadata") or {},
        timeout=fields.get("timeout"),
        expires_in=fields.get("expires_in"),
        on_uncertain=fields.get("on_uncertain"),
        origin=_origin(letter),
    )


def _origin(letter: _Part) -> Origin | None:
    fields = letter.fields.get("origin")
    if fields is None:
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("system"), str):
        raise letter.bad("origin", "names no system")
    origin = _Part(fields, "origin.")
    try:
        raw = base64.b64decode(origin.text("raw") or "", validate=True)
    except (binascii.Error, ValueError):
        raise origin.bad("raw", "is no base64") from None
    return Origin(
        system=fields["system"],
        queue=origin.text("queue"),
        native_id=origin.text("native_id"),
        raw=None if fields.get("raw") is None else raw,
    )


def _earlier(letter: _Part) -> Sequence[Mapping[str, Any]]:
    earlier = letter.fields.get("earlier") or []
    if not isinstance(earlier, list) or not all(isinstance(payload, dict) for payload in earlier):
        raise letter.bad("earlier", "is no list of payloads")
    return earlier


def _failure(entry: _Part) -> FailureRow:
    duration = entry.fields.get("duration")
    return FailureRow(
        attempt=entry.count("attempt"),
        at_ms=entry.time_ms("at"),
        duration_ms=None if duration is None else round(seconds(f"{entry.path}duration", duration) * 1000),
        error_type=entry.text("type") or "",
        message=(entry.text("message") or "")[:MESSAGE_LIMIT],
        traceback=(entry.text("traceback") or "")[:TEXT_LIMIT],
        fingerprint=entry.text("fingerprint") or "",
        worker=entry.text("worker"),
        release=entry.text("release"),
        traceparent=entry.text("traceparent"),
    )


def _keep_ms(letter: _Part) -> int | None:
    """How long it is kept from its death on: to the time that was stamped on it."""
    if letter.fields.get("expires_at") is None:
        return None
    keep_ms = letter.time_ms("expires_at") - letter.time_ms("died_at")
    if keep_ms < 0:
        raise letter.bad("expires_at", "is before died_at")
    return keep_ms


def _reason(letter: _Part) -> Reason:
    try:
        return Reason(letter.text("reason") or Reason.CAPTURED)
    except ValueError:
        raise letter.bad("reason", f"is not one of {', '.join(Reason)}") from None


def _redact(letter: _Part) -> tuple[str, ...]:
    paths = letter.fields.get("redact") or []
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise letter.bad("redact", "is no list of paths")
    check_paths(paths)
    return tuple(paths)


def _hides(payload: Mapping[str, Any]) -> bool:
    try:
        refuse_redacted(payload)
    except ValueError:
        return True
    return False
