"""One attempt: one struct through one pipe, ``begin`` → ``call`` → ``decide``."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from ..interfaces import FailedAttempt, RetryPolicy
from ..interfaces.instrumentation import AttemptStart
from ..model.outcome import (
    Discarded,
    Failed,
    Outcome,
    Postponed,
    Released,
    Succeeded,
    classify_result,
)
from ..model.record import Reason
from ..model.row import Change, Row
from ..model.task import Task, seconds
from ..rules import changes
from ..rules.circuits import classify
from ..rules.story import failure_row
from . import context as contexts
from .registry import Registration
from .telling import Teller, mask_of, teller
from .watching import WatchedAttempt

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.attempt")

_FALLBACK_DELAY = 300.0  # where a policy itself fails: late, but never lost
_FALLBACK_RETRIES = 10


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
    traceparent: str | None = None  # what marks it in traces
    reach: Callable[..., object] = lambda *_: None  # calls into its loop from any thread
    loop_thread: int = 0
    thread_watchers: list[Callable[[], None]] = attrs.field(factory=list)

    @property
    def number(self) -> int:
        """Of this attempt, from 1: attempts count when they end."""
        return self.row.attempts + 1

    @property
    def op(self) -> str:
        """The op id of its settlement: one per claim, so that outcomes of one batch are stored alike."""
        return f"{self.row.op}.s"

    @property
    def in_thread(self) -> bool:
        """Whether a thread of it still runs."""
        return self.thread is not None and not self.thread.is_set()

    def when_thread_ends(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` (from any thread, perhaps twice) once the processor's thread has ended."""
        self.thread_watchers.append(watcher)
        if not self.in_thread:
            watcher()

    @property
    def timeout(self) -> float | None:
        """Seconds that it may run: the task's own, else its processor's."""
        own = self.task.timeout
        return seconds("timeout", own) if own is not None else self.registration.timeout

    def stop(self, why: str) -> None:
        """Cancel it; in its loop.

        A second call is for shutdown only: what it does to clean up is not cut off at each tick.
        """
        if self.stopped is not None and why != "shutdown":
            return
        self.stopped = self.stopped or why
        if self.cancel is not None:
            self.cancel()


def begin(
    queue: DeadLetterQueue, row: Row, registration: Registration, *, worker: str, sent: float, now_ms: int
) -> Attempt:
    """Make an attempt out of a claimed row; raises Undecodable where its body cannot be read."""
    task = queue.decode(row)
    options = queue.options
    policy = registration.retry or options.policy
    told = teller(queue, task, row.redact)
    retries = count_retries(queue, task, registration, first=row.attempts == 0, told=told)
    attempt = Attempt(queue, row, task, registration, policy, retries, worker, sent, now_ms)
    # Not from lease_ms of the options: an answer that was asked for twice tells of a lease that has run for a while.
    attempt.lease_until = sent + ((row.lease_ms or now_ms) - now_ms) / 1000
    attempt.deadline = sent + options.max_runtime if attempt.timeout is None else math.inf
    return attempt


def count_retries(
    queue: DeadLetterQueue, task: Task, registration: Registration, *, first: bool, told: Teller
) -> float:
    """How many retries a task gets; ``first`` tells its policy that the first attempt starts now."""
    policy = registration.retry or queue.options.policy
    try:
        if first:
            policy.observe(queue.clock.monotonic())
        return queue.options.retries(task, registration.max_retries, policy)
    except Exception as error:
        log.error(  # noqa: TRY400 - the traceback may show what is hidden
            "retry policy %r failed; %s gets %d retries\n%s", policy, task.id, _FALLBACK_RETRIES, told(error)
        )
        return _FALLBACK_RETRIES


async def call(attempt: Attempt, *, scoped: bool) -> Outcome:
    """Run the processor and say what it meant.

    ``scoped``: it runs in somebody else's task, so only a cancel scope of our own may be cancelled.
    """
    watchers = attempt.queue.watchers
    if not watchers:
        return await _in_context(attempt, scoped=scoped)
    start = _start(attempt, teller(attempt.queue, attempt.task, attempt.row.redact))
    with WatchedAttempt(
        watchers, attempt.task, queue=attempt.queue.name, number=attempt.number, start=start
    ) as watched:
        outcome = await _in_context(attempt, scoped=scoped)
        watched.ended(outcome)
        attempt.traceparent = watched.traceparent
    return outcome


def _start(attempt: Attempt, told: Teller) -> AttemptStart:
    row = attempt.row
    now_ms = attempt.now_ms + (attempt.queue.clock.monotonic() - attempt.sent) * 1000
    first = not (row.attempts or row.lease_losses or row.postpones)
    return AttemptStart(
        late=max(0.0, now_ms - row.due_ms) / 1000,
        waited=max(0.0, now_ms - row.since_ms) / 1000 if first else None,
        earlier=row.history[-1].traceparent if row.history else None,
        told=told,
    )


async def _in_context(attempt: Attempt, *, scoped: bool) -> Outcome:
    context = contexts.AttemptContext(attempt)
    token = contexts.current.set(context)
    try:
        return await _call(attempt, scoped=scoped)
    finally:
        context.over = not attempt.in_thread
        contexts.current.reset(token)


async def _call(attempt: Attempt, *, scoped: bool) -> Outcome:
    timeout = attempt.timeout
    try:
        if timeout is None and not scoped:
            return await _run(attempt)
        with anyio.CancelScope() as scope:
            if scoped:
                attempt.cancel = scope.cancel
            if timeout is not None:
                scope.deadline = anyio.current_time() + timeout
            return await _run(attempt)
        # Only a scope that caught its own cancellation comes here.
        return stopped(attempt, timeout)
    except BaseException as error:
        return _raised(attempt, error, scoped=scoped)


def stopped(attempt: Attempt, timeout: float | None = None) -> Outcome:
    """What it means that the attempt was cut off, by its worker or by its own timeout."""
    if attempt.stopped in ("lost", "shutdown"):
        return Released()
    limit = attempt.queue.options.max_runtime if attempt.stopped == "timeout" else timeout
    name = "max_runtime" if attempt.stopped == "timeout" else "timeout"
    return Failed(TimeoutError(f"ran longer than its {name} of {limit:g} s"))


def _raised(attempt: Attempt, error: BaseException, *, scoped: bool) -> Outcome:
    if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
        raise error
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return classify(error)
    task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    if attempt.stopped is not None:
        if task is not None and not scoped:
            task.uncancel()
        return stopped(attempt)
    if task is None or (scoped and task.cancelling()):
        raise error  # whoever called us is being cancelled
    if not scoped:
        task.uncancel()
    return classify(error)


async def _run(attempt: Attempt) -> Outcome:
    processor, task = attempt.registration.processor, attempt.task
    if attempt.registration.is_async:
        return classify_result(await processor(task))
    result, error = await _in_thread(attempt, lambda: processor(task))
    if isinstance(error, Exception):
        return classify(error)  # not raised again: a StopIteration would become a RuntimeError
    if error is not None:
        raise error
    return classify_result(await result if inspect.isawaitable(result) else result)


async def _in_thread(attempt: Attempt, run: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    ended = attempt.thread = threading.Event()
    gate = threading.Lock()  # passed once: by the thread, or by a caller that was cancelled before a thread was free

    def guarded() -> tuple[Any, BaseException | None]:
        if not gate.acquire(blocking=False):
            return None, None
        try:
            return run(), None
        except BaseException as error:
            return None, error
        finally:
            ended.set()
            for watcher in attempt.thread_watchers:
                watcher()

    try:
        return await attempt.queue.threads.run(guarded, attempt.limiter)
    except BaseException:
        if gate.acquire(blocking=False):
            ended.set()
        raise


def decide(attempt: Attempt, outcome: Outcome) -> Change:
    """The change that an outcome means; a thread that outlived its timeout keeps the lease until it ends.

    Where the change leaves the row running, tell ``keeper.settled`` once it is stored, or given up.
    """
    row, options = attempt.row, attempt.queue.options
    if isinstance(outcome, Succeeded):
        return changes.succeed(row, attempt.op, options.keep_ended_ms(keyed=row.key is not None))
    if isinstance(outcome, Failed):
        return _decide_failure(attempt, outcome)
    if isinstance(outcome, Postponed):
        return changes.postpone(row, attempt.op, round(outcome.delay * 1000))
    if isinstance(outcome, Discarded):
        why = mask_of(attempt.queue, attempt.task, row.redact).text(outcome.why) if outcome.why else ""
        return changes.discard(row, attempt.op, options.keep_finished_ms, why[:500])
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
        mask=mask_of(attempt.queue, attempt.task, row.redact),
    )
    failure.traceparent = attempt.traceparent
    row_age = max(0.0, (attempt.now_ms - row.since_ms) / 1000 + elapsed)
    failed = failed_attempt(attempt.queue, attempt.task, attempt.registration, outcome, attempt.number, row_age)
    told = teller(attempt.queue, attempt.task, row.redact)
    delay = next_delay(outcome, attempt.policy, attempt.retries, failed, told)
    if delay is None:
        return changes.die(row, attempt.op, cause_of_death(outcome), failure, options.keep_letters_ms)
    delay_ms = round(delay * 1000)
    if attempt.in_thread:
        attempt.queue.keeper.hold(attempt, changes.yield_thread(row, f"{row.token}.t", delay_ms))
        return changes.outlive(row, attempt.op, failure)
    return changes.try_again(row, attempt.op, failure, delay_ms)


def failed_attempt(
    queue: DeadLetterQueue, task: Task, registration: Registration, outcome: Failed, number: int, age: float
) -> FailedAttempt:
    """What a policy sees of a failure; ``age`` is the task's, in seconds."""
    return FailedAttempt(
        number=number,
        error=outcome.error,
        task_id=task.id,
        type=task.type,
        age=age,
        random=queue.chance.random,
        now=queue.clock.monotonic(),
        max_retries=queue.options.asked(task, registration.max_retries),
    )


def next_delay(
    outcome: Failed, policy: RetryPolicy, retries: float, failed: FailedAttempt, told: Teller
) -> float | None:
    """Seconds until the next attempt, or None where the task is dead: the one place that decides it."""
    if outcome.permanent or failed.number > retries:
        return None
    if outcome.retry_after is not None:
        return outcome.retry_after
    try:
        delay = policy.delay(failed)
        if delay is not None and not 0 <= delay < math.inf:
            raise ValueError(f"its delay was {delay!r}")  # noqa: TRY301 - the same answer as to any other fault of a policy
    except Exception as error:
        log.error(  # noqa: TRY400 - as above
            "retry policy %r failed; %s is tried again in %g s\n%s",
            policy,
            failed.task_id,
            _FALLBACK_DELAY,
            told(error),
        )
        return _FALLBACK_DELAY
    return delay


def cause_of_death(outcome: Failed) -> Reason:
    """Why a task is dead for which ``next_delay`` knows no other attempt."""
    if outcome.rejected:
        return Reason.REJECTED
    return Reason.PERMANENT if outcome.permanent else Reason.RETRIES_EXHAUSTED
