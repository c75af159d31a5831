"""Endpoints that look: lists, search, one item, groups, stats, pauses."""

from __future__ import annotations

import re

import attrs
from starlette.responses import Response

from ..engine.alerting import monitor_seen
from ..model.errors import TaskNotFound
from ..model.query import Query
from ..model.record import TaskRecord
from ..model.task import Priority
from ..views import group_item, monitor_item, pause_item, searched_item, stats_item
from ..views import groups as see_groups
from .answers import json_answer
from .fields import QUERY, taking
from .site import Call, Endpoint

PATIENCE = 10.0  # seconds that a rare text is looked for before what was found is answered: no index finds it

_PAGE = taking(*QUERY, "task_type", "older_than_days", "limit", "cursor", "patience")
_OF_PRIORITY = {name: field for name, field in _PAGE.items() if name != "priority"}
_GROUPS = taking(*QUERY, "task_type", "older_than_days", "limit", "by")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,200}")


async def letters(call: Call) -> Response:
    """A page of what matches."""
    return await _page(call, call.query)


async def letters_of_priority(call: Call) -> Response:
    """A page of one priority."""
    priority = call.request.url.path.rpartition("/")[2]
    return await _page(call, attrs.evolve(call.query, priority=priority))


async def _page(call: Call, query: Query) -> Response:
    values = call.values
    page = await call.site.seen.list(
        query,
        cursor=values.get("cursor"),
        limit=values.get("limit", 50),
        patience=values.get("patience", PATIENCE),
    )
    shown = {
        "items": [call.site.item(record, whole=False) for record in page.items],
        "total": page.total,
        "total_at_least": page.total_at_least,
        "next_cursor": page.next_cursor,
    }
    return json_answer(shown if page.searched is None else {**shown, "searched": searched_item(page.searched)})


async def letter(call: Call) -> Response:
    """One task with its whole story."""
    return json_answer(call.site.item(await named(call)))


async def named(call: Call) -> TaskRecord:
    """The record that the path names; raises TaskNotFound."""
    return await call.site.seen.get(path_id(call))


def path_id(call: Call) -> str:
    """The id in the path; raises TaskNotFound for what can be none."""
    given = str(call.request.path_params["id"])
    if not _ID.fullmatch(given):
        raise TaskNotFound(given[:80].encode(errors="replace").decode())
    return given


async def stats(call: Call) -> Response:
    """The queue at a glance."""
    return json_answer(stats_item(await call.site.queue.stats()))


async def groups(call: Call) -> Response:
    """Dead letters by cause, largest group first."""
    query, values = call.query, call.values
    found = await see_groups(call.site.queue, call.site.viewer, query, by=values.get("by", "fingerprint"))
    return json_answer({"groups": [group_item(group) for group in found[: values.get("limit", len(found))]]})


async def pauses(call: Call) -> Response:
    """What is paused."""
    return await paused(call)


async def paused(call: Call) -> Response:
    """The pauses that stand, as an answer."""
    return json_answer({"paused": [pause_item(pause) for pause in await call.site.queue.paused()]})


async def monitor(call: Call) -> Response:
    """Who monitors the queue."""
    return json_answer({"monitor": monitor_item(await monitor_seen(call.site.queue))})


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/api/dlq",
        handler=letters,
        summary="List what matches, newest death first",
        url=_PAGE,
        answer="Page",
    ),
    *(
        Endpoint(
            method="GET",
            path=f"/api/dlq/{priority}",
            handler=letters_of_priority,
            summary=f"List what matches among priority {priority}",
            url=_OF_PRIORITY,
            answer="Page",
        )
        for priority in Priority
    ),
    Endpoint(
        method="POST",
        path="/api/dlq/search",
        handler=letters,
        summary="List what matches, newest death first",
        body=_PAGE,
        answer="Page",
    ),
    Endpoint(method="GET", path="/api/dlq/stats", handler=stats, summary="The queue at a glance", answer="Stats"),
    Endpoint(
        method="GET",
        path="/api/dlq/groups",
        handler=groups,
        summary="Dead letters by cause, largest group first",
        url=_GROUPS,
        answer="Groups",
    ),
    Endpoint(
        method="GET",
        path="/api/dlq/items/{id}",
        handler=letter,
        summary="One task with its whole story",
        answer="Item",
    ),
    Endpoint(
        method="GET",
        path="/api/dlq/monitor",
        handler=monitor,
        summary="Who monitors the queue; null where nobody ever did",
        answer="Monitor",
    ),
    Endpoint(method="GET", path="/api/dlq/pauses", handler=pauses, summary="What is paused", answer="Pauses"),
)
