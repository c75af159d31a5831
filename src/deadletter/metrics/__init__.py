"""Prometheus metrics: of a queue over all processes and restarts, and of the attempts in this process.

``exposition`` answers a scrape, ``DeadLetterCollector`` goes into a registry of yours, ``served`` is a page of its own.
"""

from __future__ import annotations

from ..model.errors import MissingExtra

try:
    import prometheus_client  # noqa: F401 - only whether it is there
except ModuleNotFoundError as error:
    raise MissingExtra("metrics", "deadletter.metrics") from error

from .collector import DeadLetterCollector, exposition
from .server import served

__all__ = ["DeadLetterCollector", "exposition", "served"]
