from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import tenacity
from tenacity import RetryCallState

from deadletter.retry import FailedAttempt, Tenacity


def test_the_library_is_loaded_only_when_used() -> None:
    code = "import sys, deadletter.retry as r; r.Tenacity(); print('tenacity' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_waits_as_the_strategy_says() -> None:
    policy = Tenacity(wait=tenacity.wait_exponential(multiplier=2, max=30))

    assert policy.preview(6) == [2, 4, 8, 16, 30, 30]
    assert policy.retries is None


def test_takes_sums_and_chains() -> None:
    assert Tenacity(wait=tenacity.wait_fixed(3) + tenacity.wait_incrementing(1, 1)).preview(3) == [4, 5, 6]
    chain = tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(9))
    assert Tenacity(wait=chain).preview(4) == [1, 9, 9, 9]


def test_takes_random_waits() -> None:
    delays = Tenacity(wait=tenacity.wait_random_exponential(max=10) + tenacity.wait_random(1, 2)).preview(50)

    assert len(delays) == 50
    assert all(1 <= delay <= 12 for delay in delays)


def test_at_once_where_nothing_says_how_long() -> None:
    """As in tenacity."""
    assert Tenacity().delay(FailedAttempt(number=1)) == 0


def test_no_wait_is_negative_or_endless() -> None:
    """``wait_exponential`` alone reaches 2^62 seconds, which no store holds."""
    policy = Tenacity(wait=tenacity.wait_exponential())

    assert policy.delay(FailedAttempt(number=10_000)) == 366 * 24 * 3600
    assert Tenacity(wait=lambda _: -5).delay(FailedAttempt(number=1)) == 0
    assert Tenacity(wait=lambda _: math.nan).delay(FailedAttempt(number=1)) == 366 * 24 * 3600


def test_stops_by_attempt() -> None:
    policy = Tenacity(wait=tenacity.wait_fixed(1), stop=tenacity.stop_after_attempt(3))

    assert policy.retries == math.inf
    assert policy.preview(10) == [1, 1]


def test_stops_by_age() -> None:
    policy = Tenacity(wait=tenacity.wait_fixed(10), stop=tenacity.stop_after_delay(60))

    assert policy.delay(FailedAttempt(number=99, age=59.9)) == 10
    assert policy.delay(FailedAttempt(number=1, age=60.1)) is None


def test_stops_before_a_delay_would_be_passed() -> None:
    """This one needs the wait that comes."""
    policy = Tenacity(wait=tenacity.wait_fixed(10), stop=tenacity.stop_before_delay(60))

    assert policy.delay(FailedAttempt(number=1, age=49)) == 10
    assert policy.delay(FailedAttempt(number=1, age=51)) is None


def test_stops_by_either() -> None:
    policy = Tenacity(stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(60))

    assert policy.delay(FailedAttempt(number=2, age=1)) == 0
    assert policy.delay(FailedAttempt(number=3, age=1)) is None
    assert policy.delay(FailedAttempt(number=2, age=61)) is None


def test_asks_the_predicate() -> None:
    timeouts = tenacity.retry_if_exception_type(TimeoutError)
    policy = Tenacity(retry=timeouts | tenacity.retry_if_exception_message(match=r"busy"))

    assert policy.delay(FailedAttempt(number=1, error=TimeoutError())) == 0
    assert policy.delay(FailedAttempt(number=1, error=ValueError("busy now"))) == 0
    assert policy.delay(FailedAttempt(number=1, error=ValueError("bad"))) is None


def test_a_predicate_ends_no_task_whose_exception_is_unknown() -> None:
    policy = Tenacity(wait=tenacity.wait_fixed(1), retry=tenacity.retry_if_exception_type(TimeoutError))

    assert policy.delay(FailedAttempt(number=1, error=None)) == 1
    assert policy.preview(2) == [1, 1]


def test_what_a_strategy_sees() -> None:
    states: list[RetryCallState] = []
    error = KeyError("k")

    def wait(state: RetryCallState) -> float:
        states.append(state)
        return 4.0

    assert Tenacity(wait=wait).delay(FailedAttempt(number=7, error=error, age=12.5)) == 4
    assert Tenacity(wait=wait).delay(FailedAttempt(number=7)) == 4

    known, unknown = states
    assert known.attempt_number == 7
    assert known.seconds_since_start == pytest.approx(12.5)
    assert known.idle_for == 12.5
    assert known.outcome is not None
    assert known.outcome.exception() is error
    assert known.outcome.attempt_number == 7
    assert unknown.outcome is not None
    assert isinstance(unknown.outcome.exception(), RuntimeError)
    assert "KeyError" in repr(known)


def test_reads_as_written() -> None:
    policy = Tenacity(
        wait=tenacity.wait_fixed(1) + tenacity.wait_fixed(2),
        retry=tenacity.retry_if_exception_type((OSError, ValueError)),
    )

    assert repr(policy) == (
        "Tenacity(wait=wait_combine(wait_funcs=wait_fixed(wait_fixed=1.0), wait_fixed(wait_fixed=2.0)), stop=None, "
        "retry=retry_if_exception_type(exception_types=OSError, ValueError))"
    )
    assert repr(Tenacity(wait=_a_second)) == "Tenacity(wait=_a_second, stop=None, retry=None)"


def _a_second(_: RetryCallState) -> float:
    return 1.0


async def _async_wait(_: RetryCallState) -> float:
    return 1.0


class _AsyncRetry:
    async def __call__(self, _: RetryCallState) -> bool:
        return True


@pytest.mark.parametrize("bad", [5, "5", tenacity.wait_fixed])
def test_refuses_what_is_no_strategy(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"wait is .*; give a tenacity strategy, such as wait_fixed\(5\)"):
        Tenacity(wait=bad)


@pytest.mark.parametrize("bad", [_async_wait, _AsyncRetry()])
def test_refuses_async_strategies(bad: Any) -> None:
    """A coroutine is true: an async predicate would retry everything."""
    with pytest.raises(TypeError, match=r"retry is .*, which is async"):
        Tenacity(retry=bad)
