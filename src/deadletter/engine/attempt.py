"""One attempt: one struct through one pipe, ``begin`` → ``call`` → ``decide``."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from ..interfaces import FailedAttempt, RetryPolicy
from ..model.outcome import (
    Discarded,
    Failed,
    Outcome,
    Postponed,
    Released,
    Succeeded,
    classify_error,
    classify_result,
)
from ..model.record import Reason
from ..model.row import Change, Row
from ..model.task import Task, seconds
from ..rules import changes
from ..rules.codec import failure_from_row
from ..rules.story import failure_row
from . import context as contexts
from .registry import Registration

if TYPE_CHECKING:
    from ..interfaces.instrumentation import AttemptSpan
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.attempt")

_FALLBACK_DELAY = 300.0  # where a policy itself fails: late, but never lost


@attrs.define(eq=False)
class Attempt:
    """One run of one processor under one lease."""

    queue: DeadLetterQueue
    row: Row
    task: Task
    registration: Registration
    policy: RetryPolicy
    retries: float
    worker: str
    sent: float  # monotonic: when the lease was asked for, so that our idea of its end is never late
    now_ms: int  # the store's clock at the claim
    lease_until: float = 0.0  # monotonic
    deadline: float = 0.0  # monotonic: max_runtime
    cancel: Callable[[], object] | None = None
    stopped: str | None = None  # why its worker cancelled it: lost, shutdown, timeout
    extensions: int = 0
    thread: threading.Event | None = None  # set when the processor's thread has ended
    limiter: anyio.CapacityLimiter | None = None
    thread_watchers: list[Callable[[], None]] = attrs.field(factory=list)

    @property
    def number(self) -> int:
        """Of this attempt, from 1: attempts count when they end."""
        return self.row.attempts + 1

    @property
    def op(self) -> str:
        """The op id of its settlement: one per lease."""
        return f"{self.row.token}.s"

    @property
    def in_thread(self) -> bool:
        """Whether a thread of it still runs."""
        return self.thread is not None and not self.thread.is_set()

    def when_thread_ends(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` (from any thread, perhaps twice) once the processor's thread has ended."""
        self.thread_watchers.append(watcher)
        if not self.in_thread:
            watcher()

    def stop(self, why: str) -> None:
        """Cancel it; in its loop."""
        if self.stopped is None:
            self.stopped = why
        if self.cancel is not None:
            self.cancel()


def begin(queue: DeadLetterQueue, row: Row, registration: Registration, *, worker: str, sent: float, now_ms: int) -> Attempt:
    """Make an attempt out of a claimed row; raises Undecodable where its body cannot be read."""
    task = queue.decode(row)
    options = queue.options
    policy = registration.retry or options.policy
    attempt = Attempt(
        queue,
        row,
        task,
        registration,
        policy,
        options.retries(task, registration.max_retries, policy),
        worker,
        sent,
        now_ms,
    )
    attempt.lease_until = sent + options.lease_ms / 1000
    attempt.deadline = sent + options.max_runtime
    return attempt


async def call(attempt: Attempt, *, scoped: bool) -> Outcome:
    """Run the processor and say what it meant.

    ``scoped``: it runs in somebody else's task, so only a cancel scope of our own may be cancelled.
    """
    instrumentation = attempt.queue.instrumentation
    span: AbstractContextManager[AttemptSpan | None] = (
        nullcontext()
        if instrumentation is None
        else instrumentation.attempt(attempt.task, queue=attempt.queue.name, number=attempt.number)
    )
    with span as watched:
        token = contexts.current.set(_context(attempt))
        try:
            outcome = await _call(attempt, scoped=scoped)
        finally:
            contexts.current.reset(token)
        if watched is not None:
            watched.ended(outcome)
    return outcome


def _context(attempt: Attempt) -> contexts.AttemptContext:
    async def extend(duration: float) -> None:
        await attempt.queue.extend(attempt, duration)

    def lease_ms() -> int:
        return attempt.now_ms + round((attempt.lease_until - attempt.sent) * 1000)

    history = attempt.row.history
    return contexts.AttemptContext(
        attempt.task,
        attempt.number,
        int(attempt.retries) + 1 if attempt.retries != float("inf") else None,
        failure_from_row(history[-1]) if history else None,
        lease_ms,
        extend,
    )


async def _call(attempt: Attempt, *, scoped: bool) -> Outcome:
    timeout = attempt.registration.timeout
    if attempt.task.timeout is not None:
        timeout = seconds("timeout", attempt.task.timeout)
    try:
        if timeout is None and not scoped:
            return classify_result(await _run(attempt))
        with anyio.CancelScope() as scope:
            if scoped:
                attempt.cancel = scope.cancel
            if timeout is not None:
                scope.deadline = anyio.current_time() + timeout
            return classify_result(await _run(attempt))
        # Only a scope that caught its own cancellation comes here.
        return _stopped(attempt, timeout)
    except BaseException as error:  # noqa: BLE001 - whatever a processor raises is its outcome
        return _raised(attempt, error, scoped=scoped)


def _stopped(attempt: Attempt, timeout: float | None) -> Outcome:
    if attempt.stopped in ("lost", "shutdown"):
        return Released()
    limit = attempt.queue.options.max_runtime if attempt.stopped == "timeout" else timeout
    name = "max_runtime" if attempt.stopped == "timeout" else "timeout"
    return Failed(TimeoutError(f"ran longer than its {name} of {limit:g} s"))


def _raised(attempt: Attempt, error: BaseException, *, scoped: bool) -> Outcome:
    if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
        raise error
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return classify_error(error)
    task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    if attempt.stopped is not None:
        if task is not None and not scoped:
            task.uncancel()
        return _stopped(attempt, None)
    if task is None or (scoped and task.cancelling()):
        raise error  # whoever called us is being cancelled
    if not scoped:
        task.uncancel()
    return classify_error(error)


async def _run(attempt: Attempt) -> object:
    processor, task = attempt.registration.processor, attempt.task
    if attempt.registration.is_async:
        return await processor(task)
    result, error = await _in_thread(attempt, lambda: processor(task))
    if error is not None:
        raise error
    return await result if inspect.isawaitable(result) else result


async def _in_thread(attempt: Attempt, run: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    ended = attempt.thread = threading.Event()

    def guarded() -> tuple[Any, BaseException | None]:
        try:
            return run(), None
        except BaseException as error:  # noqa: BLE001 - StopIteration cannot cross a future
            return None, error
        finally:
            ended.set()
            for watcher in attempt.thread_watchers:
                watcher()

    return await attempt.queue.threads.run(guarded, attempt.limiter)


def decide(attempt: Attempt, outcome: Outcome) -> Change:
    """The change that an outcome means; a thread that outlived its timeout keeps the lease until it ends."""
    row, options = attempt.row, attempt.queue.options
    if isinstance(outcome, Succeeded):
        return changes.succeed(row, attempt.op, options.keep_ended_ms(keyed=row.key is not None))
    if isinstance(outcome, Failed):
        return _decide_failure(attempt, outcome)
    if isinstance(outcome, Postponed):
        return changes.postpone(row, attempt.op, round(outcome.delay * 1000))
    if isinstance(outcome, Discarded):
        return changes.discard(row, attempt.op, options.keep_finished_ms, outcome.why[:500])
    if attempt.in_thread:
        attempt.queue.keeper.hold(attempt, changes.release(row, f"{row.token}.t"))
        return changes.shelve(row, attempt.op)
    return changes.release(row, attempt.op)


def _decide_failure(attempt: Attempt, outcome: Failed) -> Change:
    row, options = attempt.row, attempt.queue.options
    elapsed = attempt.queue.clock.monotonic() - attempt.sent
    failure = failure_row(
        outcome.error,
        task_type=row.type,
        attempt=attempt.number,
        duration_ms=round(elapsed * 1000),
        worker=attempt.worker,
        release=options.release,
    )
    if outcome.permanent:
        reason = Reason.REJECTED if outcome.rejected else Reason.PERMANENT
        return changes.die(row, attempt.op, reason, failure, options.keep_letters_ms)
    delay = _delay(attempt, outcome, elapsed) if attempt.number <= attempt.retries else None
    if delay is None:
        return changes.die(row, attempt.op, Reason.RETRIES_EXHAUSTED, failure, options.keep_letters_ms)
    delay_ms = round(delay * 1000)
    if attempt.in_thread:
        attempt.queue.keeper.hold(attempt, changes.yield_thread(row, f"{row.token}.t", delay_ms))
        return changes.outlive(row, attempt.op, failure)
    return changes.try_again(row, attempt.op, failure, delay_ms)


def _delay(attempt: Attempt, outcome: Failed, elapsed: float) -> float | None:
    if outcome.retry_after is not None:
        return outcome.retry_after
    row, queue = attempt.row, attempt.queue
    try:
        delay = attempt.policy.delay(
            FailedAttempt(
                number=attempt.number,
                error=outcome.error,
                task_id=row.id,
                type=row.type,
                age=max(0.0, (attempt.now_ms - row.since_ms) / 1000 + elapsed),
                random=queue.chance.random,
                now=queue.clock.monotonic(),
                max_retries=queue.options.asked(attempt.task, attempt.registration.max_retries),
            )
        )
        if delay is not None and not 0 <= delay < math.inf:
            raise ValueError(f"its delay was {delay!r}")  # noqa: TRY301 - the same answer as to any other fault of a policy
    except Exception:
        log.exception("retry policy %r failed; %s is tried again in %g s", attempt.policy, row.id, _FALLBACK_DELAY)
        return _FALLBACK_DELAY
    return delay
