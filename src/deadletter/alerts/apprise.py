"""Alerts through Apprise: Teams, Discord, PagerDuty, Opsgenie, Telegram and many more."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from ..interfaces.alerter import Alert, Alerter
from ..model.errors import InvalidTask, MissingExtra
from .foreign_loop import in_asyncio
from .posting import NotDelivered
from .rendering import as_text
from .story import story
from .webhook import check_channel

_TYPES = {"bad": "failure", "warn": "warning", "good": "success", "calm": "info"}


class AppriseAlerter(Alerter):
    """Sends through the services that Apprise URLs name. Those it connects to are Apprise's own choice.

    Args:
        urls: one or several, such as ``"discord://id/token"``; they are secrets, and never shown.
        name: the channel's name in metrics, routes and logs.

    Raises:
        MissingExtra: Apprise is not installed.
        InvalidTask: a URL that Apprise does not know; told by its place.
    """

    def __init__(self, urls: str | Sequence[str], *, name: str = "apprise") -> None:
        self._channel = check_channel(name)
        given = [urls] if isinstance(urls, str) else list(urls)
        if not given:
            raise InvalidTask("urls", "there are none; give one or several Apprise URLs")
        with warnings.catch_warnings(action="ignore"):  # of what its own imports use
            self._services = _services(given)

    @property
    def channel(self) -> str:
        """Its name in logs and metrics."""
        return self._channel

    def __repr__(self) -> str:
        return f"<AppriseAlerter {self._channel!r} to {len(self._services)} services>"

    async def send(self, alert: Alert) -> None:
        """Deliver it to all, or raise where any of them failed."""
        told = story(alert)
        sent = await in_asyncio(
            lambda: self._services.async_notify(
                title=told.title, body=as_text(told), notify_type=_TYPES[told.tone], body_format="text"
            )
        )
        if not sent:
            raise NotDelivered("Apprise could not deliver to every service; its own log says which")


def _services(urls: Sequence[str]) -> Any:
    try:
        import apprise
    except ModuleNotFoundError:
        raise MissingExtra("apprise", "AppriseAlerter") from None
    services = apprise.Apprise()
    its_log = logging.getLogger("apprise")
    level = its_log.level
    its_log.setLevel(logging.CRITICAL)  # it would log the URL
    try:
        for at, url in enumerate(urls, 1):
            if not isinstance(url, str) or not services.add(url):
                raise InvalidTask("urls", f"Apprise does not know URL {at} of {len(urls)}; see its list of services")
    finally:
        its_log.setLevel(level)
    return services
