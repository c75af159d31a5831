"""What every request passes on its way in, and every answer on its way out: hosts, access, origin, headers, problems."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Access, Grant
from .mounting import placed
from .problems import Problem, problem_of

log = logging.getLogger("deadletter.http")

GRANT = "deadletter.grant"  # key of the ASGI scope
OPEN = frozenset({"/healthz", "/readyz"})  # any host, no token
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,255})(?::(\d{1,5}))?", re.IGNORECASE)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Hosts:
    """The names that a request may be meant for: else a page elsewhere could reach us under a name of its own."""

    def __init__(self, allowed: Iterable[str] | None = None) -> None:
        names = [allowed] if isinstance(allowed, str) else list(allowed or ())
        self._any = "*" in names
        self._names = {"localhost"}
        self._endings: list[str] = []
        for name in names:
            bare = _bare(name)
            if bare.startswith("*."):
                self._endings.append(bare[1:])
            else:
                self._names.add(bare)

    def check(self, scope: Scope) -> str:
        """The host as it was asked for (with its port); raises Problem 400 or 421."""
        given = Headers(scope=scope).getlist("host")
        found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if found is None:
            raise Problem(400, "the Host header is missing, given twice or no host; send one, such as localhost:5002")
        name = _bare(found[1])
        if not (self._any or name in self._names or name.endswith(tuple(self._endings)) or _is_ours(name, scope)):
            raise Problem(421, f"{name} is no name of this server; start it with --allowed-host {name}")
        return given[0].lower()


def _bare(name: str) -> str:
    found = _HOST.fullmatch(name)
    return (found[1] if found else name).strip("[]").rstrip(".").lower()


def _is_ours(name: str, scope: Scope) -> bool:
    """Whether it is a loopback address, or the one that the connection came to: no foreign name resolves to it here."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    server = scope.get("server")
    return address.is_loopback or (server is not None and name == str(server[0]).lower())


def check_origin(scope: Scope, host: str) -> None:
    """Refuse a write that another site's page sends; raises Problem 403."""
    headers = Headers(scope=scope)
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise Problem(403, f"a {site[:20]} page may change nothing here")
    for origin in headers.getlist("origin"):
        scheme, _, place = origin.lower().partition("://")
        if scheme not in ("http", "https") or place != host:
            raise Problem(403, f"a page of {origin[:100]} may change nothing here; let a proxy keep the Host header")


class Door:
    """The ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, *, access: Access, hosts: Hosts) -> None:
        self._app, self._access, self._hosts = app, access, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer why not."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "there is no WebSocket here"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, scope = False, placed(scope)

        async def dressed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._admit(scope)
            await self._app(scope, receive, dressed)
        except Exception as error:
            problem = _told(error)
            if begun:  # half an answer is out: cut it off
                raise
            await problem.response(place(scope))(scope, receive, dressed)

    async def _admit(self, scope: Scope) -> None:
        if scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) in OPEN:
            return
        host = self._hosts.check(scope)
        scope[GRANT] = await self._access.grant(scope)
        if scope["method"] not in _SAFE:
            check_origin(scope, host)


def grant_of(scope: Any) -> Grant:
    """What the door granted."""
    grant: Grant = scope[GRANT]
    return grant


def place(scope: Scope) -> str:
    """The path that was asked for, without its query, which may hold what is nobody's business."""
    return str(scope["path"])[:500].encode(errors="replace").decode()


def _told(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return Problem(error.status_code, error.detail, headers=error.headers)
    known = problem_of(error)
    if known is None:
        log.error("a request failed unexpectedly", exc_info=error)
        return Problem(500, "this is a mistake of the server, and its log says more")
    if known.status >= 500:
        log.warning("a request could not be answered: %s", error)
    return known
