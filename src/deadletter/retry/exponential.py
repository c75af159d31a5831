"""Delays that grow by a factor, spread by one of the jitters that Marc Brooker compared.

"Exponential Backoff And Jitter", AWS Architecture Blog, 2015:
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Literal, TypeAlias, get_args

import attrs

from ..interfaces.retry_policy import FailedAttempt, RetryPolicy
from .arguments import LONGEST, number, seconds

Jitter: TypeAlias = Literal["full", "equal", "decorrelated"]

_CHAIN = 1_000


def _base(value: timedelta | float) -> float:
    return seconds("base", value, low=1e-6)


def _factor(value: float) -> float:
    return number("factor", value, 1, 1e6)


def _cap(value: timedelta | float) -> float:
    return seconds("cap", value)


@attrs.frozen
class Exponential(RetryPolicy):
    """Wait ``base · factor^(n-1)`` after the n-th attempt, at most ``cap``, less what the jitter takes off.

    With ``d`` as that delay, ``"full"`` waits between 0 and d, ``"equal"`` between d/2 and d, and ``None`` waits d.
    ``"decorrelated"`` waits between base and 3 × the delay before (factor plays no part). Nothing is kept for that
    between attempts: the chain of delays is drawn anew each time from a random source seeded by the task's id, so that
    every process and every restart sees the same one.

    It never ends by itself: ``max_retries`` does, 10 where nobody says.

    Args:
        base: the first delay, seconds or ``timedelta``.
        factor: growth per attempt, 1 or more.
        cap: the longest delay, seconds or ``timedelta``, not below base.
        jitter: ``"full"``, ``"equal"``, ``"decorrelated"`` or None.

    Raises:
        ValueError: for a value out of range.
    """

    base: float = attrs.field(default=1, converter=_base)
    factor: float = attrs.field(default=2, converter=_factor)
    cap: float = attrs.field(default=300, converter=_cap)
    jitter: Jitter | None = attrs.field(default="full")

    def __attrs_post_init__(self) -> None:
        """Check what the fields say of each other."""
        if self.cap < self.base:
            raise ValueError(f"cap is {self.cap:g}; give seconds from base ({self.base:g}) to {LONGEST}")
        if self.jitter not in (*get_args(Jitter), None):
            raise ValueError(f'jitter is {self.jitter!r}; give "full", "equal", "decorrelated" or None')

    def delay(self, attempt: FailedAttempt) -> float:
        """Answer the delay that has grown up to this attempt, spread by the jitter."""
        if self.jitter == "decorrelated":
            return self._decorrelated(attempt)
        grown = self._grown(attempt.number)
        if self.jitter is None:
            return grown
        return attempt.random.uniform(grown / 2 if self.jitter == "equal" else 0, grown)

    def _grown(self, number: int) -> float:
        try:
            return min(self.cap, self.base * self.factor ** (number - 1))
        except OverflowError:
            return self.cap

    def _decorrelated(self, attempt: FailedAttempt) -> float:
        # Past _CHAIN steps the start no longer shows: a chain of that length stands for the whole, at a bounded cost.
        steps = min(attempt.number, _CHAIN)
        seed = attempt.task_id if steps == attempt.number else f"{attempt.task_id} {attempt.number}"
        chance = random.Random(seed)  # noqa: S311 - jitter
        delay = self.base
        for _ in range(steps):
            delay = min(self.cap, chance.uniform(self.base, 3 * delay))
        return delay
