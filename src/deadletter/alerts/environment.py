"""Channels and settings of a monitor, from the environment.

An entry point in the group ``deadletter.alerters`` adds a channel: it names a function that takes the environment and
answers an Alerter, or None where nothing of it is set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..interfaces.alerter import Alerter
from ..model.errors import InvalidSetting, InvalidTask
from .calendar import QuietHours, parse_time, parse_zone
from .posting import check_url

_FromEnv = Callable[[Mapping[str, str]], "Alerter | None"]

_FIELDS = {  # whose argument: which variable says it
    "email": {
        "host": "SMTP_HOST",
        "port": "SMTP_PORT",
        "username": "SMTP_USER",
        "security": "SMTP_SECURITY",
        "sender": "SMTP_FROM",
        "to": "ALERT_EMAIL",
    },
    "slack": {"url": "SLACK_WEBHOOK_URL"},
    "webhook": {"url": "ALERT_WEBHOOK_URL", "secret": "ALERT_WEBHOOK_SECRET", "format": "ALERT_WEBHOOK_FORMAT"},
    "apprise": {"urls": "ALERT_APPRISE_URLS"},
}


def alerters_from_env(environ: Mapping[str, str]) -> list[Alerter]:
    """Every channel that the environment configures; an empty variable counts as unset.

    Raises:
        InvalidSetting: names the variable; a value that may hold a secret is never shown.
    """
    found = [make(environ) for make in (_email, _slack, _webhook, _apprise, *_installed())]
    return [alerter for alerter in found if alerter is not None]


def monitor_options(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the environment says of a monitor, as arguments of ``Monitor``. Raises InvalidSetting that names the variable."""
    options: dict[str, Any] = {}
    for variable, (option, check) in _OPTIONS.items():
        text = environ.get(variable)
        if text:
            options[option] = _checked(variable, check, text)
    quiet = environ.get("ALERT_QUIET_HOURS")
    if quiet:
        zone = options.get("timezone", "UTC")
        options["quiet_hours"] = _checked("ALERT_QUIET_HOURS", lambda text: _quiet(text, zone), quiet)
    return options


def _email(environ: Mapping[str, str]) -> Alerter | None:
    host, to = environ.get("SMTP_HOST"), environ.get("ALERT_EMAIL")
    if not host and not to:
        return None
    if not host:
        raise InvalidSetting("SMTP_HOST", "ALERT_EMAIL says who gets mail, but not through which server")
    if not to:
        raise InvalidSetting("ALERT_EMAIL", "SMTP_HOST says how to send mail, but not to whom")
    user, password = environ.get("SMTP_USER") or None, environ.get("SMTP_PASSWORD") or None
    if user is not None and password is None:
        raise InvalidSetting("SMTP_PASSWORD", "SMTP_USER is set, and its password is not")
    if password is not None and user is None:
        raise InvalidSetting("SMTP_USER", "SMTP_PASSWORD is set, and the user is not")
    port = environ.get("SMTP_PORT") or None
    if port is not None and re.fullmatch(r"\d{1,5}", port.strip()) is None:
        raise InvalidSetting("SMTP_PORT", f"{port!r:.40} is no port; give 1 to 65535")
    from .mail import EmailAlerter

    return _made(
        "email",
        lambda: EmailAlerter(
            host,
            [part.strip() for part in to.split(",") if part.strip()],
            port=int(port) if port is not None else None,
            username=user,
            password=password,
            sender=environ.get("SMTP_FROM") or None,
            security=environ.get("SMTP_SECURITY") or "auto",  # type: ignore[arg-type] # checked by EmailAlerter
        ),
    )


def _slack(environ: Mapping[str, str]) -> Alerter | None:
    url = environ.get("SLACK_WEBHOOK_URL")
    if not url:
        return None
    from .slack import SlackAlerter

    return _made("slack", lambda: SlackAlerter(url))


def _webhook(environ: Mapping[str, str]) -> Alerter | None:
    url, secrets = environ.get("ALERT_WEBHOOK_URL"), environ.get("ALERT_WEBHOOK_SECRET")
    if not url and secrets:
        raise InvalidSetting("ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_SECRET is set, and where to send to is not")
    if not url:
        return None
    from .webhook import WebhookAlerter

    form: Any = environ.get("ALERT_WEBHOOK_FORMAT") or "standard"
    return _made("webhook", lambda: WebhookAlerter(url, re.split(r"[\s,]+", secrets) if secrets else None, format=form))


def _apprise(environ: Mapping[str, str]) -> Alerter | None:
    urls = environ.get("ALERT_APPRISE_URLS")
    if not urls:
        return None
    from .apprise import AppriseAlerter

    return _made("apprise", lambda: AppriseAlerter(urls.split()))


def _made(channel: str, make: Callable[[], Alerter]) -> Alerter:
    try:
        return make()
    except InvalidTask as error:
        raise InvalidSetting(_FIELDS[channel].get(error.field, error.field), error.problem) from None


def _installed() -> list[_FromEnv]:
    from importlib.metadata import entry_points

    return [point.load() for point in entry_points(group="deadletter.alerters")]


def _checked(variable: str, check: Callable[[str], Any], text: str) -> Any:
    try:
        return check(text)
    except InvalidTask as error:
        raise InvalidSetting(variable, error.problem) from None


def _dashboard(text: str) -> str:
    check_url("dashboard", text)
    return text


def _heartbeat(text: str) -> str:
    check_url("heartbeat", text)
    return text


def _summary(text: str) -> str | None:
    if text.strip().lower() == "none":
        return None
    return f"{parse_time('summary', text):%H:%M}"


def _zone(text: str) -> str:
    return parse_zone("timezone", text.strip()).key


def _quiet(text: str, zone: str) -> QuietHours:
    start, separator, end = text.partition("-")
    if not separator:
        raise InvalidTask("quiet hours", f'{text!r:.60} are no hours; write them like "22:00-07:00"')
    return QuietHours(start.strip(), end.strip(), zone)


_OPTIONS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "ALERT_TIMEZONE": ("timezone", _zone),
    "ALERT_SUMMARY_AT": ("summary_at", _summary),
    "ALERT_DASHBOARD_URL": ("dashboard", _dashboard),
    "ALERT_HEARTBEAT_URL": ("heartbeat", _heartbeat),
}
