"""Somebody who is told."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Alert:
    """Something that people should know.

    Attributes:
        id: the same for every delivery of the same alert.
        kind: ``task_dead``, ``threshold_exceeded``, ``daily_summary``, ...
        at: when it arose.
        queue: of which queue.
        title: one line of plain text.
        data: the facts, JSON-like and redacted.
    """

    id: str
    kind: str
    at: datetime
    queue: str
    title: str
    data: Mapping[str, Any] = attrs.field(factory=dict)


class Alerter(abc.ABC):
    """One channel."""

    @property
    @abc.abstractmethod
    def channel(self) -> str:
        """Its name in logs and metrics, such as ``email``."""

    @abc.abstractmethod
    async def send(self, alert: Alert) -> None:
        """Deliver it, or raise."""
