"""When to try again: policies, and a simulator that shows what they do to a service that is down."""

from __future__ import annotations

from ..interfaces.retry_policy import FailedAttempt, RetryPolicy
from .budget import Budget
from .by_exception import ByException
from .exponential import Exponential
from .never import Never
from .retry_for import RetryFor
from .schedule import Schedule, as_policy, retries_allowed
from .simulate import Simulation, simulate
from .tenacity_policy import Tenacity

__all__ = [
    "Budget",
    "ByException",
    "Exponential",
    "FailedAttempt",
    "Never",
    "RetryFor",
    "RetryPolicy",
    "Schedule",
    "Simulation",
    "Tenacity",
    "as_policy",
    "retries_allowed",
    "simulate",
]
