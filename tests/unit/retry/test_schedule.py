from __future__ import annotations

import math
import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.retry import Exponential, FailedAttempt, Never, Schedule, as_policy, retries_allowed

DELAYS = st.lists(st.floats(0, 1e6), min_size=1, max_size=8)


def test_repeats_the_last_delay_past_its_end() -> None:
    """``max_retries`` may ask for more than the list holds."""
    policy = Schedule([5, 30, 120, 300], jitter=0)

    assert policy.retries == 4
    assert [policy.delay(FailedAttempt(number=number)) for number in range(1, 7)] == [5, 30, 120, 300, 300, 300]


def test_takes_timedelta() -> None:
    assert Schedule([timedelta(minutes=2), 1.5]).delays == (120.0, 1.5)


def test_empty_means_no_retries() -> None:
    policy = Schedule([])

    assert policy.retries == 0
    assert policy.delay(FailedAttempt(number=1, max_retries=5)) is None
    assert policy.preview(3) == []


def test_reads_as_written() -> None:
    assert repr(Schedule([5, 30])) == "Schedule(delays=(5.0, 30.0), jitter=0.1)"
    assert {Schedule([5, 30]), Schedule((5.0, 30.0))} == {Schedule([5, 30])}


@given(DELAYS, st.floats(0, 1), st.integers(1, 20), st.integers())
def test_jitter_stays_within_its_share(delays: list[float], jitter: float, number: int, seed: int) -> None:
    listed = delays[min(number, len(delays)) - 1]

    delay = Schedule(delays, jitter=jitter).delay(FailedAttempt(number=number, random=random.Random(seed)))

    assert delay is not None
    assert delay >= 0
    assert listed * (1 - jitter) * (1 - 1e-9) <= delay <= listed * (1 + jitter) * (1 + 1e-9)


def test_jitter_reaches_both_sides() -> None:
    chance = random.Random(0)
    policy = Schedule([100])
    seen = [policy.delay(FailedAttempt(number=1, random=chance)) or 0 for _ in range(2_000)]

    assert 90 <= min(seen) < 91
    assert 109 < max(seen) <= 110
    assert abs(sum(seen) / len(seen) - 100) < 0.5


@given(DELAYS, st.integers(0, 12), st.integers())
def test_preview_is_what_delay_answers(delays: list[float], n: int, seed: int) -> None:
    policy = Schedule(delays)
    chance = random.Random(seed)

    answered = [policy.delay(FailedAttempt(number=number, random=chance)) for number in range(1, len(delays) + 1)]

    assert policy.preview(n, seed=seed) == answered[:n]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1, True, "5", None, timedelta(seconds=-1), 10**400])
def test_refuses_what_is_no_delay(bad: object) -> None:
    with pytest.raises(ValueError, match=r"delays\[1\] is .*; give a timedelta, or seconds from 0 to"):
        Schedule([1, bad])  # type: ignore[list-item]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1, 1.1, True, "0.1", None])
def test_refuses_what_is_no_share(bad: object) -> None:
    with pytest.raises(ValueError, match=r"jitter is .*; give a number from 0 to 1"):
        Schedule([1], jitter=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["5,30", b"5", 5, None, {5, 30}])
def test_refuses_what_is_no_sequence(bad: object) -> None:
    with pytest.raises(TypeError, match=r"give a sequence of seconds"):
        Schedule(bad)  # type: ignore[arg-type]


def test_as_policy_takes_a_sequence_and_keeps_a_policy() -> None:
    policy = Exponential()

    assert as_policy(policy) is policy
    assert as_policy((5, 30)) == Schedule([5, 30], jitter=0.1)
    assert as_policy([5, timedelta(seconds=30)], jitter=0) == Schedule([5, 30], jitter=0)


@pytest.mark.parametrize("bad", ["5,30", b"5", 5, None, object()])
def test_as_policy_refuses_anything_else(bad: object) -> None:
    with pytest.raises(TypeError, match=r"is no retry policy; give a RetryPolicy or a sequence"):
        as_policy(bad)  # type: ignore[arg-type]


def test_as_policy_tells_a_class_from_an_object() -> None:
    with pytest.raises(TypeError, match=r"Never is a class; give an object, such as Never\(…\)"):
        as_policy(Never)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [((), 2), ((None, None), 2), ((None, 7), 7), ((0, 7), 0), ((3,), 3)],
)
def test_the_first_that_says_a_limit_wins(asked: tuple[int | None, ...], allowed: int) -> None:
    assert retries_allowed(Schedule([1, 1]), *asked) == allowed


def test_ten_retries_where_nobody_says() -> None:
    assert retries_allowed(Exponential(), None, None) == 10


def test_never_gives_up_whatever_is_asked() -> None:
    assert Never().retries == 0
    assert Never().delay(FailedAttempt(number=1, max_retries=9)) is None
    assert Never().preview(5) == []
    assert repr(Never()) == "Never()"


def test_most_policies_count_nothing() -> None:
    """``observe`` is there for every policy, so that the caller need not ask."""
    policy = Schedule([5])
    policy.observe(1.0)

    assert policy == Schedule([5])
