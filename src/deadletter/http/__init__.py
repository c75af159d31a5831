"""The HTTP API: ``create_app(dlq)`` is an ASGI application.

A request passes the door (``door``: hosts, access, origin, security headers, problems), then the route of its path
(``resources``: method, scope, fields of URL and body, Idempotency-Key, ETag), then a handler. ``app`` assembles the
endpoints that each room of handlers lists; ``fields`` and ``asking`` read what a request says, for all of them.
"""

from __future__ import annotations

from ..model.errors import MissingExtra

try:
    from .app import create_app
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"starlette", "sse_starlette", "jinja2"}:
        raise
    raise MissingExtra("http", "deadletter.http") from None

__all__ = ["create_app"]
