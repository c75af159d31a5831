"""Commands around the server: serve, open."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import webbrowser
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any

from cyclopts import Parameter

from ..model.errors import MissingExtra
from ..settings import api_tokens
from .exits import DONE, BadUse
from .flags import Flags, Switch, Target, Texts
from .logs import LogForm, log_to_stderr
from .output import emit, harmless, say
from .remote import RemoteQueue
from .session import make_queue, server_url

PORT = 5002
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PATIENCE = 5  # seconds that open requests have when the server stops


async def serve(
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    allowed_host: Texts = (),
    insecure: Switch = False,
    log_form: Annotated[LogForm | None, Parameter(name="--log")] = None,
    target: Target | None = None,
) -> int:
    """Serve the HTTP API and the dashboard until SIGTERM or SIGINT.

    Example: deadletter serve --url sqlite:///shop.db --port 5002

    DEADLETTER_API_TOKENS (or a file that DEADLETTER_API_TOKENS_FILE names) holds who may do what, such as
    read:TOKEN,admin:TOKEN. Without it only this machine is served.

    Args:
        host: The address to listen on; one that other machines reach wants tokens.
        port: 0 takes any that is free.
        allowed_host: A name that this server is reached by, beside localhost; may be given again.
        insecure: Let everybody who reaches it do everything, where there are no tokens.
        log_form: How to log on stderr (default: plain on a terminal, else json).
    """
    try:
        import uvicorn

        from ..http import create_app
        from ..http.access import Tokens
    except ModuleNotFoundError as error:
        if error.name != "uvicorn":
            raise
        raise MissingExtra("http", "deadletter serve") from None
    if not 0 <= port <= 65535:
        raise BadUse(f"--port: {port} is no port; give 1 to 65535, or 0 for any that is free")
    setting, text = api_tokens(os.environ)
    tokens = None if text is None else Tokens(text, setting=setting)
    if tokens is None and not insecure and not _is_loopback(host):
        raise BadUse(
            f"--host: other machines reach {host}, and there are no tokens; set DEADLETTER_API_TOKENS, or say --insecure"
        )
    target = target or Target()
    if server_url(target) is not None:
        raise BadUse(f"--url: {server_url(target)} is a server already; give the URL of a store")
    queue = make_queue(target, create=True)
    app = create_app(
        queue,
        tokens=tokens,
        authorize=(lambda _: "admin") if insecure and tokens is None else None,
        allowed_hosts=[host, *allowed_host],
    )
    log_to_stderr(log_form)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # what it tells of its start, our own line says
    try:
        await queue.open()
        with _listen(host, port) as listening:
            place = f"deadletter: serving {_address(listening)} (queue {queue.name!r} on {queue.backend.url})"
            await _serve(uvicorn, app, listening, lambda: say(place))
    finally:
        await queue.aclose()
    return DONE


async def open_(*, flags: Flags | None = None) -> int:
    """Open a server's dashboard in the browser.

    Example: deadletter open --url http://127.0.0.1:5002
    """
    flags = flags or Flags()
    url = server_url(flags) or (f"http://127.0.0.1:{PORT}" if flags.url is None else None)
    if url is None:
        raise BadUse(f"--url: {flags.url} is a store; start deadletter serve on it and give the server's URL")
    remote = RemoteQueue.from_env(url)
    try:
        await remote.probe()
    finally:
        await remote.aclose()
    page = f"{remote.backend.url}/"
    opened = webbrowser.open(page)
    if flags.json:
        emit({"url": page, "opened": opened})
    else:
        print(harmless(page))
    return DONE


async def _serve(uvicorn: Any, app: Any, listening: socket.socket, tell: Callable[[], object]) -> None:
    class Server(uvicorn.Server):  # type: ignore[misc] # uvicorn is imported by the command alone
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            tell()  # from here on requests are answered and signals are obeyed

    config = uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever is let in is judged by the connection
        timeout_graceful_shutdown=_PATIENCE,
    )
    before = {number: signal.signal(number, _heard) for number in _SIGNALS}  # uvicorn raises again what it took
    try:
        await Server(config).serve(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heard(number: int, frame: FrameType | None) -> None:
    """A signal that uvicorn has obeyed already."""


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.set_inheritable(False)
        except BaseException:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise BadUse(f"--host, --port: cannot listen on {host} port {port}: {said}") from None
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
