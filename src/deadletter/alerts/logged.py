"""Alerts in the log."""

from __future__ import annotations

import logging

from ..interfaces.alerter import Alert, Alerter
from .story import story
from .webhook import check_channel

_LEVELS = {"bad": logging.ERROR, "warn": logging.WARNING}


class LogAlerter(Alerter):
    """Logs each alert on one line, with its facts as ``extra``: for collectors, and where there is no other channel.

    Args:
        logger: default ``deadletter.alerts``.
        name: the channel's name in metrics and routes.
    """

    def __init__(self, logger: logging.Logger | None = None, *, name: str = "log") -> None:
        self._log = logger or logging.getLogger("deadletter.alerts")
        self._channel = check_channel(name)

    @property
    def channel(self) -> str:
        """Its name in logs and metrics."""
        return self._channel

    async def send(self, alert: Alert) -> None:
        """Log it."""
        told = story(alert)
        extra = {"alert_id": alert.id, "kind": alert.kind, "queue": alert.queue, "facts": dict(alert.data)}
        self._log.log(_LEVELS.get(told.tone, logging.INFO), "%s: %s", alert.kind, told.title, extra=extra)
