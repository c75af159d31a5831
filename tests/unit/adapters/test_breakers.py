"""The breaker by itself: what it learns from, and whom it lets through."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import circuitbreaker
import pytest
from circuitbreaker import CircuitBreakerError

from deadletter import InvalidTask
from deadletter.adapters.breakers import Breaker, Breakers, BreakerService

FAR = 3600


def down() -> None:
    raise ConnectionError("down")


@pytest.fixture
def time(monkeypatch):
    """Seconds of the breakers' clock."""
    now = [1000.0]
    monkeypatch.setattr(circuitbreaker, "monotonic", lambda: now[0])
    return now


def opened(breaker: Breaker) -> Breaker:
    for _ in range(breaker.threshold):
        with pytest.raises(ConnectionError):
            breaker(down)()
    assert breaker.opened
    return breaker


def test_a_threshold_of_failures_opens_it_and_a_probe_closes_it(time):
    breaker = opened(Breaker(2, 30))
    with pytest.raises(CircuitBreakerError):
        breaker(lambda: "never")()
    time[0] += 31
    assert breaker(lambda: "again")() == "again"
    assert breaker.closed


def test_a_probe_that_fails_opens_it_for_another_while(time):
    breaker = opened(Breaker(2, 30))
    time[0] += 31
    with pytest.raises(ConnectionError):
        breaker(down)()
    assert breaker.opened
    assert breaker.open_remaining == 30


async def _cancelled(breaker: Breaker) -> None:
    started = asyncio.Event()

    @breaker
    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_call_says_nothing(time):
    breaker = Breaker(3, 30)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            breaker(down)()
    asyncio.run(_cancelled(breaker))
    assert breaker.failure_count == 2


def test_a_cancelled_probe_closes_nothing_and_lets_the_next_one_through(time):
    breaker = opened(Breaker(2, 30))
    time[0] += 31
    asyncio.run(_cancelled(breaker))
    assert breaker.state == "half_open"
    assert breaker(lambda: 1)() == 1


def test_one_of_twenty_concurrent_calls_probes(time):
    breaker = opened(Breaker(2, 30))
    time[0] += 31
    refused = 0

    async def run() -> int:
        go = asyncio.Event()

        @breaker
        async def call() -> str:
            await go.wait()
            return "through"

        tasks = [asyncio.create_task(call()) for _ in range(20)]
        await asyncio.sleep(0)
        go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        return sum(isinstance(answer, CircuitBreakerError) for answer in answers)

    refused = asyncio.run(run())
    assert refused == 19
    assert breaker.closed


def test_one_of_many_threads_probes(time):
    breaker = opened(Breaker(2, 30))
    time[0] += 31
    entered, leave = threading.Event(), threading.Event()
    answers: list[object] = []

    @breaker
    def call() -> str:
        entered.set()
        leave.wait(10)
        return "through"

    def run() -> None:
        try:
            answers.append(call())
        except CircuitBreakerError as error:
            answers.append(error)

    first = threading.Thread(target=run)
    first.start()
    assert entered.wait(10)
    others = [threading.Thread(target=run) for _ in range(9)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    leave.set()
    first.join()
    assert sum(isinstance(answer, CircuitBreakerError) for answer in answers) == 9


def test_a_call_from_before_it_opened_does_not_close_it(time):
    breaker = Breaker(2, 30)

    async def run() -> None:
        go = asyncio.Event()

        @breaker
        async def slow() -> None:
            await go.wait()

        task = asyncio.create_task(slow())
        await asyncio.sleep(0)
        opened(breaker)
        go.set()
        await task

    asyncio.run(run())
    assert breaker.opened


def test_generators_pass_through_it_too(time):
    breaker = Breaker(1, 30)

    @breaker
    def numbers():
        yield 1
        raise ConnectionError("down")

    @breaker
    async def letters():
        yield "a"

    async def read() -> list[str]:
        return [letter async for letter in letters()]

    assert asyncio.run(read()) == ["a"]
    with pytest.raises(ConnectionError):
        list(numbers())
    assert breaker.opened


def test_only_errors_that_count_open_it():
    breaker = Breaker(1, 30, (ConnectionError, TimeoutError))
    with pytest.raises(ValueError, match="bad"):
        breaker(lambda: (_ for _ in ()).throw(ValueError("bad")))().send(None)
    assert breaker.counts(TimeoutError())
    assert not breaker.counts(ValueError())
    assert not breaker.counts(KeyboardInterrupt())
    assert breaker.closed


def test_breakers_are_made_when_they_are_asked_for():
    service = BreakerService()
    first = service.breakers["email_service"]
    assert first is service.breakers["email_service"]
    assert (first.name, first.threshold, first.recovery) == ("email_service", 5, 30)
    slow = service.configure("slow", failure_threshold=9, recovery_timeout=timedelta(minutes=2))
    assert (slow.threshold, slow.recovery) == (9, 120)
    with pytest.raises(InvalidTask, match="name: breaker 'slow' is in use already"):
        service.configure("slow")


@pytest.mark.parametrize("name", ["", 3, None])
def test_a_name_is_a_text(name):
    with pytest.raises(InvalidTask, match="name"):
        Breakers()[name]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("failure_threshold", 0),
        ("failure_threshold", 1.5),
        ("recovery_timeout", -1),
        ("ramp_start", 0),
        ("ramp_factor", 1),
        ("ramp_factor", float("inf")),
    ],
)
def test_an_option_that_cannot_be_meant_is_named(field, value):
    with pytest.raises(InvalidTask, match=field):
        Breaker(**{field: value})


def test_a_ramp_doubles_each_second_and_ends():
    breaker = Breaker()
    assert [breaker.rate(n) for n in (0, 1, 3)] == [1, 2, 8]
    assert breaker.rate(10) == breaker.rate(1e9) == float("inf")
