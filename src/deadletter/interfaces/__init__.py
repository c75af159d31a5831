"""What can be swapped: small abstract classes, one a file."""

from .alerter import Alert, Alerter
from .backend import Backend
from .clock import Clock, SystemClock
from .codec import Codec
from .idempotency import Begun, IdempotencyStore
from .instrumentation import Instrumentation
from .retry_policy import FailedAttempt, RetryPolicy

__all__ = [
    "Alert",
    "Alerter",
    "Backend",
    "Begun",
    "Clock",
    "Codec",
    "FailedAttempt",
    "IdempotencyStore",
    "Instrumentation",
    "RetryPolicy",
    "SystemClock",
]
