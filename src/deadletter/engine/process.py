"""One attempt in the caller's own task: what ``process_task`` does, from the claim to the verdict."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from ..model.errors import BackendError, LeaseLost, TaskBusy, TaskNotFound, Undecodable
from ..model.outcome import Processor, Released, Succeeded
from ..model.row import Change, Claim, Row, Verdict
from ..rules import changes
from ..runtime.loops import loop_caller
from .attempt import Attempt, begin, call, decide
from .registry import Registration, is_async
from .settler import persist
from .solitude import Solo
from .sweeper import change_for

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.process")

_GIVE_UP_LEASES = 10  # how many leases long an outcome waits for a store that is away


async def process_task(queue: DeadLetterQueue, task_id: str, processor: Processor) -> bool:
    """See DeadLetterQueue.process_task."""
    async with queue.solitude.visited() as solo:
        return await _process(queue, task_id, processor, solo)


async def _process(queue: DeadLetterQueue, task_id: str, processor: Processor, solo: Solo | None) -> bool:
    registration = Registration(processor=processor, is_async=is_async(processor))
    known = queue.registry
    for _ in range(3):  # a lapsed or expired row is dealt with first, then asked for again
        sent = queue.clock.monotonic()
        claimed = await _claim(queue, task_id, alone=solo is not None)
        if isinstance(claimed, bool):
            return claimed
        if isinstance(claimed, Row):
            if solo is not None and not claimed.alone:  # no suspect: others may come
                solo.mingle()
            try:
                return await _run(queue, _begin(queue, claimed, registration, known.get(claimed.type), sent))
            except Undecodable as error:
                op = f"{claimed.token}.s"
                await settle(queue, changes.quarantine(claimed, op, str(error), queue.options.keep_letters_ms))
                return False
    raise TaskBusy(task_id)


def _begin(queue: DeadLetterQueue, row: Row, given: Registration, known: Registration | None, sent: float) -> Attempt:
    registration = given
    if known is not None:  # the type's own policy and timeout hold for a processor that is given, too
        registration = Registration(
            processor=given.processor,
            is_async=given.is_async,
            retry=known.retry,
            max_retries=known.max_retries,
            timeout=known.timeout,
        )
    now_ms = (row.lease_ms or 0) - queue.options.lease_ms
    return begin(queue, row, registration, worker=row.owner or "", sent=sent, now_ms=now_ms)


async def _claim(queue: DeadLetterQueue, task_id: str, *, alone: bool) -> Row | bool | None:
    """The leased row; an answer that needs none; or None where it is worth asking again."""
    options = queue.options
    claim = Claim(
        op=queue.chance.name(),
        ids=[task_id],
        lease_ms=options.lease_ms,
        owner=f"process_task:{queue.chance.name()[:6]}",
        max_losses=options.suspicious,
        alone=alone,
        keep_ms=options.keep_letters_ms,
    )
    try:
        claimed = await queue.backend.claim(queue.name, claim)
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True), anyio.move_on_after(1):  # the same op answers with what it had got
            for row in (await queue.backend.claim(queue.name, claim)).rows:
                await queue.apply([changes.release(row, f"{row.token}.s")])
        raise
    if claimed.rows:
        return claimed.rows[0]
    word = claimed.words.get(task_id, "missing")
    if word == "missing":
        raise TaskNotFound(task_id)
    if word in ("succeeded", "dead"):
        return word == "succeeded"
    if word == "newer":
        raise BackendError(
            f"task {task_id!r} was stored by a newer version of deadletter; upgrade this process to run it"
        )
    await _clear(queue, task_id, claimed.now_ms)
    return None


async def _clear(queue: DeadLetterQueue, task_id: str, now_ms: int) -> None:
    """Deal with a lapsed lease or an expiry that no sweep has seen yet; raises TaskBusy where the lease is good."""
    row = await queue.row(task_id)
    if row is None:
        raise TaskNotFound(task_id)
    if row.lease_ms is not None and row.lease_ms > now_ms:
        raise TaskBusy(task_id)
    await queue.apply_one(change_for(queue, row))


async def _run(queue: DeadLetterQueue, attempt: Attempt) -> bool:
    if queue.keeper.too_late(attempt, queue.clock.monotonic()):
        await _give_back(queue, attempt)
        raise LeaseLost(attempt.row.id)
    queue.keeper.add(attempt, loop_caller())
    try:
        outcome = await call(attempt, scoped=True)
    except BaseException:
        await _give_back(queue, attempt)
        raise
    if isinstance(outcome, Released):  # stopped by the keeper; the lease is perhaps still ours
        await _give_back(queue, attempt)
        raise LeaseLost(attempt.row.id)
    queue.keeper.remove(attempt)
    change = decide(attempt, outcome)
    try:
        await settle(queue, change)
    finally:
        queue.keeper.settled([change])
    return isinstance(outcome, Succeeded)


async def _give_back(queue: DeadLetterQueue, attempt: Attempt) -> None:
    """Release at once what has not run to its end: not consumed. Where the store is away, the lease lapses."""
    queue.keeper.remove(attempt)
    change = decide(attempt, Released())
    with anyio.CancelScope(shield=True), anyio.move_on_after(5):
        try:
            await queue.apply_one(change)
        except BackendError as error:
            log.warning("cannot give back %s, its lease lapses instead: %s", attempt.row.id, error)
    queue.keeper.settled([change])


async def settle(queue: DeadLetterQueue, change: Change) -> None:
    """Store an outcome, shielded; raises LeaseLost where it came too late."""
    give_up = queue.clock.monotonic() + queue.options.lease_ms / 1000 * _GIVE_UP_LEASES

    async def apply() -> list[Verdict]:
        return [await queue.apply_one(change)]

    verdicts: list[Verdict] = []
    with anyio.CancelScope(shield=True):
        verdicts = await persist(apply, queue.clock, lambda: give_up)
    if verdicts[0] in (Verdict.STALE, Verdict.MISSING):
        raise LeaseLost(change.id)


async def extend(queue: DeadLetterQueue, attempt: Attempt, duration: float) -> None:
    """See AttemptContext.extend."""
    attempt.extensions += 1
    lease_ms = max(queue.options.lease_ms, round(duration * 1000))
    sent = queue.clock.monotonic()
    verdict = await queue.apply_one(changes.extend(attempt.row, f"{attempt.row.token}.y{attempt.extensions}", lease_ms))
    if verdict in (Verdict.STALE, Verdict.MISSING):
        raise LeaseLost(attempt.row.id)
    attempt.lease_until = sent + lease_ms / 1000
    attempt.deadline += duration
