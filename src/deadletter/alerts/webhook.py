"""Alerts as JSON to a URL, signed as Standard Webhooks, or as CloudEvents."""

from __future__ import annotations

import binascii
import re
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

import orjson

from ..interfaces.alerter import Alert, Alerter
from ..model.errors import InvalidTask, MissingExtra
from ..model.task import Duration, seconds
from .posting import check_url, post

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,50}")


def check_channel(name: object) -> str:
    """The name of a channel; raises InvalidTask for what is none."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InvalidTask("name", f"{name!r:.60} is no channel; give 1-50 of [A-Za-z0-9_.-]")
    return name


class WebhookAlerter(Alerter):
    """POSTs ``{"type": "deadletter.<kind>", "timestamp": ..., "data": {...}}``.

    With a secret each request is signed as https://www.standardwebhooks.com asks: ``webhook-id`` (the alert's id: a
    delivery that is repeated keeps it), ``webhook-timestamp`` and ``webhook-signature``.

    Args:
        url: http:// or https://; it may hold a user and password. Link-local and metadata addresses are refused.
        secret: ``whsec_...``, or several while one is being replaced: each signs.
        format: ``"standard"``, or ``"cloudevents"`` for a CloudEvents 1.0 structured message.
        name: the channel's name in metrics, routes and logs.
        timeout: how long a delivery may take.
        tls: how the receiver's certificate is checked; default: by the system's authorities.

    Raises:
        InvalidTask: names the argument; neither URL nor secret is ever shown.
    """

    def __init__(
        self,
        url: str,
        secret: str | Sequence[str] | None = None,
        *,
        format: Literal["standard", "cloudevents"] = "standard",
        name: str = "webhook",
        timeout: Duration = 20,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = check_url("url", url)
        self._channel = check_channel(name)
        if format not in ("standard", "cloudevents"):
            raise InvalidTask("format", f'{format!r:.60} is not one of "standard", "cloudevents"')
        self._format = format
        self._timeout = seconds("timeout", timeout)
        self._tls = tls
        self._signers = [_signer(each) for each in ([secret] if isinstance(secret, str) else secret or ())]

    @property
    def channel(self) -> str:
        """Its name in logs and metrics."""
        return self._channel

    def __repr__(self) -> str:
        return f"<WebhookAlerter {self._channel!r} to {self._url.host}>"

    async def send(self, alert: Alert) -> None:
        """Deliver it, or raise; an error shows the host and the status, and never the answer."""
        body = orjson.dumps(self._document(alert), option=orjson.OPT_UTC_Z, default=str)
        headers = {"Content-Type": "application/json"}
        if self._format == "cloudevents":
            headers["Content-Type"] = "application/cloudevents+json"
        if self._signers:
            headers |= _signed(self._signers, alert.id, body)
        await post(self._url, body, headers, timeout=self._timeout, tls=self._tls)

    def _document(self, alert: Alert) -> dict[str, Any]:
        timestamp = alert.at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        data = {"id": alert.id, "queue": alert.queue, "title": alert.title, **alert.data}
        if self._format == "cloudevents":
            return {
                "specversion": "1.0",
                "id": alert.id,
                "source": f"/deadletter/{quote(alert.queue, safe='')}",
                "type": f"deadletter.{alert.kind}",
                "time": timestamp,
                "datacontenttype": "application/json",
                "data": data,
            }
        return {"type": f"deadletter.{alert.kind}", "timestamp": timestamp, "data": data}


def _signer(secret: object) -> Any:
    try:
        from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook
    except ModuleNotFoundError:
        raise MissingExtra("alerts", "signing webhooks") from None
    try:
        return Webhook(str(secret))
    except (EmptyWebhookSecretError, binascii.Error, ValueError):
        raise InvalidTask(
            "secret", "it is no webhook secret; give whsec_ and base64 of 24 to 64 random bytes"
        ) from None


def _signed(signers: Sequence[Any], id_: str, body: bytes) -> dict[str, str]:
    # In UTC and as text: the library relabels another zone, and signs the repr of bytes.
    now = datetime.now(UTC)
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signer.sign(msg_id=id_, timestamp=now, data=body.decode()) for signer in signers),
    }
