from __future__ import annotations

import math

import attrs
import pytest

from deadletter.retry import ByException, Exponential, FailedAttempt, Never, RetryFor, RetryPolicy, Schedule
from deadletter.retry.schedule import Delays


def fixed(*delays: float) -> Schedule:
    return Schedule(delays, jitter=0)


def test_the_nearest_class_wins_whatever_the_order() -> None:
    policy = ByException({Exception: fixed(1), OSError: fixed(2), ConnectionError: fixed(3)}, default=fixed(4))

    assert policy.delay(FailedAttempt(number=1, error=ConnectionResetError())) == 3
    assert policy.delay(FailedAttempt(number=1, error=FileNotFoundError())) == 2
    assert policy.delay(FailedAttempt(number=1, error=ValueError())) == 1
    assert policy.delay(FailedAttempt(number=1, error=SystemExit())) == 4


def test_of_several_bases_the_first_in_line_wins() -> None:
    class Both(ValueError, TimeoutError):
        pass

    assert ByException({TimeoutError: fixed(1), ValueError: fixed(2)}).policy_for(Both()) == fixed(2)


def test_a_failure_without_its_exception_goes_to_the_default() -> None:
    policy = ByException({BaseException: Never()}, default=fixed(4))

    assert policy.delay(FailedAttempt(number=1, error=None)) == 4
    assert policy.preview(3) == [4]


def test_each_policy_keeps_its_own_end() -> None:
    policy = ByException({TimeoutError: fixed(5), ValueError: Never()}, default=fixed(1, 2, 3))

    assert policy.retries == 3
    assert policy.delay(FailedAttempt(number=1, error=ValueError())) is None
    assert policy.delay(FailedAttempt(number=1, error=TimeoutError())) == 5
    assert policy.delay(FailedAttempt(number=2, error=TimeoutError())) is None
    assert policy.delay(FailedAttempt(number=3, error=KeyError())) == 3


def test_max_retries_goes_past_the_end_of_a_schedule_and_never_past_never() -> None:
    policy = ByException({TimeoutError: fixed(5), ValueError: Never()}, default=fixed(1, 2, 3))

    assert policy.delay(FailedAttempt(number=9, error=TimeoutError(), max_retries=9)) == 5
    assert policy.delay(FailedAttempt(number=1, error=ValueError(), max_retries=9)) is None


@pytest.mark.parametrize(
    ("policies", "default", "retries"),
    [
        ({}, Never(), 0),
        ({OSError: [1, 2]}, Never(), 2),
        ({OSError: [1, 2]}, Exponential(), None),
        ({OSError: Exponential(), ValueError: RetryFor(Exponential(), 60)}, Never(), None),
        ({OSError: RetryFor(Exponential(), 60)}, [5], math.inf),
    ],
)
def test_the_queue_s_limit_holds_as_soon_as_one_never_ends(
    policies: dict[type[BaseException], RetryPolicy], default: RetryPolicy, retries: float | None
) -> None:
    assert ByException(policies, default=default).retries == retries


def test_without_a_default_it_waits_as_a_queue_does() -> None:
    assert ByException({ValueError: Never()}).default == Schedule([5, 30, 120, 300])


def test_reads_compares_and_hashes() -> None:
    policy = ByException({OSError: [5]}, default=Never())

    assert repr(policy) == (
        "ByException(policies={<class 'OSError'>: Schedule(delays=(5.0,), jitter=0.1)}, default=Never())"
    )
    assert policy == ByException({OSError: Schedule([5])}, default=Never())
    assert hash(policy) == hash(ByException({OSError: [5]}, default=Never()))
    assert policy != ByException({OSError: [6]}, default=Never())


def test_a_later_change_of_the_mapping_changes_nothing() -> None:
    given: dict[type[BaseException], RetryPolicy | Delays] = {OSError: fixed(1)}
    policy = ByException(given, default=Never())
    given.clear()

    assert policy.delay(FailedAttempt(number=1, error=OSError())) == 1


@attrs.frozen(eq=False)
class Counting(Never):
    seen: list[float] = attrs.field(factory=list)

    def observe(self, now: float) -> None:
        self.seen.append(now)


def test_passes_first_attempts_on_once_to_each_policy() -> None:
    shared, other = Counting(), Counting()
    ByException({OSError: shared, ValueError: shared, KeyError: other}, default=shared).observe(3.0)

    assert shared.seen == [3.0]
    assert other.seen == [3.0]


@pytest.mark.parametrize("bad", ["TimeoutError", int, TimeoutError(), (OSError, ValueError)])
def test_refuses_a_key_that_is_no_exception_class(bad: object) -> None:
    with pytest.raises(TypeError, match=r"is no exception class; give a mapping such as"):
        ByException({bad: Never()})  # type: ignore[dict-item]


def test_refuses_what_is_no_policy() -> None:
    with pytest.raises(TypeError, match=r"is no retry policy"):
        ByException({OSError: 5})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"is no retry policy"):
        ByException({}, default=5)  # type: ignore[arg-type]
