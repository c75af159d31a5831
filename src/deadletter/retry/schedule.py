"""A list of delays, and what turns one into a policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TypeAlias

import attrs

from ..interfaces.retry_policy import FailedAttempt, RetryPolicy
from .arguments import number, seconds

Delays: TypeAlias = Sequence[timedelta | float]


def _delays(value: Delays) -> tuple[float, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"delays is {value!r}; give a sequence of seconds or timedeltas, such as [5, 30, 120, 300]")
    return tuple(seconds(f"delays[{at}]", delay) for at, delay in enumerate(value))


def _share(value: float) -> float:
    return number("jitter", value, 0, 1)


@attrs.frozen
class Schedule(RetryPolicy):
    """Wait as listed: ``Schedule([5, 30, 120, 300])``.

    It ends after the last delay by itself; where ``max_retries`` asks for more, the last delay repeats. An empty list
    means no retries.

    Args:
        delays: before each retry, seconds or ``timedelta``.
        jitter: each delay is spread evenly over ± this share of it, 0 to 1.

    Raises:
        TypeError: for what is no sequence.
        ValueError: for a delay or a share out of range.
    """

    delays: tuple[float, ...] = attrs.field(converter=_delays)
    jitter: float = attrs.field(default=0.1, converter=_share)

    @property
    def retries(self) -> float:
        """As many as there are delays."""
        return len(self.delays)

    def delay(self, attempt: FailedAttempt) -> float | None:
        """Answer the delay listed for this attempt; None where the list is empty."""
        if not self.delays:
            return None
        listed = self.delays[min(attempt.number, len(self.delays)) - 1]
        return listed * attempt.random.uniform(1 - self.jitter, 1 + self.jitter)


def as_policy(value: RetryPolicy | Delays, *, jitter: float = 0.1) -> RetryPolicy:
    """Take a policy as it is, and a sequence of delays as a ``Schedule`` with ``jitter``.

    Raises:
        TypeError: for anything else.
        ValueError: for a delay out of range.
    """
    if isinstance(value, RetryPolicy):
        return value
    if isinstance(value, type) and issubclass(value, RetryPolicy):
        raise TypeError(f"{value.__name__} is a class; give an object, such as {value.__name__}(…)")
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{value!r} is no retry policy; give a RetryPolicy or a sequence of delays in seconds")
    return Schedule(value, jitter=jitter)


def retries_allowed(policy: RetryPolicy, *asked: int | None) -> float:
    """Answer how many retries a task gets: the first of ``asked`` that says, else the policy's own end, else 10."""
    for count in (*asked, policy.retries):
        if count is not None:
            return count
    return 10
