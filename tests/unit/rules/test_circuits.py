"""The errors of the real libraries, when they refuse a call and when they tell of one."""

from __future__ import annotations

from datetime import timedelta

import aiobreaker
import circuitbreaker
import fluxgate
import purgatory
import pybreaker
import pytest
from fluxgate.retries import Never
from fluxgate.trippers import FailureStreak

from deadletter import PermanentError
from deadletter.model.outcome import Failed, Postponed
from deadletter.rules.circuits import UNKNOWN, classify, refused_for


def broken() -> None:
    raise ConnectionError("down")


def raised(call) -> BaseException:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


def test_circuitbreaker_tells_when_it_lets_a_call_through():
    guarded = circuitbreaker.CircuitBreaker(1, 20)(broken)
    assert refused_for(raised(guarded)) is None, "the failure that opens it"
    assert 18 < refused_for(raised(guarded)) <= 20


def test_pybreaker_is_known_and_its_failed_calls_are_failures():
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=20)
    first = raised(lambda: breaker.call(broken))
    assert isinstance(first, pybreaker.CircuitBreakerError), "it takes the place of the failure"
    assert refused_for(first) is None
    assert refused_for(raised(lambda: breaker.call(broken))) == UNKNOWN


def test_aiobreaker_is_known_and_its_failed_calls_are_failures(recwarn):
    breaker = aiobreaker.CircuitBreaker(fail_max=1, timeout_duration=timedelta(seconds=20))
    first = raised(lambda: breaker.call(broken))
    assert isinstance(first, aiobreaker.CircuitBreakerError)
    assert refused_for(first) is None
    assert 18 < refused_for(raised(lambda: breaker.call(broken))) <= 20
    recwarn.clear()


def test_purgatory_is_known():
    breaker = purgatory.SyncCircuitBreakerFactory(default_threshold=1, default_ttl=20).get_breaker("x")

    def call() -> None:
        with breaker:
            broken()

    assert refused_for(raised(call)) is None
    assert refused_for(raised(call)) == UNKNOWN


def test_fluxgate_is_known():
    breaker = fluxgate.CircuitBreaker(tripper=FailureStreak(1), retry=Never())
    assert refused_for(raised(lambda: breaker.call(broken))) is None
    assert refused_for(raised(lambda: breaker.call(broken))) == UNKNOWN


def test_a_refusal_puts_off_and_anything_else_is_what_it_was():
    guarded = circuitbreaker.CircuitBreaker(1, 20)(broken)
    assert isinstance(classify(raised(guarded)), Failed)
    refused = classify(raised(guarded))
    assert isinstance(refused, Postponed)
    assert refused.refused
    assert classify(PermanentError("no")).permanent


def test_a_subclass_is_known_and_a_namesake_is_not():
    class CircuitBreakerError(Exception):
        pass

    class Own(circuitbreaker.CircuitBreakerError):
        pass

    assert refused_for(CircuitBreakerError("mine")) is None
    assert refused_for(Own(None)) == UNKNOWN, "what cannot be read is not guessed"
