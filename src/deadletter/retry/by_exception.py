"""A policy for each kind of failure."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ..interfaces.retry_policy import FailedAttempt, RetryPolicy
from .schedule import Delays, Schedule, as_policy


def _policies(value: Mapping[type[BaseException], RetryPolicy | Delays]) -> dict[type[BaseException], RetryPolicy]:
    for kind in value:
        _check_class(kind)
    return {kind: as_policy(policy) for kind, policy in value.items()}


def _check_class(kind: object) -> None:
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise TypeError(f"{kind!r} is no exception class; give a mapping such as {{TimeoutError: [5, 30]}}")


def _default(value: RetryPolicy | Delays) -> RetryPolicy:
    return as_policy(value)


@attrs.frozen
class ByException(RetryPolicy):
    """Choose by what was raised: ``ByException({TimeoutError: [5, 30], ValueError: Never()}, default=Exponential())``.

    The nearest class in the exception's own line of bases wins. What nothing matches, and a failure of which only the
    text is left, goes to ``default``. Attempts are counted over all of them together.

    Each policy keeps its own end, unless ``max_retries`` asks for more. ``retries`` is the largest of these ends, and
    None as soon as one of them never ends, so that the queue's own limit holds for all.

    Args:
        policies: a policy or a sequence of delays for each exception class.
        default: for everything else; 5, 30, 120, 300 s where none is given.

    Raises:
        TypeError: for a key that is no exception class, or a value that is no policy.
    """

    policies: Mapping[type[BaseException], RetryPolicy] = attrs.field(converter=_policies, hash=False)
    default: RetryPolicy = attrs.field(default=Schedule((5, 30, 120, 300)), converter=_default, kw_only=True)

    @property
    def retries(self) -> float | None:
        """The largest end of all its policies; None where one never ends."""
        largest = 0.0
        for policy in (*self.policies.values(), self.default):
            if policy.retries is None:
                return None
            largest = max(largest, policy.retries)
        return largest

    def policy_for(self, error: BaseException | None) -> RetryPolicy:
        """Answer the policy that decides about ``error``."""
        for kind in type(error).__mro__:
            if kind in self.policies:
                return self.policies[kind]
        return self.default

    def delay(self, attempt: FailedAttempt) -> float | None:
        """Answer what the policy for this error says, or None past that policy's own end."""
        policy = self.policy_for(attempt.error)
        if attempt.max_retries is None and policy.retries is not None and attempt.number > policy.retries:
            return None
        return policy.delay(attempt)

    def observe(self, now: float) -> None:
        """Pass it on, once to each policy."""
        for policy in {id(policy): policy for policy in (*self.policies.values(), self.default)}.values():
            policy.observe(now)

    def preview(self, n: int, *, seed: int | None = None) -> list[float]:
        """The preview of ``default``: a preview knows no exception."""
        return self.default.preview(n, seed=seed)
