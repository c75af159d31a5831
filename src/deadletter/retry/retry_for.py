"""An end by time instead of by count."""

from __future__ import annotations

import math
from datetime import timedelta

import attrs

from ..interfaces.retry_policy import FailedAttempt, RetryPolicy
from .arguments import seconds
from .schedule import Delays, as_policy


def _policy(value: RetryPolicy | Delays) -> RetryPolicy:
    return as_policy(value)


def _duration(value: timedelta | float) -> float:
    return seconds("duration", value)


@attrs.frozen
class RetryFor(RetryPolicy):
    """Retry as ``policy`` says until the next attempt would come later than ``duration`` after the task was made.

    A policy that never ends by itself then ends by time alone; one that ends by count still does, if that is sooner.

    Args:
        policy: a policy, or a sequence of delays.
        duration: from the task's creation or its last replay, seconds or ``timedelta``.

    Raises:
        TypeError: for what is no policy.
        ValueError: for a duration out of range.
    """

    policy: RetryPolicy = attrs.field(converter=_policy)
    duration: float = attrs.field(converter=_duration)

    @property
    def retries(self) -> float:
        """The policy's own count; ``math.inf`` where it has none, as time is the end."""
        own = self.policy.retries
        return math.inf if own is None else own

    def delay(self, attempt: FailedAttempt) -> float | None:
        """Answer the policy's delay, or None where it would pass the duration."""
        delay = self.policy.delay(attempt)
        return None if delay is None or attempt.age + delay > self.duration else delay

    def observe(self, now: float) -> None:
        """Pass it on to the policy."""
        self.policy.observe(now)

    def preview(self, n: int, *, seed: int | None = None) -> list[float]:
        """The policy's preview, cut where it would pass the duration."""
        delays: list[float] = []
        age = 0.0
        for delay in self.policy.preview(n, seed=seed):
            if age + delay > self.duration:
                break
            age += delay
            delays.append(delay)
        return delays
