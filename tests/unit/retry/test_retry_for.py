from __future__ import annotations

import math
import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.retry import Budget, Exponential, FailedAttempt, Never, RetryFor, Schedule


@given(st.floats(0, 1e4), st.floats(0, 1e5), st.integers(1, 50), st.integers())
def test_no_attempt_comes_after_the_duration(duration: float, age: float, number: int, seed: int) -> None:
    attempt = FailedAttempt(number=number, age=age, random=random.Random(seed))

    delay = RetryFor(Exponential(), duration).delay(attempt)

    assert delay is None or age + delay <= duration


@given(st.floats(0, 1e4), st.integers(0, 60), st.integers())
def test_preview_stays_within_the_duration(duration: float, n: int, seed: int) -> None:
    whole = Exponential().preview(n, seed=seed)
    cut = RetryFor(Exponential(), duration).preview(n, seed=seed)

    assert sum(cut) <= duration * (1 + 1e-9)
    assert cut == whole[: len(cut)]
    assert len(cut) == n or sum(whole[: len(cut) + 1]) >= duration * (1 - 1e-9)


def test_the_last_moment_still_counts() -> None:
    policy = RetryFor(Schedule([10], jitter=0), 60)

    assert policy.delay(FailedAttempt(number=1, age=50)) == 10
    assert policy.delay(FailedAttempt(number=1, age=50.001)) is None


def test_time_is_the_end_of_what_has_none() -> None:
    assert RetryFor(Exponential(), 60).retries == math.inf
    assert RetryFor([5, 30], 60).retries == 2
    assert RetryFor(Never(), 60).retries == 0


def test_gives_up_where_the_policy_does() -> None:
    assert RetryFor(Never(), 60).delay(FailedAttempt(number=1)) is None


def test_takes_delays_and_timedelta() -> None:
    assert RetryFor([5, 30], timedelta(hours=1)) == RetryFor(Schedule([5, 30]), 3600)


def test_passes_first_attempts_on() -> None:
    seen: list[float] = []

    class Counting(Schedule):
        def observe(self, now: float) -> None:
            seen.append(now)

    RetryFor(Budget(Counting([5])), 60).observe(7.0)

    assert seen == [7.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1, True, "60", None])
def test_refuses_a_bad_duration(bad: object) -> None:
    with pytest.raises(ValueError, match=r"duration is .*; give a timedelta, or seconds"):
        RetryFor(Exponential(), bad)  # type: ignore[arg-type]


def test_refuses_what_is_no_policy() -> None:
    with pytest.raises(TypeError, match=r"is no retry policy"):
        RetryFor(3600, 60)  # type: ignore[arg-type]
