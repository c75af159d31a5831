from __future__ import annotations

import math
import random
from datetime import timedelta
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.retry import Exponential, FailedAttempt

Jitter = Literal["full", "equal", "decorrelated"]
JITTERS: list[Jitter | None] = ["full", "equal", "decorrelated", None]
NUMBERS = st.one_of(st.integers(1, 30), st.integers(1, 10_000))


def delays(policy: Exponential, numbers: range, *, task_id: str = "t", seed: int = 0) -> list[float]:
    chance = random.Random(seed)
    return [policy.delay(FailedAttempt(number=number, task_id=task_id, random=chance)) for number in numbers]


def test_grows_to_the_cap() -> None:
    assert delays(Exponential(jitter=None), range(1, 12)) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert delays(Exponential(2, 3, 40, None), range(1, 6)) == [2, 6, 18, 40, 40]


def test_its_defaults() -> None:
    policy = Exponential()

    assert repr(policy) == "Exponential(base=1.0, factor=2.0, cap=300.0, jitter='full')"
    assert policy.retries is None
    assert Exponential(base=timedelta(seconds=1), cap=timedelta(minutes=5)) == policy


@pytest.mark.parametrize("jitter", JITTERS)
@pytest.mark.parametrize("factor", [1, 2, 1e6])
def test_attempt_10_000_does_not_overflow(jitter: Jitter | None, factor: float) -> None:
    assert 0 <= Exponential(factor=factor, jitter=jitter).delay(FailedAttempt(number=10_000, task_id="t")) <= 300


@given(NUMBERS, st.floats(0.001, 1e3), st.floats(1, 100), st.floats(0, 1e5), st.integers())
def test_each_jitter_stays_in_its_bounds(number: int, base: float, factor: float, extra: float, seed: int) -> None:
    cap = base + extra
    attempt = FailedAttempt(number=number, task_id=str(seed), random=random.Random(seed))
    whole = Exponential(base, factor, cap, None).delay(attempt)

    assert base <= whole <= cap
    assert 0 <= Exponential(base, factor, cap, "full").delay(attempt) <= whole
    assert whole / 2 <= Exponential(base, factor, cap, "equal").delay(attempt) <= whole
    assert base <= Exponential(base, factor, cap, "decorrelated").delay(attempt) <= cap


@given(NUMBERS, st.floats(0.001, 1e3), st.floats(1, 100), st.floats(0, 1e5))
def test_without_jitter_it_never_shrinks(number: int, base: float, factor: float, extra: float) -> None:
    policy = Exponential(base, factor, base + extra, None)

    assert policy.delay(FailedAttempt(number=number)) <= policy.delay(FailedAttempt(number=number + 1))


def test_full_and_equal_fill_their_range() -> None:
    for jitter, low in (("full", 0), ("equal", 4)):
        seen = [Exponential(jitter=jitter).delay(FailedAttempt(number=4, random=random.Random(s))) for s in range(999)]  # type: ignore[arg-type]
        assert low <= min(seen) < low + 0.1
        assert 7.9 < max(seen) <= 8


def test_decorrelated_is_one_chain_for_a_task_whoever_asks() -> None:
    """Nothing is kept between attempts, and still each delay follows from the one before."""
    policy = Exponential(jitter="decorrelated", cap=1e6)
    chain = delays(policy, range(1, 12), seed=1)

    assert chain == delays(Exponential(jitter="decorrelated", cap=1e6), range(1, 12), seed=2)
    assert all(later <= 3 * earlier for earlier, later in pairwise(chain))
    assert 1 <= chain[0] <= 3
    assert chain != delays(policy, range(1, 12), task_id="other")


def test_decorrelated_stays_random_past_the_length_of_its_chain() -> None:
    late = delays(Exponential(jitter="decorrelated"), range(998, 1_008))

    assert len({delay for delay in late if delay < 300}) > 3
    assert late == delays(Exponential(jitter="decorrelated"), range(998, 1_008))


@pytest.mark.parametrize("jitter", ["full", "equal", None])
def test_preview_is_what_delay_answers(jitter: Jitter | None) -> None:
    assert Exponential(jitter=jitter).preview(20, seed=7) == delays(Exponential(jitter=jitter), range(1, 21), seed=7)


def test_preview_follows_its_seed() -> None:
    for jitter in ("full", "equal", "decorrelated"):
        policy = Exponential(jitter=jitter)
        assert policy.preview(9, seed=1) == policy.preview(9, seed=1) != policy.preview(9, seed=2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1, 0, True, "1", None])
def test_refuses_a_bad_base(bad: object) -> None:
    with pytest.raises(ValueError, match=r"base is .*; give a timedelta, or seconds from 1e-06"):
        Exponential(base=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.5, True, "2", None])
def test_refuses_a_bad_factor(bad: object) -> None:
    with pytest.raises(ValueError, match=r"factor is .*; give a number from 1 to 1e"):
        Exponential(factor=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1, True, "300", None])
def test_refuses_a_bad_cap(bad: object) -> None:
    with pytest.raises(ValueError, match=r"cap is .*; give a timedelta, or seconds"):
        Exponential(cap=bad)  # type: ignore[arg-type]


def test_refuses_a_cap_below_the_base() -> None:
    with pytest.raises(ValueError, match=r"cap is 5; give seconds from base \(10\)"):
        Exponential(base=10, cap=5)


@pytest.mark.parametrize("bad", ["half", True, 0.1])
def test_refuses_an_unknown_jitter(bad: object) -> None:
    with pytest.raises(ValueError, match=r'jitter is .*; give "full", "equal", "decorrelated" or None'):
        Exponential(jitter=bad)  # type: ignore[arg-type]
