"""Alerts that people trust: a monitor that groups deaths by their cause, and the channels that it tells.

Each name is loaded when it is first asked for: a channel's library is needed by who uses that channel.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine.alerting import MonitorInfo, delivered, monitor_seen
    from .apprise import AppriseAlerter
    from .calendar import QuietHours
    from .environment import alerters_from_env
    from .logged import LogAlerter
    from .mail import EmailAlerter
    from .monitor import Monitor, Tested
    from .posting import NotDelivered
    from .routes import Route
    from .slack import SlackAlerter
    from .webhook import WebhookAlerter

_HOMES = {
    "Monitor": "alerts.monitor",
    "MonitorInfo": "engine.alerting",
    "QuietHours": "alerts.calendar",
    "Route": "alerts.routes",
    "Tested": "alerts.monitor",
    "alerters_from_env": "alerts.environment",
    "delivered": "engine.alerting",
    "monitor_seen": "engine.alerting",
    "AppriseAlerter": "alerts.apprise",
    "EmailAlerter": "alerts.mail",
    "LogAlerter": "alerts.logged",
    "NotDelivered": "alerts.posting",
    "SlackAlerter": "alerts.slack",
    "WebhookAlerter": "alerts.webhook",
}

__all__ = [
    "AppriseAlerter",
    "EmailAlerter",
    "LogAlerter",
    "Monitor",
    "MonitorInfo",
    "NotDelivered",
    "QuietHours",
    "Route",
    "SlackAlerter",
    "Tested",
    "WebhookAlerter",
    "alerters_from_env",
    "delivered",
    "monitor_seen",
]


def __getattr__(name: str) -> object:
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"..{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
