from __future__ import annotations

import math
from datetime import timedelta

import pytest

from deadletter.model.errors import InvalidTask
from deadletter.model.outcome import (
    Discard,
    Discarded,
    Failed,
    Outcome,
    PermanentError,
    Postpone,
    Postponed,
    Rejected,
    RetryAfter,
    Succeeded,
    classify_error,
    classify_result,
)


@pytest.mark.parametrize("result", [None, True, 0, "", [], {}, 0.0])
def test_whatever_is_returned_but_false_is_a_success(result: object) -> None:
    assert classify_result(result) == Succeeded(result)


def test_false_is_a_rejection() -> None:
    found = classify_result(False)
    assert isinstance(found, Failed)
    assert isinstance(found.error, Rejected)
    assert (found.permanent, found.rejected, found.retry_after) == (True, True, None)


BOOM, EXIT, NEVER, LATER = ValueError("x"), SystemExit(1), PermanentError("why"), RetryAfter(30, "busy")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BOOM, Failed(BOOM)),
        (EXIT, Failed(EXIT)),
        (NEVER, Failed(NEVER, permanent=True)),
        (LATER, Failed(LATER, retry_after=30.0)),
        (Postpone(timedelta(minutes=1)), Postponed(60.0)),
        (Discard("stale"), Discarded("stale")),
    ],
)
def test_what_is_raised_says_what_happened(error: BaseException, outcome: Outcome) -> None:
    assert classify_error(error) == outcome


@pytest.mark.parametrize(
    ("signal", "says"),
    [
        (RetryAfter(30), "asked to be tried again in 30 s"),
        (RetryAfter(30, "busy"), "busy"),
        (Postpone(timedelta(seconds=1.5)), "postponed by 1.5 s"),
        (Postpone(1, "closed"), "closed"),
        (PermanentError("why"), "why"),
        (Discard("stale"), "stale"),
    ],
)
def test_a_signal_says_why(signal: Exception, says: str) -> None:
    assert str(signal) == says


@pytest.mark.parametrize("kind", [RetryAfter, Postpone])
@pytest.mark.parametrize("delay", [-1, math.nan, "5", True])
def test_a_delay_that_is_none_is_refused(kind: type[RetryAfter], delay: float) -> None:
    with pytest.raises(InvalidTask, match="delay: "):
        kind(delay)
