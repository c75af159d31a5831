"""Retries as a bounded share of traffic, so that they never become the outage.

After Finagle's RetryBudget (https://finagle.github.io/blog/2016/02/08/retry-budgets/) and Envoy's retry budgets. Those
refuse a retry that the budget does not cover; here it waits its turn, as no task may be lost for want of a token.
"""

from __future__ import annotations

import math
import threading

import attrs

from ..interfaces.retry_policy import FailedAttempt, RetryPolicy
from .arguments import number
from .schedule import Delays, as_policy

_WINDOW = 10.0  # seconds that traffic is remembered and unused tokens are good for, as in Finagle


def _policy(value: RetryPolicy | Delays) -> RetryPolicy:
    return as_policy(value)


def _ratio(value: float) -> float:
    return number("ratio", value, 0, 1_000)


def _min_per_second(value: float) -> float:
    return number("min_per_second", value, 0.001, 1e6)


@attrs.define(eq=False)
class _Bucket:
    """Tokens, and a count of first attempts that fades over the window. Below zero: tokens promised, yet to come."""

    ratio: float
    min_per_second: float
    tokens: float = math.inf
    seen: float = 0.0
    at: float = -math.inf
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def __deepcopy__(self, memo: object) -> _Bucket:
        return _Bucket(self.ratio, self.min_per_second)

    def deposit(self, now: float) -> None:
        """Add the share of one first attempt."""
        with self.lock:
            self._advance(now)
            self.seen += 1
            self.tokens += self.ratio

    def withdraw(self, now: float) -> float:
        """Take one token; answer in how many seconds it will be there."""
        with self.lock:
            self._advance(now)
            self.tokens -= 1
            return max(0.0, -self.tokens / (self.min_per_second + self.ratio * self.seen / _WINDOW))

    def _advance(self, now: float) -> None:
        passed = max(0.0, now - self.at)  # threads may come with clocks read in another order
        self.at = max(self.at, now)
        self.seen *= math.exp(-passed / _WINDOW)
        full = max(1.0, self.min_per_second * _WINDOW + self.ratio * self.seen)
        self.tokens = min(full, self.tokens + self.min_per_second * passed)


@attrs.frozen
class Budget(RetryPolicy):
    """Keep retries to a share of the traffic: ``Budget(Exponential(), ratio=0.1)``.

    Each first attempt earns ``ratio`` of a token, each second ``min_per_second``, and each retry costs one. What was
    not spent within about 10 s is gone, so that a quiet hour saves up no storm. Where no token is left the retry is put
    off, never given up: its delay grows by the time until its token will be there, at the rate of the last 10 s.

    The budget is kept in memory, for all tasks that this object serves in this process: give one object to all that
    call the same service. n processes have n budgets; a restart starts with a full one. A preview spends nothing and
    shows a budget that never runs out.

    Args:
        policy: a policy, or a sequence of delays: the delays while tokens last, and the end.
        ratio: retries per first attempt, 0 to 1,000.
        min_per_second: retries that are always allowed, so that a queue without traffic goes on; at least 0.001.

    Raises:
        TypeError: for what is no policy.
        ValueError: for a number out of range.
    """

    policy: RetryPolicy = attrs.field(converter=_policy)
    ratio: float = attrs.field(default=0.1, converter=_ratio)
    min_per_second: float = attrs.field(default=1, converter=_min_per_second)
    _bucket: _Bucket = attrs.field(
        default=attrs.Factory(lambda self: _Bucket(self.ratio, self.min_per_second), takes_self=True),
        init=False,
        eq=False,
        repr=False,
    )

    @property
    def retries(self) -> float | None:
        """The policy's own end: a budget puts off and ends nothing."""
        return self.policy.retries

    def delay(self, attempt: FailedAttempt) -> float | None:
        """Answer the policy's delay, longer by the wait for a token."""
        delay = self.policy.delay(attempt)
        return None if delay is None else delay + self._bucket.withdraw(attempt.now)

    def observe(self, now: float) -> None:
        """Count a first attempt, and pass it on to the policy."""
        self._bucket.deposit(now)
        self.policy.observe(now)

    def preview(self, n: int, *, seed: int | None = None) -> list[float]:
        """The policy's own preview."""
        return self.policy.preview(n, seed=seed)
