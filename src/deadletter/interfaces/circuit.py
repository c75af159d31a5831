"""When a service that tasks need counts as down, and how work comes back to it."""

from __future__ import annotations

import abc
from typing import Protocol


class Circuit(Protocol):
    """What a worker asks of a breaker; ``deadletter.adapters.breakers.Breaker`` is one."""

    @property
    @abc.abstractmethod
    def threshold(self) -> int:
        """So many failures in a row open it."""

    @property
    @abc.abstractmethod
    def recovery(self) -> float:
        """Seconds until a first probe, and from one probe to the next."""

    @abc.abstractmethod
    def counts(self, error: BaseException) -> bool:
        """Whether an error says that the service is down, and not that the task is bad."""

    @abc.abstractmethod
    def rate(self, elapsed: float) -> float:
        """Starts a second that are allowed ``elapsed`` seconds after it closed; infinity ends the ramp."""
