from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from deadletter.retry import Budget, Exponential, RetryFor, Schedule, simulate
from deadletter.retry.arguments import LONGEST, number, seconds, whole


def test_ends_of_a_range_belong_to_it() -> None:
    assert (number("n", 0, 0, 1), number("n", 1, 0, 1)) == (0.0, 1.0)
    assert (seconds("d", 0), seconds("d", LONGEST), seconds("d", 2, low=2, high=2)) == (0.0, float(LONGEST), 2.0)
    assert whole("w", 0) == 0


def test_answers_floats() -> None:
    assert isinstance(number("n", 1, 0, 1), float)
    assert isinstance(seconds("d", 1), float)
    assert seconds("d", timedelta(milliseconds=1_500)) == 1.5


def test_a_message_names_argument_value_and_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"^n is 2; give a number from 0 to 1$"):
        number("n", 2, 0, 1)
    with pytest.raises(ValueError, match=r"^d is True; give a timedelta, or seconds from 0 to 60$"):
        seconds("d", True, high=60)
    with pytest.raises(ValueError, match=r"^w is -1; give a whole number from 0 up$"):
        whole("w", -1)


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("base", lambda: Exponential(base=-1)),
        ("factor", lambda: Exponential(factor=0)),
        ("factor", lambda: Exponential(factor=1_000_000.5)),
        ("cap", lambda: Exponential(cap=-1)),
        ("duration", lambda: RetryFor([1], -1)),
        ("jitter", lambda: Schedule([1], jitter=2)),
        ("ratio", lambda: Budget([1], ratio=-1)),
        ("min_per_second", lambda: Budget([1], min_per_second=0)),
        ("min_per_second", lambda: Budget([1], min_per_second=1_000_000.5)),
        ("outage", lambda: simulate([1], arrivals=1, outage=-1)),
        ("horizon", lambda: simulate([1], arrivals=1, outage=1, horizon=-1)),
        ("duration", lambda: simulate([1], arrivals=1, outage=1, duration=-1)),
        ("arrivals", lambda: simulate([1], outage=1, arrivals=0)),
        ("arrivals", lambda: simulate([1], outage=1, duration=0, arrivals=1_000_000.5)),
        ("capacity", lambda: simulate([1], arrivals=1, outage=1, capacity=0)),
        ("capacity", lambda: simulate([1], arrivals=1, outage=1, capacity=1_000_000.5)),
        ("max_retries", lambda: simulate([1], arrivals=1, outage=1, max_retries=-1)),
    ],
)
def test_whatever_takes_an_argument_names_it_and_nothing_else(argument: str, make: Callable[[], object]) -> None:
    """Also half a step beyond the end of its range."""
    with pytest.raises(ValueError, match=rf"^{argument} is .*; give "):
        make()
