"""What a processor can ask about the attempt that it runs in."""

from __future__ import annotations

import math
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING

from ..model.errors import DeadLetterError
from ..model.task import Duration, Task, from_ms, seconds
from ..rules.codec import failure_from_row

if TYPE_CHECKING:
    from ..model.record import Failure
    from .attempt import Attempt

current: ContextVar[AttemptContext | None] = ContextVar("deadletter_attempt", default=None)


class NoAttempt(DeadLetterError, LookupError):
    """Asked for the current attempt where none runs."""


class AttemptContext:
    """The attempt that runs here.

    Made for each attempt and read by few, so it works out what it is asked.
    """

    __slots__ = ("_attempt", "over")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.over = False  # a task that it started may outlive it

    @property
    def task(self) -> Task:
        """What is being done."""
        return self._attempt.task

    @property
    def number(self) -> int:
        """Of this attempt, from 1."""
        return self._attempt.number

    @property
    def max_attempts(self) -> int | None:
        """How many there may be; None where only the policy ends them."""
        retries = self._attempt.retries
        return None if retries == math.inf else int(retries) + 1

    @property
    def last_failure(self) -> Failure | None:
        """What went wrong the last time; None on a first attempt."""
        history = self._attempt.row.history
        return failure_from_row(history[-1]) if history else None

    @property
    def lease_expires_at(self) -> datetime:
        """When the lease ends, by the store's clock, unless it is extended (a worker does so by itself)."""
        attempt = self._attempt
        return from_ms(attempt.now_ms + round((attempt.lease_until - attempt.sent) * 1000))

    async def extend(self, duration: Duration) -> None:
        """Let the attempt run ``duration`` longer than ``max_runtime`` allows, its lease held as long.

        From a sync processor: ``anyio.from_thread.run(context.extend, 600)``. Raises LeaseLost where it is too late.
        """
        await self._attempt.queue.extend(self._attempt, seconds("duration", duration))


def current_attempt() -> AttemptContext:
    """The attempt that the caller runs in; raises LookupError outside of a processor."""
    context = current.get()
    if context is None:
        raise NoAttempt("no attempt runs here; current_attempt() works inside a processor")
    return context
