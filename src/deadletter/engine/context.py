"""What a processor can ask about the attempt that it runs in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING

from ..model.errors import DeadLetterError
from ..model.task import Duration, Task, from_ms, seconds

if TYPE_CHECKING:
    from ..model.record import Failure

current: ContextVar[AttemptContext | None] = ContextVar("deadletter_attempt", default=None)


class NoAttempt(DeadLetterError, LookupError):
    """Asked for the current attempt where none runs."""


class AttemptContext:
    """The attempt that runs here.

    Attributes:
        task: what is being done.
        number: of this attempt, from 1.
        max_attempts: how many there may be; None where only the policy ends them.
        last_failure: what went wrong the last time; None on a first attempt.
    """

    def __init__(
        self,
        task: Task,
        number: int,
        max_attempts: int | None,
        last_failure: Failure | None,
        lease_ms: Callable[[], int],
        extend: Callable[[float], Awaitable[None]],
    ) -> None:
        self.task = task
        self.number = number
        self.max_attempts = max_attempts
        self.last_failure = last_failure
        self._lease_ms = lease_ms
        self._extend = extend
        self.over = False  # a task that it started may outlive it

    @property
    def lease_expires_at(self) -> datetime:
        """When the lease ends, by the store's clock, unless it is extended (a worker does so by itself)."""
        return from_ms(self._lease_ms())

    async def extend(self, duration: Duration) -> None:
        """Let the attempt run ``duration`` longer than ``max_runtime`` allows, its lease held as long.

        From a sync processor: ``anyio.from_thread.run(context.extend, 600)``. Raises LeaseLost where it is too late.
        """
        await self._extend(seconds("duration", duration))


def current_attempt() -> AttemptContext:
    """The attempt that the caller runs in; raises LookupError outside of a processor."""
    context = current.get()
    if context is None:
        raise NoAttempt("no attempt runs here; current_attempt() works inside a processor")
    return context
