from __future__ import annotations

import importlib
import math
from datetime import timedelta
from typing import Any, cast

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadletter.retry import (
    Budget,
    ByException,
    Exponential,
    FailedAttempt,
    Never,
    RetryFor,
    RetryPolicy,
    Schedule,
    simulate,
)


def fixed(*delays: float) -> Schedule:
    return Schedule(delays, jitter=0)


def test_a_case_counted_by_hand() -> None:
    """Ten tasks at 0, 1 … 9; those at 0 to 4 fail, again at 3 to 7: at 3 and 4 they fail once more and die."""
    seen = simulate(fixed(3), outage=5, arrivals=1, duration=10)

    assert seen.tasks == 10
    assert seen.attempts == 15
    assert seen.deaths == 2
    assert seen.unfinished == 0
    assert seen.load == (1, 1, 1, 2, 2, 2, 2, 2, 1, 1)
    assert seen.peak_load == 2
    assert seen.time_to_recover == 2
    assert seen.delays == (3,) * 5


def test_no_outage_no_retries() -> None:
    seen = simulate(Exponential(), outage=0, arrivals=2)

    assert (seen.tasks, seen.attempts, seen.deaths, seen.time_to_recover) == (120, 120, 0, 0)
    assert seen.delays == ()


def test_tasks_arrive_for_twice_the_outage_and_a_minute() -> None:
    assert simulate([5], outage=timedelta(seconds=30), arrivals=1).tasks == 120


def test_everything_dies_where_nothing_is_retried() -> None:
    seen = simulate(Never(), outage=10, arrivals=3, duration=10)

    assert (seen.attempts, seen.deaths, seen.time_to_recover) == (30, 30, 0)


@pytest.mark.parametrize(("asked", "attempts"), [(None, 3), (0, 1), (5, 6)])
def test_max_retries_goes_over_the_policy_s_own_end(asked: int | None, attempts: int) -> None:
    assert simulate(fixed(1, 1), outage=60, arrivals=1, duration=1, max_retries=asked).attempts == attempts


def test_a_policy_without_an_end_gets_ten_retries() -> None:
    assert simulate(Exponential(cap=1), outage=60, arrivals=1, duration=1).attempts == 11


def test_over_its_capacity_the_service_fails() -> None:
    """Four at once can't be served by one that takes two a second."""
    seen = simulate(fixed(1, 1, 1), outage=0, arrivals=4, duration=1, capacity=2)

    assert seen.attempts == 6
    assert seen.deaths == 0
    assert seen.load == (4, 2)


def test_a_slow_service_takes_longer_to_recover() -> None:
    fast, slow = (simulate(Exponential(), outage=60, arrivals=10, capacity=c) for c in (None, 12))

    assert slow.attempts > fast.attempts
    assert slow.time_to_recover > fast.time_to_recover


def test_what_the_horizon_cuts_off_is_unfinished() -> None:
    seen = simulate(fixed(100), outage=10, arrivals=1, duration=10, horizon=50)

    assert (seen.tasks, seen.attempts, seen.unfinished) == (10, 10, 10)
    assert seen.time_to_recover == math.inf


def test_each_policy_sees_what_a_worker_would_tell_it() -> None:
    seen: list[FailedAttempt] = []
    firsts: list[float] = []

    class Watching(RetryPolicy):
        def __deepcopy__(self, _: object) -> Watching:
            return self

        def observe(self, now: float) -> None:
            firsts.append(now)

        def delay(self, attempt: FailedAttempt) -> float:
            seen.append(attempt)
            return 4.0

    error = TimeoutError()
    simulate(Watching(), outage=5, arrivals=1, duration=2, error=error, max_retries=3)

    assert firsts == [0, 1]
    assert [(a.number, a.now, a.age) for a in seen] == [(1, 0, 0), (1, 1, 0), (2, 4, 4)]
    assert {a.task_id for a in seen} == {"0-0", "0-1"}
    assert all(a.error is error and a.max_retries == 3 for a in seen)


def test_the_error_chooses_by_exception() -> None:
    policy = ByException({TimeoutError: Never()}, default=fixed(1))

    assert simulate(policy, outage=5, arrivals=1, duration=1, error=TimeoutError()).attempts == 1
    assert simulate(policy, outage=5, arrivals=1, duration=1).attempts == 2


def test_retry_for_ends_by_age() -> None:
    seen = simulate(RetryFor(fixed(10), 35), outage=600, arrivals=1, duration=1, max_retries=1_000)

    assert (seen.attempts, seen.deaths) == (4, 1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(), outage=st.floats(0, 60), capacity=st.none() | st.floats(1, 50))
def test_one_seed_one_result(seed: int, outage: float, capacity: float | None) -> None:
    """A budget that served before included: the simulation spends a copy."""
    policy = Budget(Exponential())

    first, second = (simulate(policy, outage=outage, arrivals=5, seed=seed, capacity=capacity) for _ in range(2))

    assert first == second


@pytest.mark.parametrize("policy", [Exponential(), Exponential(jitter="decorrelated"), Schedule([5, 30])])
def test_another_seed_another_result(policy: RetryPolicy) -> None:
    one, other = (simulate(policy, outage=30, arrivals=2, seed=seed) for seed in (0, 1))

    assert one.delays != other.delays


@settings(max_examples=60, deadline=None)
@given(
    delays=st.lists(st.floats(0, 60), max_size=6),
    outages=st.tuples(st.floats(0, 120), st.floats(0, 120)),
    arrivals=st.floats(0.1, 5),
    duration=st.none() | st.floats(0, 120),
)
def test_a_longer_outage_never_makes_fewer_attempts(
    delays: list[float], outages: tuple[float, float], arrivals: float, duration: float | None
) -> None:
    shorter, longer = (
        simulate(fixed(*delays), outage=outage, arrivals=arrivals, duration=duration) for outage in sorted(outages)
    )

    assert shorter.attempts <= longer.attempts


@settings(max_examples=40, deadline=None)
@given(
    outage=st.floats(0, 60),
    arrivals=st.floats(0.1, 20),
    capacity=st.none() | st.floats(1, 30),
    horizon=st.floats(0, 500),
    seed=st.integers(),
)
def test_its_sums_agree(outage: float, arrivals: float, capacity: float | None, horizon: float, seed: int) -> None:
    seen = simulate(Exponential(), outage=outage, arrivals=arrivals, capacity=capacity, horizon=horizon, seed=seed)

    assert sum(seen.load) == seen.attempts
    assert max(seen.load, default=0) <= seen.peak_load <= 2 * max(seen.load, default=0)
    assert seen.deaths + seen.unfinished <= seen.tasks
    assert all(0 <= delay <= 300 for delay in seen.delays)


def test_jitter_breaks_up_the_herd() -> None:
    """What fails in one second comes back in one second, again and again, unless it is spread."""
    herd, spread = (
        simulate(Exponential(jitter=jitter, cap=60), outage=60, arrivals=200, duration=1) for jitter in (None, "full")
    )

    assert max(herd.load[20:]) == 200
    assert max(spread.load[20:]) < 50


def test_its_repr_leaves_the_series_out() -> None:
    seen = simulate(fixed(3), outage=5, arrivals=1, duration=10)

    assert repr(seen) == ("Simulation(tasks=10, attempts=15, deaths=2, unfinished=0, peak_load=2, time_to_recover=2.0)")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        seen.deaths = 0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("argument", "bad"),
    [
        *[("outage", bad) for bad in (math.nan, math.inf, -1, True, None, timedelta(days=32))],
        *[("arrivals", bad) for bad in (math.nan, math.inf, 0, -1, True, None)],
        *[("capacity", bad) for bad in (math.nan, 0.5, True)],
        *[("duration", bad) for bad in (math.nan, -1, True)],
        *[("horizon", bad) for bad in (math.nan, math.inf, -1, True, None)],
        *[("max_retries", bad) for bad in (-1, 1.5, True)],
    ],
)
def test_refuses_a_bad_argument(argument: str, bad: object) -> None:
    with pytest.raises(ValueError, match=rf"{argument} is .*; give"):
        simulate([1], **{"outage": 1, "arrivals": 1, argument: cast("Any", bad)})


def test_refuses_what_would_not_fit() -> None:
    with pytest.raises(ValueError, match=r"arrivals is 1000, 7260000 tasks in all"):
        simulate([1], outage=3_600, arrivals=1_000)


def test_refuses_to_retry_without_end_at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zero delay and no limit never gets past the outage."""
    monkeypatch.setattr(importlib.import_module("deadletter.retry.simulate"), "_MOST_ATTEMPTS", 20)

    with pytest.raises(ValueError, match=r"more than 20 attempts in 0 simulated seconds; give"):
        simulate([0], outage=1, arrivals=1, max_retries=10**9)
