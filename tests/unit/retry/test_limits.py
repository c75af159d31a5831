"""What is out of range is refused by its name, and what is just within is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tenacity import wait_fixed

from deadletter.retry import Budget, Exponential, RetryFor, Schedule, Tenacity, simulate

MILLION = 1e6


@pytest.mark.parametrize(
    ("argument", "make", "bad"),
    [
        ("base", lambda bad: Exponential(base=bad), 0),
        ("factor", lambda bad: Exponential(factor=bad), MILLION + 0.5),
        ("cap", lambda bad: Exponential(cap=bad), -1),
        ("jitter", lambda bad: Schedule([1], jitter=bad), 1.5),
        ("ratio", lambda bad: Budget([1], ratio=bad), 1000.5),
        ("min_per_second", lambda bad: Budget([1], min_per_second=bad), MILLION + 0.5),
        ("duration", lambda bad: RetryFor([1], bad), -1),
        ("outage", lambda bad: simulate([1], outage=bad, arrivals=1), -1),
        ("horizon", lambda bad: simulate([1], outage=1, arrivals=1, horizon=bad), -1),
        ("duration", lambda bad: simulate([1], outage=1, arrivals=1, duration=bad), -1),
        ("arrivals", lambda bad: simulate([1], outage=1, arrivals=bad), MILLION + 0.5),
        ("capacity", lambda bad: simulate([1], outage=1, arrivals=1, capacity=bad), MILLION + 0.5),
        ("max_retries", lambda bad: simulate([1], outage=1, arrivals=1, max_retries=bad), -1),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_name(argument: str, make: Callable[[Any], object], bad: float) -> None:
    with pytest.raises(ValueError, match=f"^{argument} is {bad}"):
        make(bad)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Exponential(factor=MILLION),
        lambda: Budget([1], ratio=1000, min_per_second=MILLION),
        lambda: Schedule([1], jitter=1),
        lambda: RetryFor([1], 0),
    ],
)
def test_what_is_just_within_is_taken(make: Callable[[], object]) -> None:
    make()


def test_a_preview_ends_with_the_moment_of_the_duration() -> None:
    assert RetryFor(Schedule([5, 5, 5], jitter=0), 10).preview(3) == [5, 5]


def test_traffic_of_long_ago_earns_nothing() -> None:
    """100 first attempts, long silence, 10 more: the next token comes at the rate of these 10."""
    budget = Budget(Schedule([0] * 100, jitter=0), ratio=1, min_per_second=1)
    for _ in range(100):
        budget.observe(0)
    for _ in range(10):
        budget.observe(1000)
    for _ in range(20):  # as many as a bucket of that size holds
        budget._bucket.withdraw(1000)
    assert budget._bucket.withdraw(1000) == pytest.approx(1 / (1 + 1), rel=0.01)


def test_a_simulated_task_is_as_old_as_its_arrival_says() -> None:
    told = simulate(RetryFor([1] * 50, 3), outage=60, arrivals=2, duration=10, horizon=50)
    assert told.deaths == told.tasks == 20


def test_strategies_that_hold_others_are_shown_with_them() -> None:
    assert "wait_fixed=1.0), wait_fixed(wait_fixed=2.0" in repr(Tenacity(wait=wait_fixed(1) + wait_fixed(2)))
