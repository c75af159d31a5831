"""The application, assembled."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.types import Receive, Scope, Send

from ..engine.alerting import Absence
from ..engine.queue import DeadLetterQueue
from ..model.errors import BackendError
from . import changing, dashboard, events, openapi, operating, probes, reading, reference
from .access import Access, Authorize, Tokens, TokensLike
from .background import Background
from .door import Door, Hosts
from .problems import Problem
from .resources import routes
from .site import Endpoint, Site

log = logging.getLogger("deadletter.http")

_WATCH = 60.0  # seconds between looks after the monitor


def endpoints() -> list[Endpoint]:
    """Every endpoint, in the order in which paths are matched."""
    return [
        *reading.ENDPOINTS,
        *changing.ENDPOINTS,
        *operating.ENDPOINTS,
        *events.ENDPOINTS,
        *probes.ENDPOINTS,
        *openapi.ENDPOINTS,
        *reference.ENDPOINTS,
        *dashboard.endpoints(),
    ]


def create_app(
    dlq: DeadLetterQueue,
    *,
    tokens: TokensLike | Tokens | None = None,
    authorize: Authorize | None = None,
    allowed_hosts: Iterable[str] | None = None,
) -> Starlette:
    """The HTTP API and dashboard of a queue as an ASGI application, alone or mounted in another.

    It opens the queue at its first use and never closes it. With neither tokens nor ``authorize`` it serves only peers
    on this machine.

    Args:
        tokens: ``"read:TOKEN,write:TOKEN,admin:TOKEN"``, a list of such entries or pairs, or a mapping of scopes to
            tokens; sent as Bearer, or as the password of Basic.
        authorize: asked with the ASGI scope of each request; answers "read", "write", "admin" or None (also awaited).
        allowed_hosts: names that requests may be meant for, beside those of this machine; ``*.example.com`` is any name
            below, ``*`` any at all.

    Raises:
        InvalidSetting: names what cannot be used, and never shows a token.
    """
    access = Access(tokens if isinstance(tokens, Tokens) or tokens is None else Tokens(tokens), authorize)
    site = Site.of(dlq, access)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = Background(partial(_watch, dlq))
        watching.start()
        site.operations.start()  # those that an earlier process left
        site.samples.start()
        try:
            yield
        finally:
            await watching.stop()
            await site.samples.stop()
            await site.operations.stop()

    app = Starlette(
        routes=routes(site, endpoints()),
        middleware=[Middleware(Door, access=access, hosts=Hosts(allowed_hosts))],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.router.default = _nothing_here
    app.state.site = site
    return app


async def _watch(dlq: DeadLetterQueue) -> None:
    """Tell the log where the queue has lost its monitor."""
    absence = Absence(dlq)
    while True:
        try:
            await absence.look()
        except BackendError as error:
            log.debug("cannot look for the monitor: %s", error)
        await dlq.clock.sleep(_WATCH)


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    root = scope.get("root_path", "")
    if root and scope["path"] == root:  # mounted, and asked for without a slash: links of a page would lead elsewhere
        await RedirectResponse(f"{root}/")(scope, receive, send)
        return
    raise Problem(404, "there is nothing at this path; /docs lists what there is")
