"""What a decorated call runs where it asked for more: a timeout, retries in place, an idempotency key."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import attrs

from ..interfaces import RetryPolicy
from ..model.errors import IdempotencyConflict, InProgress, InvalidTask, LeaseLost
from ..model.outcome import Signal
from ..model.row import SUCCEEDED, Inserted, NewRow
from ..rules.codec import digest, key_hash
from .plan import Plan
from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.decorator")

_FIRST_WAIT, _LONGEST_WAIT, _JITTER = 0.1, 2.0, 0.1  # s between retries in place: a caller waits for them
_NO_RESULT = b""  # the effect happened, and what it returned could not be kept


def body_of(plan: Plan) -> Callable[..., Any]:
    """What a call runs: the function itself, or with its retries in place and (async) its timeout around them all."""
    body = plan.function
    if plan.inline_retries:
        body = _retried(body, plan)
    if plan.is_async and plan.timeout is not None:
        body = _timed(body, plan.timeout)
    policy = plan.counting
    return body if policy is None else _observed(body, policy, plan)


def _retried(function: Callable[..., Any], plan: Plan) -> Callable[..., Any]:
    @functools.cache
    def retrying() -> Any:
        import tenacity

        kind: Any = functools.partial(tenacity.AsyncRetrying, sleep=anyio.sleep) if plan.is_async else tenacity.Retrying
        waits = tenacity.wait_exponential(_FIRST_WAIT, _LONGEST_WAIT) + tenacity.wait_random(0, _JITTER)
        return kind(
            stop=tenacity.stop_after_attempt(plan.inline_retries + 1),
            wait=waits,
            retry=tenacity.retry_if_exception(_may_pass),
            reraise=True,
        )

    def run(*args: Any, **kwargs: Any) -> Any:
        return retrying().copy()(function, *args, **kwargs)  # its counters are one call's

    return run


def _may_pass(error: BaseException) -> bool:
    """Whether a retry at once makes sense; a signal already says when, or that none does."""
    return isinstance(error, Exception) and not isinstance(error, Signal)


def _timed(function: Callable[..., Awaitable[Any]], timeout: float) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        with anyio.move_on_after(timeout):
            return await function(*args, **kwargs)
        raise TimeoutError(f"ran longer than its timeout of {timeout:g} s")

    return run


def _observed(function: Callable[..., Any], policy: RetryPolicy, plan: Plan) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            policy.observe(plan.queue_of().clock.monotonic())
        except Exception:  # a policy is the user's, or the queue cannot be made: neither keeps the call from its body
            log.exception("retry policy %r failed", policy)
        return function(*args, **kwargs)

    return run


@attrs.frozen
class Known:
    """An effect that happened before, and what it returned."""

    result: Any


@attrs.frozen
class Guard:
    """A key that is ours while the body runs."""

    plan: Plan
    queue: DeadLetterQueue
    key: str
    token: str
    masked: Callable[[str], str]  # what a log shows of a text that may hold the call's hidden values

    async def complete(self, result: object) -> None:
        """The effect happened: keep its result. Never raises: the caller has a right to the result."""
        try:
            kept = self.plan.signature.dump_result(result)
        except InvalidTask as problem:
            shown = self.masked(f"{problem}; a repeated call with key {self.key!r} will return None")
            log.warning("%s: %s", self.plan.type, shown)
            kept = _NO_RESULT
        await self.remember(kept)

    async def remember(self, kept: bytes) -> None:
        """The effect happened, and this is its stored result."""
        ttl = self.queue.options.key_ms / 1000
        await self._settle(lambda: self.queue.idempotency.complete(self.token, kept, ttl), "remembered")

    async def abandon(self) -> None:
        """The effect did not happen: free the key. Never raises."""
        await self._settle(lambda: self.queue.idempotency.abandon(self.token), "freed before its lease ends")

    async def _settle(self, settle: Callable[[], Awaitable[None]], word: str) -> None:
        timeout = self.queue.options.capture_timeout
        problem: Exception | None = None
        with anyio.move_on_after(timeout, shield=True) as scope:
            try:
                await settle()
            except Exception as error:  # a store of the user's may raise anything; the caller has a right to the result
                problem = error
        if scope.cancelled_caught:
            problem = TimeoutError(f"the store took longer than capture_timeout={timeout:g} s")
        if isinstance(problem, LeaseLost):
            shown = self.masked(repr(self.key))
            log.warning("key %s of %s ran out while the call was running: raise its timeout", shown, self.plan.type)
        elif problem is not None:
            shown, said = self.masked(repr(self.key)), self.masked(str(problem))
            log.error("key %s of %s could not be %s: %s", shown, self.plan.type, word, said)


async def begin(plan: Plan, key: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Guard | Known:
    """Claim a call's key before its body runs, or give the result of the call that had it.

    Raises:
        InProgress: a call with this key runs elsewhere, or a task with it waits, runs or is dead; a note tells which.
        IdempotencyConflict: the key is bound to other arguments.
        BackendUnavailable: the store is away.
    """
    queue = plan.queue_of()
    hashed = key_hash(queue.name, plan.type, key)
    arguments = _digest(plan, args, kwargs)
    begun = await queue.idempotency.begin(hashed, arguments, _lease(plan, queue))

    def masked(text: str) -> str:
        return plan.mask(queue, args, kwargs).text(text)

    if begun.word == "completed":
        return Known(_restored(plan, masked(repr(key)) if not begun.result else "", begun.result))
    if begun.word == "conflict":
        raise IdempotencyConflict(key, "an earlier call")
    if begun.word == "in_progress" or begun.token is None:
        raise InProgress(key)
    guard = Guard(plan, queue, key, begun.token, masked)
    try:
        return await _unless_queued(guard, hashed, arguments)
    except BaseException:
        await guard.abandon()
        raise


def _digest(plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    try:
        return digest(plan.type, plan.signature.dump(args, kwargs))
    except InvalidTask:  # such a call may still succeed; its key alone tells it apart
        return digest(plan.type, {})


def _lease(plan: Plan, queue: DeadLetterQueue) -> float:
    """How long the key is ours: for longer than the body may run, since nobody renews it."""
    options = queue.options
    if plan.is_async and plan.timeout is not None:
        return plan.timeout + options.capture_timeout + options.lease_ms / 1000
    return min(options.max_runtime, options.key_ms / 1000)


def _restored(plan: Plan, shown: str, result: bytes | None) -> object:
    if result:
        return plan.signature.load_result(result)
    log.warning("a call of %s with key %s is done already; what it returned was not kept", plan.type, shown)
    return None


async def _unless_queued(guard: Guard, hashed: str, arguments: str) -> Guard | Known:
    """Ask whether a task of the queue holds the key: a captured or enqueued call is not run a second time beside it.

    Two rows with one id and key but different digests never fit: the store answers for the key and keeps nothing.
    """
    queue, plan = guard.queue, guard.plan
    probe = NewRow(id=queue.chance.name(), type=plan.type, key=hashed, digest=arguments)
    await queue.open()
    found = (await queue.backend.insert(queue.name, [probe, attrs.evolve(probe, digest="probe")]))[0]
    if found.verdict is Inserted.STORED:  # as far as it got: nothing held the key
        return guard
    if found.verdict is not Inserted.EXISTS:
        raise IdempotencyConflict(guard.key, found.id)
    if found.state == SUCCEEDED:
        await guard.remember(_NO_RESULT)
        return Known(_restored(plan, guard.masked(repr(guard.key)), None))
    error = InProgress(guard.key)
    error.add_note(f"task {found.id} has it and is {found.state}")
    raise error
