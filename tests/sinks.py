"""Where alerts go in tests: a mail server and an HTTP receiver, real ones, on ports that the kernel chooses."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import attrs
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

AUTHORITY = trustme.CA()
_CERTIFICATE = AUTHORITY.issue_cert("127.0.0.1", "localhost")


def server_tls() -> ssl.SSLContext:
    """What a server with a certificate of our authority speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _CERTIFICATE.configure_cert(context)
    return context


def client_tls() -> ssl.SSLContext:
    """What trusts our authority."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


class Mailbox:
    """A mail server that keeps what it is given.

    ``answers`` are given to the next mails in turn, instead of taking them.
    """

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.logins: list[str] = []
        self.answers: list[str] = []
        self.encrypted: list[bool] = []
        self.port = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's own
        del session
        if self.answers:
            return self.answers.pop(0)
        self.mails.append(cast("EmailMessage", message_from_bytes(envelope.content, policy=policy.default)))
        self.recipients.append(envelope.rcpt_tos)
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 taken"


@contextmanager
def mail_server(
    *, starttls: bool = False, tls: bool = False, password: str | None = None, login_needs_tls: bool = True
) -> Iterator[Mailbox]:
    """A mail server on loopback; with a password it wants a login of ``user``."""
    box = Mailbox()
    made: list[SMTP] = []

    def hang_up() -> None:
        for each in made:
            if each.transport is not None:
                each.transport.abort()

    def authenticate(_: Any, __: Any, ___: Any, mechanism: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and data.login == b"user" and data.password == (password or "").encode()
        if good:
            box.logins.append(mechanism)
        return AuthResult(success=good, handled=False)

    class Server(Controller):
        def factory(self) -> SMTP:
            with warnings.catch_warnings(action="ignore"):  # a login without TLS is what some tests are about
                made.append(self._make())
            return made[-1]

        def _make(self) -> SMTP:
            return SMTP(
                box,
                hostname="localhost",
                tls_context=server_tls() if starttls else None,
                require_starttls=starttls,
                authenticator=authenticate if password else None,
                auth_required=password is not None,
                auth_require_tls=login_needs_tls and not tls,
            )

        def _trigger_server(self) -> None:
            self.port = self.server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
            super()._trigger_server()

    server = Server(box, hostname="127.0.0.1", port=0, ssl_context=server_tls() if tls else None)
    server.start()
    try:
        box.port = server.port
        yield box
    finally:
        server.loop.call_soon_threadsafe(hang_up)  # it would leave open what its clients have not closed yet
        server.stop()


@attrs.frozen
class Request:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@attrs.define
class Receiver:
    """An HTTP receiver.

    Attributes:
        answers: given in turn, the last one again and again: a status, with headers, or ``"reset"``, ``"hang"``.
    """

    url: str = ""
    requests: list[Request] = attrs.field(factory=list)
    answers: list[Any] = attrs.field(factory=list)
    gate: threading.Event = attrs.field(factory=threading.Event)
    arrived: Callable[[Request], object] = lambda _: None

    def next_answer(self) -> Any:
        """The answer to the request that has just come."""
        if not self.answers:
            return 204
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def receiver(*answers: Any, tls: bool = False) -> Iterator[Receiver]:
    """A receiver on loopback that gives these answers; what hangs, hangs until the block ends."""
    told = Receiver(answers=list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            told.requests.append(request)
            told.arrived(request)
            answer = told.next_answer()
            if answer == "hang":
                told.gate.wait()
            elif answer == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
            else:
                self._answer(*(answer if isinstance(answer, tuple) else (answer, {})))

        def _answer(self, status: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            body = b"" if status == 204 else b"SECRET of an internal service"
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing of connections that were cut."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = server_tls().wrap_socket(server.socket, server_side=True)
    told.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/alerts"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        told.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
