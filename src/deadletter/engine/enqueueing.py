"""From a task to its stored row: check, encode, insert, and answer with the id."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import attrs

from ..model.errors import BatchFailed, DeadLetterError, InvalidTask
from ..model.row import BATCH, DEAD, Inserted, Insertion, NewRow
from ..model.task import Task, seconds, to_ms
from ..rules.codec import JsonCodec, digest, encode_task, key_hash
from ..rules.redaction import refuse_redacted
from ..runtime.chance import is_new_id
from . import letters
from .watching import added_metadata

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.queue")

_RANK = {"high": 0, "normal": 1, "low": 2}
_CONFLICTS = (Inserted.TASK_CONFLICT, Inserted.KEY_CONFLICT)


async def enqueue(queue: DeadLetterQueue, task: Task, on_dead: str) -> str:
    """See DeadLetterQueue.enqueue."""
    if on_dead not in ("keep", "replay"):
        raise InvalidTask("on_dead", f'{on_dead!r} is not one of "keep", "replay"')
    new = queue.new_row(task)
    _check_place(queue, new)
    return await answer(queue, task, await queue.insert_row(new), on_dead)


async def enqueue_many(queue: DeadLetterQueue, tasks: Sequence[Task]) -> list[str]:
    """See DeadLetterQueue.enqueue_many."""
    rows: list[NewRow] = []
    given = list(tasks)
    for index, task in enumerate(given):
        try:
            rows.append(queue.new_row(task))
            _check_place(queue, rows[-1])
        except InvalidTask as error:
            error.add_note(f"task {index} of the batch; nothing was stored")
            raise
    await queue.open()
    ids: list[str] = []
    for at in range(0, len(rows), BATCH):
        try:
            insertions = await queue.insert(rows[at : at + BATCH])
        except DeadLetterError as error:
            raise BatchFailed(at, ids, str(error)) from error
        for offset, insertion in enumerate(insertions):
            if insertion.verdict in _CONFLICTS:
                conflict = letters.conflict(given[at + offset], insertion)
                raise BatchFailed(at + offset, ids, str(conflict)) from conflict
            _warn_of_letter(given[at + offset], insertion)
        ids += [insertion.id for insertion in insertions]
    return ids


def new_row(queue: DeadLetterQueue, task: Task) -> NewRow:
    """Encode a task; raises InvalidTask that names the field."""
    if not isinstance(task, Task):
        raise InvalidTask("task", f"{type(task).__name__} is no deadletter.Task")
    if queue.watchers:
        task = attrs.evolve(task, metadata={**added_metadata(queue.watchers), **task.metadata})
    options = queue.options
    body = encode_task(queue.codec, task, max_payload_bytes=options.max_payload_bytes)
    if b"$redacted" in body or not isinstance(queue.codec, JsonCodec):  # another codec may encrypt
        refuse_redacted(task.payload)
    delay = task.delay
    key = task.idempotency_key
    registration = queue.registry.get(task.type)
    marked = registration.mark if registration is not None else None
    return NewRow(
        id=task.id,
        type=task.type,
        priority=_RANK[task.priority],
        key=key_hash(options.name, task.type, key) if key is not None else None,
        digest=digest(task.type, task.payload),
        body=body,
        due_ms=0 if isinstance(delay, datetime) else round(seconds("delay", delay) * 1000),
        due_at_ms=to_ms(delay) if isinstance(delay, datetime) else None,
        expires_ms=round(seconds("expires_in", task.expires_in) * 1000) if task.expires_in is not None else None,
        keep_ms=options.keep_letters_ms,
        redact=options.redact_mark if marked is None else marked(options.redact_mark),
        release=options.release,
        count=(("enqueued", task.type, ""),),
    )


async def answer(queue: DeadLetterQueue, task: Task, insertion: Insertion, on_dead: str) -> str:
    """The id that a task is stored under, or bound to; raises where it conflicts."""
    if insertion.verdict in _CONFLICTS:
        raise letters.conflict(task, insertion)
    if insertion.verdict is Inserted.EXISTS and insertion.state == DEAD and on_dead == "replay":
        await letters.replay_if_dead(queue, insertion.id)
    else:
        _warn_of_letter(task, insertion)
    return insertion.id


def any_conflict(insertions: Sequence[Insertion]) -> bool:
    """Whether nothing of the call was stored."""
    return any(insertion.verdict in _CONFLICTS for insertion in insertions)


def _check_place(queue: DeadLetterQueue, new: NewRow) -> None:
    """Refuse what a spread queue cannot keep unique: it places a task by its key, and looks for an id nowhere else."""
    shards = queue.backend.shards
    if shards > 1 and new.key is not None and not is_new_id(new.id):
        raise InvalidTask(
            "id",
            f"{new.id!r} was chosen and comes with an idempotency key: over {shards} shards only one of them is kept"
            " unique; leave the id out, or the key",
        )


def _warn_of_letter(task: Task, insertion: Insertion) -> None:
    if insertion.verdict is Inserted.EXISTS and insertion.state == DEAD:
        log.warning(
            "%s of type %s is a dead letter already; nothing was enqueued (retry it, or enqueue with on_dead='replay')",
            insertion.id,
            task.type,
            extra={"task_id": insertion.id},
        )
