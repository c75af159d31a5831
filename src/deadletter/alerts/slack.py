"""Alerts in Slack, as Block Kit."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

import orjson

from ..interfaces.alerter import Alert, Alerter
from ..model.task import Duration, seconds
from .plain_text import clean
from .posting import check_url, post
from .story import Story, story
from .webhook import check_channel

_HEADER, _SECTION, _FIELD = 150, 2_900, 300
_SIGNS = {
    "bad": ":red_circle:",
    "warn": ":large_orange_circle:",
    "good": ":large_green_circle:",
    "calm": ":white_circle:",
}
_PLAIN = str.maketrans("<>", "‹›")  # where Slack escapes nothing, nothing may look like a mention
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class SlackAlerter(Alerter):
    """POSTs to an incoming webhook of Slack, or of what speaks its language (Mattermost, Rocket.Chat).

    Args:
        url: the incoming webhook's; it is a secret, and never shown.
        name: the channel's name in metrics, routes and logs.
        timeout: how long a delivery may take.
        tls: how the receiver's certificate is checked.

    Raises:
        InvalidTask: names the argument.
    """

    def __init__(
        self, url: str, *, name: str = "slack", timeout: Duration = 20, tls: ssl.SSLContext | None = None
    ) -> None:
        self._url = check_url("url", url)
        self._channel = check_channel(name)
        self._timeout = seconds("timeout", timeout)
        self._tls = tls

    @property
    def channel(self) -> str:
        """Its name in logs and metrics."""
        return self._channel

    def __repr__(self) -> str:
        return f"<SlackAlerter {self._channel!r} to {self._url.host}>"

    async def send(self, alert: Alert) -> None:
        """Deliver it, or raise."""
        body = orjson.dumps(message(story(alert)))
        await post(self._url, body, {"Content-Type": "application/json"}, timeout=self._timeout, tls=self._tls)


def message(told: Story) -> dict[str, Any]:
    """A story as Slack's JSON: ``text`` for notifications, ``blocks`` for the channel."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": clean(told.title, _HEADER).translate(_PLAIN)}}
    ]
    blocks.append(_section(f"{_SIGNS[told.tone]} {_escaped(told.lead or told.title)}"))
    if told.message:
        blocks.append(_section(_fenced(told.message)))
    blocks += _facts(told.facts)
    if told.items:
        lines = "\n".join(f"• {_escaped(item)}" for item in told.items)
        blocks.append(_section(f"*{_escaped(told.items_label)}*\n{lines}"))
    if told.commands:
        blocks.append(_section("\n".join(f"{_escaped(label)}\n{_fenced(command)}" for label, command in told.commands)))
    buttons = [
        {"type": "button", "text": {"type": "plain_text", "text": clean(f"Open {label}", 75)}, "url": url}
        for label, url in told.links
        if len(url) <= 3_000
    ]
    if buttons:
        blocks.append({"type": "actions", "elements": buttons[:5]})
    return {"text": _escaped(told.title), "blocks": blocks}


def _facts(facts: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Two columns; Slack takes ten fields a section."""
    fields = [{"type": "mrkdwn", "text": f"*{_escaped(label)}*\n{_escaped(value)[:_FIELD]}"} for label, value in facts]
    return [{"type": "section", "fields": fields[at : at + 10]} for at in range(0, len(fields), 10)]


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text if len(text) <= _SECTION else _shortened(text)}}


def _shortened(text: str) -> str:
    kept = text[:_SECTION].rsplit("\n", 1)[0]
    return f"{kept}\n…" + ("\n```" if kept.count("```") % 2 else "")


def _fenced(text: str) -> str:
    # A fence inside would end the block, and what follows it could mention people.
    return f"```{_escaped(text.replace('```', '` ` `'))}```"


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
