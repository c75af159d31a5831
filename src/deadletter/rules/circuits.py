"""What the errors of circuit breakers mean: the call was never made, so no attempt was.

They are known by name, so that no breaker's library need be imported. An error that a breaker raises *instead of* the
failure that opened it tells of a call that was made, and stays a failure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ..model.outcome import Outcome, Postponed, classify_error

UNKNOWN = 30.0  # seconds to wait where a breaker does not tell when it lets a call through again
_SOON = 1.0  # where it is about to, or a probe of somebody else's is under way


def _circuitbreaker(error: Any) -> float:
    return float(error._circuit_breaker.open_remaining)  # noqa: SLF001 - it tells it by no other way


def _aiobreaker(error: Any) -> float:
    # Naive and in UTC, though its own time_remaining takes it for local time.
    return float((error.reopen_time - datetime.now(UTC).replace(tzinfo=None)).total_seconds())


def _silent(_: Any) -> float:
    return UNKNOWN


_KNOWN: dict[tuple[str, str], Callable[[Any], float]] = {
    ("circuitbreaker", "CircuitBreakerError"): _circuitbreaker,
    ("aiobreaker", "CircuitBreakerError"): _aiobreaker,
    ("pybreaker", "CircuitBreakerError"): _silent,
    ("purgatory", "OpenedState"): _silent,
    ("fluxgate", "CallNotPermittedError"): _silent,
}
_TOLD_OF_A_CALL = ("Failures threshold reached", "Trial call failed")


def refused_for(error: BaseException) -> float | None:
    """Seconds until an open circuit lets a call through again; None where the error is no open circuit's."""
    for kind in type(error).__mro__:
        known = _KNOWN.get((kind.__module__.partition(".")[0], kind.__qualname__))
        if known is None:
            continue
        if str(error.args[0] if error.args else "").startswith(_TOLD_OF_A_CALL) or _said(error):
            return None
        try:
            left = known(error)
        except Exception:  # another release of its library
            return UNKNOWN
        return left if _SOON < left < math.inf else _SOON
    return None


def _said(error: Any) -> bool:
    return str(getattr(error, "message", "")).startswith(_TOLD_OF_A_CALL)


def classify(error: BaseException) -> Outcome:
    """What a raised exception means, those of open circuits included: put off until the circuit may close."""
    delay = refused_for(error)
    return classify_error(error) if delay is None else Postponed(delay, refused=True)
