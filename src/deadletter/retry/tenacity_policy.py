"""Tenacity's strategies, used durably: between two attempts nothing sleeps and nothing is kept in memory."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from ..interfaces.retry_policy import FailedAttempt, RetryPolicy

if TYPE_CHECKING:
    from tenacity import RetryCallState

Strategy: TypeAlias = "Callable[[RetryCallState], Any]"

_YEAR = 366 * 24 * 3600.0  # tenacity's wait_exponential has no cap of its own: 2^70 s fits no stored time


def _strategy(_: Tenacity, field: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    if isinstance(value, type) or not callable(value):
        raise TypeError(f"{field.name} is {value!r}; give a tenacity strategy, such as wait_fixed(5)")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise TypeError(f"{field.name} is {value!r}, which is async; give one that answers without await")


def _shown(value: object) -> str:
    """A strategy as it was written, more or less: tenacity's own show only an address."""
    if isinstance(value, tuple | list):
        return ", ".join(_shown(part) for part in value)
    if not type(value).__module__.startswith("tenacity"):
        return getattr(value, "__qualname__", None) or repr(value)
    inner = ", ".join(f"{name}={_shown(part)}" for name, part in vars(value).items() if not inspect.isroutine(part))
    return f"{type(value).__name__}({inner})"


@attrs.frozen(kw_only=True)
class Tenacity(RetryPolicy):
    """Use tenacity strategies: ``Tenacity(wait=wait_exponential(max=60) + wait_random(0, 2))``.

    They see a ``RetryCallState`` with ``attempt_number``, ``seconds_since_start`` and ``idle_for`` (the task's age),
    ``outcome`` (the failure) and ``upcoming_sleep``. There is no function and there are no arguments in it. Tenacity's
    random waits come from Python's global random source, not from a seed.

    Args:
        wait: how long; None retries at once, as in tenacity. No wait is longer than a year.
        stop: when to give up; None leaves it to ``max_retries``, 10 where nobody says.
        retry: which failures to retry; None all. Not asked where only the text of a failure is left, as a predicate
            that cannot tell must not end a task.

    Raises:
        TypeError: for what is no strategy, or an async one.
    """

    wait: Strategy | None = attrs.field(default=None, validator=_strategy, repr=_shown)
    stop: Strategy | None = attrs.field(default=None, validator=_strategy, repr=_shown)
    retry: Strategy | None = attrs.field(default=None, validator=_strategy, repr=_shown)

    @property
    def retries(self) -> float | None:
        """``math.inf`` where ``stop`` decides, else None."""
        return None if self.stop is None else math.inf

    def delay(self, attempt: FailedAttempt) -> float | None:
        """Ask retry, wait and stop, in tenacity's order."""
        state = _state(attempt)
        if self.retry is not None and attempt.error is not None and not self.retry(state):
            return None
        if self.wait is not None:
            state.upcoming_sleep = max(0.0, min(_YEAR, self.wait(state)))
        if self.stop is not None and self.stop(state):
            return None
        return state.upcoming_sleep


def _state(attempt: FailedAttempt) -> RetryCallState:
    from tenacity import Future, RetryCallState, Retrying

    error = attempt.error or RuntimeError("an earlier failure, of which only the text is left")
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt.number
    state.outcome = Future.construct(attempt.number, error, has_exception=True)
    state.outcome_timestamp = state.start_time + attempt.age
    state.idle_for = attempt.age
    return state
