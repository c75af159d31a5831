"""Endpoints that change: retry, retry-all, purge, erase, delete one, pause, resume."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ..model.errors import NotDead
from ..model.query import Query
from ..views import bulk_item, timestamp
from . import operating
from .access import Level
from .answers import json_answer
from .fields import QUERY, taking
from .problems import Problem
from .reading import path_id, paused
from .site import Call, Endpoint

CUTOFF = "Deadletter-Cutoff"

_BULK = taking(*QUERY, "task_type", "older_than_days", "rate", "dry_run", "everything", "cutoff", limit="at_most")
_PURGE = {**_BULK, **taking("why")}
_ERASE = {name: field for name, field in _PURGE.items() if name != "cutoff"}
_RETRY = taking("task_id", "reset_attempts", "delay", "why", payload="edited_payload", type="edited_type")


async def retry(call: Call) -> Response:
    """A dead letter goes back to pending, optionally edited."""
    values = dict(call.values)
    if "payload" in values or "type" in values:
        call.need(Level.ADMIN, "an edit")
    task_id = values.pop("task_id")
    await call.site.queue.retry(task_id, **values)
    return json_answer({"task_id": task_id, "state": "pending"})


async def retry_all(call: Call) -> Response:
    """All letters that match go back to pending."""
    query = bulk_query(call)
    if operating.wants_one(call):
        return await operating.accepted(call, "retry-all", **_how(call))
    result = await call.site.seen.retry_all(query, **_how(call))
    return json_answer(bulk_item(result))


async def purge(call: Call) -> Response:
    """All letters that match are deleted."""
    query = bulk_query(call)
    if operating.wants_one(call):
        return await operating.accepted(call, "purge", **_how(call), why=call.values.get("why"))
    result = await call.site.seen.purge(query, **_how(call), why=call.values.get("why"))
    cutoff = timestamp(result.cutoff) or ""
    return json_answer({"matched": result.matched, "changed": result.changed}, headers={CUTOFF: cutoff})


async def erase(call: Call) -> Response:
    """Every trace of all tasks that match is deleted."""
    query, why = bulk_query(call), call.values.get("why")
    if operating.wants_one(call):
        return await operating.accepted(call, "erase", **_how(call), why=why)
    return json_answer(bulk_item(await call.site.seen.erase(query, **_how(call), why=why)))


def bulk_query(call: Call) -> Query:
    """The conditions of a bulk call; raises Problem 400 where there is none, and nothing else narrows it."""
    query = call.query
    if not (query.has_condition or call.values.get("limit") is not None or call.values.get("everything")):
        raise Problem(400, 'there is no condition; narrow it, give a limit, or say "everything"')
    return query


def _how(call: Call) -> dict[str, Any]:
    values = call.values
    return {name: values[name] for name in ("limit", "rate", "dry_run", "everything", "cutoff") if name in values}


async def cancel(call: Call) -> Response:
    """One pending task is deleted."""
    task_id = call.values["task_id"]
    if not await call.site.queue.cancel(task_id):
        raise Problem(409, f"task {task_id!r} is not pending (any more)", kind="not-pending")
    return json_answer({"task_id": task_id, "state": "cancelled"})


async def delete(call: Call) -> Response:
    """One letter is deleted."""
    task_id = path_id(call)
    queue = call.site.queue
    result = await queue.purge(Query(ids=[task_id]))
    if not result.changed:
        record = await queue.get(task_id)
        raise NotDead(task_id, str(record.state))
    return Response(status_code=204)


async def pause(call: Call) -> Response:
    """No worker claims these types until they are resumed."""
    await call.site.queue.pause(call.values["types"], why=call.values["why"])
    return await paused(call)


async def resume(call: Call) -> Response:
    """These types are claimed again."""
    await call.site.queue.resume(call.values.get("types", "*"))
    return await paused(call)


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/api/dlq/retry",
        handler=retry,
        summary="Send a dead letter back to pending, optionally edited",
        level=Level.WRITE,
        body=_RETRY,
        required=("task_id",),
        answer="Retried",
    ),
    Endpoint(
        method="POST",
        path="/api/dlq/retry-all",
        handler=retry_all,
        summary="Send all letters that match back to pending, oldest death first",
        level=Level.WRITE,
        body=_BULK,
        answer="BulkResult",
        may_respond_async=True,
    ),
    Endpoint(
        method="DELETE",
        path="/api/dlq/purge",
        handler=purge,
        summary="Delete all letters that match",
        level=Level.ADMIN,
        url=_PURGE,
        answer="Purged",
        may_respond_async=True,
    ),
    Endpoint(
        method="POST",
        path="/api/dlq/erase",
        handler=erase,
        summary="Delete every trace of all tasks that match, in every state: for deletion requests",
        level=Level.ADMIN,
        body=_ERASE,
        answer="BulkResult",
        may_respond_async=True,
    ),
    Endpoint(
        method="DELETE",
        path="/api/dlq/items/{id}",
        handler=delete,
        summary="Delete one letter",
        level=Level.ADMIN,
        status=204,
        answer="",
    ),
    Endpoint(
        method="POST",
        path="/api/dlq/cancel",
        handler=cancel,
        summary="Delete a pending task",
        level=Level.WRITE,
        body=taking("task_id"),
        required=("task_id",),
        answer="Cancelled",
    ),
    Endpoint(
        method="POST",
        path="/api/dlq/pause",
        handler=pause,
        summary="Let no worker claim these types",
        level=Level.WRITE,
        body=taking("types", "why"),
        required=("types", "why"),
        answer="Pauses",
    ),
    Endpoint(
        method="POST",
        path="/api/dlq/resume",
        handler=resume,
        summary="Lift the pause of these types, and of those that they cover",
        level=Level.WRITE,
        body=taking("types", "why"),
        answer="Pauses",
    ),
)
