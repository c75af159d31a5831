"""A letter as a line of an export, and back."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..engine.queue import DeadLetterQueue
from ..model.errors import InvalidTask
from ..model.record import Reason, State, TaskRecord
from ..model.row import DEAD, FailureRow, NewRow
from ..model.task import Origin, Task, seconds, to_ms
from ..rules.codec import digest, encode_task, key_hash
from ..rules.redaction import path_mark, refuse_redacted
from ..rules.strict_json import loads_strict

FORMAT = 1
LONGEST = 20_000_000  # bytes of a line
_RANK = {"high": 0, "normal": 1, "low": 2}


def line_of(record: TaskRecord, item: dict[str, Any]) -> dict[str, Any]:
    """The item of a letter and what else it takes to store it again."""
    task = record.task
    origin = task.origin
    return {
        **item,
        "format": FORMAT,
        "timeout": None if task.timeout is None else seconds("timeout", task.timeout),
        "expires_in": None if task.expires_in is None else seconds("expires_in", task.expires_in),
        "on_uncertain": task.on_uncertain,
        "redact": list(record.redact),
        "origin": origin
        and {
            "system": origin.system,
            "queue": origin.queue,
            "native_id": origin.native_id,
            "raw": origin.raw and base64.b64encode(origin.raw).decode(),
        },
    }


def row_of(line: str, queue: DeadLetterQueue) -> NewRow:
    """The row to insert. Raises ValueError (InvalidTask among them) that says what is wrong with the line."""
    letter = loads_strict(line, max_bytes=LONGEST, field="letter")
    if not isinstance(letter, dict):
        raise InvalidTask("letter", "is no JSON object")
    if letter.get("format") != FORMAT:
        raise ValueError(f"format {letter.get('format')!r} is not one that this version reads; was it made by export?")
    if letter.get("state") != State.DEAD:
        raise ValueError(f"its state is {letter.get('state')!r}; only dead letters can be imported")
    task = _task(letter)
    hidden = _hides(task.payload)
    history = [_failure(entry) for entry in letter.get("history") or ()]
    options = queue.options
    died = _ms(letter, "died_at")
    expires = letter.get("expires_at")
    key = task.idempotency_key
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
            replayable=not hidden and letter.get("replayable") is not False,
        ),
        state=DEAD,
        keep_ms=None if expires is None else max(0, _ms(letter, "expires_at") - died),
        redact=path_mark(letter.get("redact") or (), defaults=False),
        release=history[-1].release if history else None,
        reason=Reason(letter.get("reason") or Reason.CAPTURED),
        attempts=int(letter.get("attempts") or 0),
        replays=int(letter.get("replays") or 0),
        history=history,
        due_at_ms=_ms(letter, "due_at"),
        created_at_ms=_ms(letter, "created_at"),
        ended_at_ms=died,
        count=(("imported", task.type, ""),),
    )


def _task(letter: Mapping[str, Any]) -> Task:
    origin = letter.get("origin")
    return Task(
        id=letter.get("id"),  # type: ignore[arg-type]
        type=letter.get("type"),  # type: ignore[arg-type]
        payload=letter.get("payload"),  # type: ignore[arg-type]
        priority=letter.get("priority", "normal"),
        max_retries=letter.get("max_retries"),
        idempotency_key=letter.get("idempotency_key"),
        metadata=letter.get("metadata") or {},
        timeout=letter.get("timeout"),
        expires_in=letter.get("expires_in"),
        on_uncertain=letter.get("on_uncertain"),
        origin=None
        if origin is None
        else Origin(
            system=origin["system"],
            queue=origin.get("queue"),
            native_id=origin.get("native_id"),
            raw=base64.b64decode(origin["raw"], validate=True) if origin.get("raw") is not None else None,
        ),
    )


def _failure(entry: Mapping[str, Any]) -> FailureRow:
    duration = entry.get("duration")
    return FailureRow(
        attempt=int(entry["attempt"]),
        at_ms=_ms(entry, "at"),
        duration_ms=None if duration is None else round(duration * 1000),
        error_type=str(entry["type"]),
        message=str(entry["message"]),
        traceback=str(entry.get("traceback") or ""),
        fingerprint=str(entry.get("fingerprint") or ""),
        worker=entry.get("worker"),
        release=entry.get("release"),
    )


def _ms(entry: Mapping[str, Any], name: str) -> int:
    text = entry.get(name)
    if not isinstance(text, str):
        raise InvalidTask(name, f"{text!r} is no time")
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise InvalidTask(name, f"{text!r} has no time zone")
    return to_ms(at)


def _hides(payload: Mapping[str, Any]) -> bool:
    try:
        refuse_redacted(payload)
    except ValueError:
        return True
    return False
