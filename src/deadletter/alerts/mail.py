"""Alerts by mail."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import socket
import ssl
from collections.abc import Sequence
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any, Literal, TypeAlias

from ..interfaces.alerter import Alert, Alerter
from ..model.errors import InvalidTask, MissingExtra
from ..model.outcome import PermanentError
from ..model.task import Duration, seconds
from .foreign_loop import in_asyncio
from .plain_text import clean
from .posting import NotDelivered
from .rendering import as_html, as_text
from .story import story
from .webhook import check_channel

Security: TypeAlias = Literal["auto", "starttls", "tls", "plain"]

log = logging.getLogger("deadletter.alerts")

_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@[^\s@<>,;:\"()\[\]\\]{1,255}")
_SUBJECT = 180


class EmailAlerter(Alerter):
    """Sends mail with a text and an HTML part. A delivery that is repeated keeps its Message-ID.

    Args:
        host, port: the mail server's. Default port: 587, with ``security="tls"`` 465.
        to: one address or several.
        username, password: a login; without them nobody logs in.
        sender: the From address; default: the username where it is an address, else the first recipient.
        security: ``"starttls"`` insists on STARTTLS, ``"tls"`` speaks TLS from the start, ``"plain"`` has no TLS.
            ``"auto"``: TLS on port 465; elsewhere STARTTLS, which only a server on this machine may lack.
        tls: how the server's certificate is checked; default: by the system's authorities.
        name: the channel's name in metrics, routes and logs.
        timeout: of each step of a delivery.

    Raises:
        InvalidTask: names the argument.
        MissingExtra: aiosmtplib is not installed.
    """

    def __init__(
        self,
        host: str,
        to: str | Sequence[str],
        *,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        sender: str | None = None,
        security: Security = "auto",
        tls: ssl.SSLContext | None = None,
        name: str = "email",
        timeout: Duration = 20,
    ) -> None:
        try:
            import aiosmtplib as _  # noqa: F401 - a missing library is told now, and not at the first death
        except ModuleNotFoundError:
            raise MissingExtra("alerts", "EmailAlerter") from None
        if security not in ("auto", "starttls", "tls", "plain"):
            raise InvalidTask("security", f'{security!r:.40} is not one of "auto", "starttls", "tls", "plain"')
        if not isinstance(host, str) or not host or not host.isprintable() or " " in host:
            raise InvalidTask("host", f"{host!r:.80} is no mail server; give its name or address")
        if (username is None) != (password is None):
            raise InvalidTask("username", "give both a username and a password, or neither")
        self._host, self._port = host, _port(port, security)
        self._security = "tls" if security == "auto" and self._port == 465 else security
        self._login = (username, password) if username is not None and password is not None else None
        self._to = [_address("to", each) for each in ([to] if isinstance(to, str) else to)]
        if not self._to:
            raise InvalidTask("to", "there is nobody to write to; give an address")
        own = username if username is not None and _ADDRESS.fullmatch(username) else self._to[0]
        self._sender = _address("sender", sender or own)
        self._tls, self._timeout = tls, seconds("timeout", timeout)
        self._channel = check_channel(name)

    @property
    def channel(self) -> str:
        """Its name in logs and metrics."""
        return self._channel

    def __repr__(self) -> str:
        return f"<EmailAlerter {self._channel!r} through {self._host}:{self._port}>"

    def message(self, alert: Alert) -> EmailMessage:
        """The mail."""
        told = story(alert)
        mail = EmailMessage(policy=SMTP)
        where = "" if alert.queue == "default" else f" {clean(alert.queue, 40)}"
        mail["Subject"] = clean(f"[deadletter{where}] {told.title}", _SUBJECT)
        mail["From"] = Address("deadletter", addr_spec=self._sender)
        mail["To"] = [Address(addr_spec=each) for each in self._to]
        mail["Date"] = alert.at
        mail["Message-ID"] = f"<{re.sub(r'[^A-Za-z0-9.-]', '-', alert.id)}@{self._sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Deadletter-Kind"] = clean(alert.kind, 60)
        mail.set_content(as_text(told), cte="quoted-printable")
        mail.add_alternative(as_html(told), subtype="html", cte="quoted-printable")
        return mail

    async def send(self, alert: Alert) -> None:
        """Deliver it. Raises PermanentError where the server will never take it, else NotDelivered.

        Of the server's words only the code is repeated.
        """
        mail = self.message(alert)
        await in_asyncio(lambda: self._send(mail))

    async def _send(self, mail: EmailMessage) -> None:
        import aiosmtplib

        place = f"{self._host}:{self._port}"
        client = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            timeout=self._timeout,
            use_tls=self._security == "tls",
            start_tls=False,
            tls_context=self._tls,
            local_hostname=socket.gethostname() or "localhost",  # the library's own way asks DNS, and may wait for it
        )
        try:
            await client.connect()
            await client.ehlo()
            await self._secure(client, place)
            await self._log_in(client)
            refused, _ = await client.send_message(mail)
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):  # the mail is taken, whatever becomes of this
                await client.execute_command(b"QUIT")
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _judged(place, max(each.code for each in error.recipients), "refused the recipients") from None
        except aiosmtplib.SMTPAuthenticationError as error:
            raise _judged(place, error.code, "refused the login") from None
        except aiosmtplib.SMTPResponseException as error:
            raise _judged(place, error.code, "refused the mail") from None
        except ssl.SSLError as error:
            raise NotDelivered(f"{place}: TLS failed: {error.reason or type(error).__name__}") from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise NotDelivered(f"{place}: {_told(error)}") from None
        finally:
            await _hang_up(client)
        if refused:
            log.warning("%s took the mail, but not for %d of %d recipients", place, len(refused), len(self._to))

    async def _secure(self, client: Any, place: str) -> None:
        if self._security in ("plain", "tls"):
            return
        if client.supports_extension("starttls"):
            await client.starttls(tls_context=self._tls)
            await client.ehlo()
        elif self._security == "starttls" or not _is_loopback(client):
            raise NotDelivered(f'{place} offers no STARTTLS; only security="plain" sends without (SMTP_SECURITY)')

    async def _log_in(self, client: Any) -> None:
        if self._login is None:
            return
        if client.supports_extension("auth") or not _is_loopback(client):
            await client.login(*self._login)
        # A relay on this machine that asks nobody for a login needs none.


async def _hang_up(client: Any) -> None:
    transport = client.transport
    client.close()
    if transport is not None:
        transport.abort()
    for _ in range(3):  # rounds in which the loop, which may end with us, closes the socket
        await asyncio.sleep(0)


def _told(error: BaseException) -> str:
    text = getattr(error, "strerror", None)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _judged(place: str, code: int, what: str) -> Exception:
    why = f"{place} {what} ({code})"
    return PermanentError(why) if 500 <= code < 600 else NotDelivered(why)


def _is_loopback(client: Any) -> bool:
    peer = client.get_transport_info("peername")
    try:
        return bool(peer) and ipaddress.ip_address(peer[0]).is_loopback
    except ValueError:
        return False


def _port(port: object, security: str) -> int:
    if port is None:
        return {"tls": 465, "plain": 25}.get(security, 587)
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise InvalidTask("port", f"{port!r:.40} is no port; give 1 to 65535")
    return port


def _address(field: str, text: object) -> str:
    if not isinstance(text, str) or not text.isprintable() or _ADDRESS.fullmatch(text) is None:
        raise InvalidTask(field, f"{text!r:.80} is no mail address")
    return text
