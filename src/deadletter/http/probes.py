"""Endpoints for machines that watch: healthz, readyz, metrics."""

from __future__ import annotations

import importlib

import anyio
from starlette.responses import PlainTextResponse, Response

from ..model.errors import MissingExtra
from .site import Call, Endpoint

_PATIENCE = 5.0  # seconds that the store may take to answer a probe


async def alive(call: Call) -> Response:
    """The process answers."""
    del call
    return _word("ok")


async def ready(call: Call) -> Response:
    """The store answers, too."""
    try:
        with anyio.fail_after(_PATIENCE):
            await call.site.queue.open()
            await call.site.queue.backend.inspect()
    except Exception:  # whatever it is: this process cannot serve now, and a stranger is told no more
        return _word("unavailable", 503)
    return _word("ok")


def _word(word: str, status: int = 200) -> Response:
    return PlainTextResponse(word, status, {"Cache-Control": "no-store"})


async def metrics(call: Call) -> Response:
    """Figures for Prometheus; raises MissingExtra."""
    try:
        rendering = importlib.import_module("deadletter.metrics")
    except ModuleNotFoundError as error:
        if error.name not in ("deadletter.metrics", "prometheus_client"):
            raise
        raise MissingExtra("metrics", "/metrics") from None
    body, media_type = await rendering.exposition(call.site.queue, call.request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/healthz",
        handler=alive,
        summary="Whether this process answers",
        level=None,
        url=None,
        answer="text/plain",
    ),
    Endpoint(
        method="GET",
        path="/readyz",
        handler=ready,
        summary="Whether the store answers",
        level=None,
        url=None,
        answer="text/plain",
    ),
    Endpoint(
        method="GET",
        path="/metrics",
        handler=metrics,
        summary="Figures for Prometheus",
        url=None,
        answer="text/plain",
    ),
)
