"""One letter at a time: capture, retry, edit, cancel."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from ..model.errors import (
    BackendError,
    IdempotencyConflict,
    InvalidTask,
    NotDead,
    NotReplayable,
    TaskConflict,
    TaskNotFound,
)
from ..model.record import EDITED, Reason, TaskRecord
from ..model.row import DEAD, GONE, PENDING, FailureRow, Inserted, Insertion, NewRow, Row, Verdict
from ..model.task import Duration, Task
from ..rules import changes
from ..rules.codec import encode_task
from ..rules.masking import Mask
from ..rules.redaction import merge_edit
from ..rules.story import failure_row
from .options import to_ms
from .telling import mask_of

if TYPE_CHECKING:
    from .queue import DeadLetterQueue
    from .spooling import Spooler

log = logging.getLogger("deadletter.queue")


async def capture(queue: DeadLetterQueue, task: Task, exc: BaseException, *, reason: Reason | str) -> str:
    """See DeadLetterQueue.capture."""
    try:
        why = Reason(reason)
    except ValueError:
        raise InvalidTask("reason", f"{reason!r} is not one of {', '.join(Reason)}") from None
    if not isinstance(exc, BaseException):
        raise InvalidTask("exc", f"{exc!r} is no exception; give the one that was raised")
    bare = queue.new_row(task)
    new = dead_row(queue, bare, exc, why, mask_of(queue, task, bare.redact))
    if queue.spooler is None:
        insertion = await queue.insert_row(new)
    else:
        try:
            with anyio.fail_after(queue.options.capture_timeout):
                insertion = await queue.insert_row(new)
        except (BackendError, OSError) as problem:  # TimeoutError is an OSError
            return await _spooled(queue.spooler, new, problem)
    if insertion.verdict not in (Inserted.STORED, Inserted.EXISTS):
        raise conflict(task, insertion)
    return insertion.id


async def _spooled(spooler: Spooler, new: NewRow, problem: Exception) -> str:
    try:
        interrupted = await spooler.put_soon(new)
    except BackendError as second:
        problem.add_note(f"deadletter: the spool did not take it either: {second}")
        raise problem from None
    path = spooler.spool.path
    log.warning("the store did not take letter %s, which waits in %s: %r", new.id, path, problem)
    if interrupted is not None:
        raise interrupted
    return new.id


def conflict(task: Task, insertion: Insertion) -> TaskConflict | IdempotencyConflict:
    """What to raise for a task that was not stored."""
    if insertion.verdict is Inserted.TASK_CONFLICT:
        return TaskConflict(task.id)
    return IdempotencyConflict(task.idempotency_key or "", insertion.id)


def dead_row(
    queue: DeadLetterQueue, new: NewRow, exc: BaseException, reason: Reason, mask: Mask | None = None
) -> NewRow:
    """The same row as a letter with its failure."""
    failure = failure_row(
        exc, task_type=new.type, attempt=1, duration_ms=None, worker=None, release=queue.options.release, mask=mask
    )
    return attrs.evolve(
        new,
        state=DEAD,
        reason=reason,
        attempts=1,
        expires_ms=None,
        history=[failure],
        count=(("captured", new.type, ""), ("failures", new.type, failure.error_type), ("dead", new.type, reason)),
    )


async def retry(
    queue: DeadLetterQueue,
    task_id: str,
    *,
    reset: bool,
    payload: Any,
    type_: str | None,
    delay: Duration,
    why: str | None,
) -> TaskRecord:
    """See DeadLetterQueue.retry."""
    delay_ms = to_ms("delay", delay)
    row = await _letter(queue, task_id)
    body, note = _edit(queue, row, payload, type_, why)
    change = changes.replay(
        row,
        queue.chance.name(),
        reset=reset,
        delay_ms=delay_ms,
        type=type_,
        body=body,
        note=note,
        why=mask_of(queue, queue.record(row).task, row.redact).text(why) if why else "",
    )
    verdict = await queue.apply_one(change)
    if verdict is Verdict.MISSING:
        raise TaskNotFound(task_id)
    if verdict is Verdict.STALE:
        raise NotDead(task_id, "changed by somebody else meanwhile")
    return await queue.get(task_id)


async def replay_if_dead(queue: DeadLetterQueue, task_id: str) -> None:
    """Retry a letter that an enqueue met; somebody else's retry is as good."""
    try:
        await retry(queue, task_id, reset=True, payload=None, type_=None, delay=0, why="enqueued again")
    except (NotDead, TaskNotFound):
        return


async def _letter(queue: DeadLetterQueue, task_id: str) -> Row:
    row = await queue.row(task_id)
    if row is None or row.state == GONE:
        raise TaskNotFound(task_id)
    if row.state != DEAD:
        raise NotDead(task_id, str(row.state))
    return row


def _edit(
    queue: DeadLetterQueue, row: Row, payload: Any, type_: str | None, why: str | None
) -> tuple[bytes | None, FailureRow | None]:
    record = queue.record(row)
    if payload is None and not record.replayable:
        raise NotReplayable(row.id)
    if type_ is not None:
        Task(type=type_)
    if payload is None and type_ is None:
        return None, None
    body = None
    said = [f"type {row.type} -> {type_}"] if type_ is not None else []
    if payload is not None:
        if not isinstance(payload, Mapping):
            raise InvalidTask("payload", f"{type(payload).__name__} is no JSON object; give a mapping")
        edited = attrs.evolve(record.task, payload=merge_edit(record.task.payload, payload))
        earlier = (*record.earlier, record.task.payload)
        body = encode_task(queue.codec, edited, max_payload_bytes=queue.options.max_payload_bytes, earlier=earlier)
        said.append("payload edited")
    message = ", ".join(said) + (f": {why}" if why else "")
    return body, FailureRow(attempt=row.attempts, error_type=EDITED, message=message[:2000])


async def cancel(queue: DeadLetterQueue, task_id: str) -> bool:
    """See DeadLetterQueue.cancel."""
    row = await queue.row(task_id)
    if row is None or row.state == GONE:
        raise TaskNotFound(task_id)
    if row.state != PENDING:
        return False
    verdict = await queue.apply_one(changes.cancel(row, queue.chance.name(), queue.options.keep_finished_ms))
    return verdict in (Verdict.DONE, Verdict.REPEATED)
