"""What happens, as Server-Sent Events."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from ..model.errors import DeadLetterError
from ..model.event import Event, EventKind
from ..views import event_item
from .fields import taking
from .problems import Problem
from .site import Call, Endpoint

log = logging.getLogger("deadletter.http")

_KEEP_ALIVE = 15  # seconds: below what proxies wait for
_RETRY_MS = 2000  # how long a browser waits before it asks again
_SLOWEST = 30  # seconds that a client may leave unread what it is sent
_SEQ = re.compile(r"\d{1,18}")


async def events(call: Call) -> Response:
    """Every event from now on, or from after the one that the client names."""
    last = call.request.headers.get("last-event-id", "").strip()
    if last and not _SEQ.fullmatch(last):
        raise Problem(400, "Last-Event-ID: no event has this id; leave it out")
    kinds = call.values.get("kinds", [])
    await call.site.queue.open()
    stream = _stream(call, kinds, int(last) if last else None)
    return EventSourceResponse(
        _begun(await anext(stream), stream),  # a client that has an answer misses nothing from then on
        ping=_KEEP_ALIVE,
        ping_message_factory=lambda: ServerSentEvent(comment="still here", sep="\n"),
        send_timeout=_SLOWEST,
    )


async def _stream(call: Call, kinds: list[str], after: int | None) -> AsyncGenerator[ServerSentEvent, None]:
    try:
        async with call.site.audience.listen(after) as told:
            yield ServerSentEvent(comment="listening", retry=_RETRY_MS, sep="\n")  # what happens from here on is told
            async for event in told:
                if not kinds or event.kind in kinds or event.kind is EventKind.GAP:
                    yield _told(event)
    except DeadLetterError as error:
        yield ServerSentEvent(comment="unavailable", retry=_RETRY_MS, sep="\n")  # the client asks again
        log.warning("a stream of events ends: %s", error)


async def _begun(
    first: ServerSentEvent, stream: AsyncGenerator[ServerSentEvent, None]
) -> AsyncGenerator[ServerSentEvent, None]:
    async with aclosing(stream):
        yield first
        async for event in stream:
            yield event


def _told(event: Event) -> ServerSentEvent:
    data = orjson.dumps(event_item(event)).decode()
    return ServerSentEvent(data, event=str(event.kind), id=str(event.seq) if event.seq else None, sep="\n")


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/api/dlq/events",
        handler=events,
        summary="What happens, as Server-Sent Events; Last-Event-ID goes on where a connection broke",
        url=taking("kinds"),
        answer="text/event-stream",
    ),
)
