from __future__ import annotations

import copy
import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadletter.retry import Budget, Exponential, FailedAttempt, Never, Schedule, simulate


def at_once(**options: float) -> Budget:
    return Budget(Schedule([0], jitter=0), **options)


def waits(budget: Budget, n: int, now: float) -> list[float]:
    return [budget.delay(FailedAttempt(number=1, now=now)) or 0.0 for _ in range(n)]


def test_a_full_budget_changes_no_delay() -> None:
    budget = Budget(Schedule([5, 30], jitter=0))

    assert budget.delay(FailedAttempt(number=2, now=100.0)) == 30
    assert budget.retries == 2


def test_an_empty_one_puts_off_and_never_gives_up() -> None:
    """A full budget of one a second holds ten; after that they queue up a second apart."""
    assert waits(at_once(), 14, now=100.0) == pytest.approx([0] * 10 + [1, 2, 3, 4])


def test_the_wait_comes_on_top_of_the_delay() -> None:
    budget = Budget(Schedule([7], jitter=0), min_per_second=0.1)

    assert waits(budget, 2, now=0.0) == pytest.approx([7, 17])


def test_time_fills_it_again() -> None:
    budget = at_once()
    waits(budget, 12, now=100.0)

    assert waits(budget, 1, now=102.0) == pytest.approx([1])
    assert waits(budget, 1, now=104.0) == [0]


def test_traffic_earns_a_share() -> None:
    budget = at_once(ratio=0.1, min_per_second=0.001)
    waits(budget, 1, now=100.0)
    for _ in range(30):
        budget.observe(100.0)

    later = waits(budget, 4, now=100.0)
    assert later[:3] == [0, 0, 0]
    assert later[3] == pytest.approx(1 / (0.001 + 0.1 * 3))


def test_a_quiet_hour_saves_up_no_storm() -> None:
    budget = at_once(ratio=0.5)
    for second in range(60):
        for _ in range(100):
            budget.observe(float(second))

    assert waits(budget, 11, now=3_600.0) == pytest.approx([0] * 10 + [1])


def test_gives_up_only_where_the_policy_does_and_pays_nothing_for_it() -> None:
    budget = Budget(Never(), min_per_second=0.1)

    assert [budget.delay(FailedAttempt(number=1)) for _ in range(5)] == [None] * 5
    assert budget.retries == 0


def test_a_preview_spends_nothing() -> None:
    budget = Budget(Exponential(), min_per_second=0.1)

    assert [budget.preview(50, seed=3) for _ in range(2)] == [Exponential().preview(50, seed=3)] * 2
    assert (budget.delay(FailedAttempt(number=1, now=0.0)) or 0) <= 1


def test_passes_first_attempts_on() -> None:
    seen: list[float] = []

    class Counting(Schedule):
        def observe(self, now: float) -> None:
            seen.append(now)

    Budget(Counting([5])).observe(7.0)

    assert seen == [7.0]


def test_a_clock_read_in_another_order_is_no_harm() -> None:
    """Threads read the clock before they take the lock."""
    budget = at_once()
    waits(budget, 10, now=100.0)

    assert waits(budget, 1, now=99.0) == pytest.approx([1])
    assert waits(budget, 1, now=100.0) == pytest.approx([2])


def test_reads_compares_and_copies_without_its_count() -> None:
    budget = at_once()
    waits(budget, 20, now=0.0)

    assert repr(budget) == "Budget(policy=Schedule(delays=(0.0,), jitter=0.0), ratio=0.1, min_per_second=1.0)"
    assert budget == at_once()
    assert hash(budget) == hash(at_once())
    assert waits(copy.deepcopy(budget), 1, now=0.0) == [0]


def test_threads_never_spend_a_token_twice() -> None:
    budget = at_once(ratio=0)
    got: list[float] = []

    def spend() -> None:
        for _ in range(500):
            got.extend(waits(budget, 1, now=5.0))

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got) == pytest.approx([0] * 10 + list(range(1, 1_991)))


@settings(max_examples=25, deadline=None)
@given(
    arrivals=st.floats(1, 40),
    ratio=st.floats(0, 1),
    min_per_second=st.floats(0.1, 5),
    outage=st.integers(30, 120),
    seed=st.integers(),
)
def test_retries_stay_a_bounded_share_of_traffic(
    arrivals: float, ratio: float, min_per_second: float, outage: int, seed: int
) -> None:
    """Over a whole outage: no more than a full budget, what time gives, and the share of what arrived."""
    budget = Budget(Exponential(base=1, cap=5), ratio=ratio, min_per_second=min_per_second)

    seen = simulate(
        budget, outage=outage, arrivals=arrivals, duration=outage, horizon=outage, max_retries=10**6, seed=seed
    )

    full = max(1, 10 * (min_per_second + ratio * arrivals))
    retries = seen.attempts - seen.tasks
    assert seen.deaths == 0
    assert retries <= 1.1 * (full + outage * min_per_second + ratio * seen.tasks) + 1


def test_without_a_budget_the_same_outage_is_a_storm() -> None:
    """The bound above says something: the same policy alone retries many times as much."""
    alone = simulate(Exponential(base=1, cap=5), outage=60, arrivals=20, duration=60, max_retries=10**6)
    bound = simulate(Budget(Exponential(base=1, cap=5)), outage=60, arrivals=20, duration=60, max_retries=10**6)

    assert alone.peak_load > 200
    assert bound.peak_load < 50


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1, True, "0.1", None])
def test_refuses_a_bad_ratio(bad: object) -> None:
    with pytest.raises(ValueError, match=r"ratio is .*; give a number from 0 to 1000"):
        Budget(Never(), ratio=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0, -1, True, "1", None])
def test_refuses_a_minimum_that_would_wait_for_ever(bad: object) -> None:
    with pytest.raises(ValueError, match=r"min_per_second is .*; give a number from 0\.001"):
        Budget(Never(), min_per_second=bad)  # type: ignore[arg-type]


def test_refuses_what_is_no_policy() -> None:
    with pytest.raises(TypeError, match=r"is no retry policy"):
        Budget(0.1)  # type: ignore[arg-type]
