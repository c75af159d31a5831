"""How a processor says what happened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import attrs

from .errors import DeadLetterError
from .task import Duration, Task, seconds

Processor: TypeAlias = Callable[[Task], Any | Awaitable[Any]]


class Signal(DeadLetterError):
    """What a processor raises to say more than "it failed"."""


class PermanentError(Signal):
    """Trying again cannot help: the task is dead at once."""


class RetryAfter(Signal):
    """Another attempt after ``delay`` (seconds or timedelta), if the attempt limit allows it."""

    def __init__(self, delay: Duration, why: str = "") -> None:
        super().__init__(delay, why)
        self.delay = seconds("delay", delay)
        self.why = why

    def __str__(self) -> str:
        return self.why or f"asked to be tried again in {self.delay:g} s"


class Postpone(Signal):
    """Not now: back to pending for ``delay``; no attempt is consumed and no failure recorded."""

    def __init__(self, delay: Duration, why: str = "") -> None:
        super().__init__(delay, why)
        self.delay = seconds("delay", delay)
        self.why = why

    def __str__(self) -> str:
        return self.why or f"postponed by {self.delay:g} s"


class Discard(Signal):
    """Nothing to do any more: ends without success and without a dead letter."""


@attrs.frozen
class Succeeded:
    """The processor returned anything but False."""

    result: Any = None


@attrs.frozen
class Failed:
    """The processor raised, ran past its timeout, or returned False."""

    error: BaseException
    permanent: bool = False
    rejected: bool = False
    retry_after: float | None = None


@attrs.frozen
class Postponed:
    """The processor raised Postpone, or was refused by an open circuit."""

    delay: float
    refused: bool = False


@attrs.frozen
class Discarded:
    """The processor raised Discard."""

    why: str


@attrs.frozen
class Released:
    """Its worker stopped it (shutdown, lost lease): as if it had not been claimed."""


Outcome: TypeAlias = Succeeded | Failed | Postponed | Discarded | Released

_SUCCEEDED = Succeeded()


class Rejected(DeadLetterError):
    """The processor returned False."""


def classify_result(result: object) -> Outcome:
    """What a returned value means: False is a permanent failure, anything else a success."""
    if result is False:
        return Failed(Rejected("the processor returned False"), permanent=True, rejected=True)
    return _SUCCEEDED if result is None else Succeeded(result)


def classify_error(error: BaseException) -> Outcome:
    """What a raised exception means."""
    if isinstance(error, PermanentError):
        return Failed(error, permanent=True)
    if isinstance(error, RetryAfter):
        return Failed(error, retry_after=error.delay)
    if isinstance(error, Postpone):
        return Postponed(error.delay)
    if isinstance(error, Discard):
        return Discarded(str(error))
    return Failed(error)


for _signal in (Signal, PermanentError, RetryAfter, Postpone, Discard, Rejected):
    _signal.__module__ = "deadletter"
del _signal
