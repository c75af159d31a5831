"""Endpoints of operations: bulk calls that answer at once and go on by themselves."""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.responses import Response

from ..engine import standing
from ..model.operation import Operation, OperationKind
from ..views import operation_item
from .access import Level
from .answers import json_answer
from .problems import Problem
from .reading import path_id
from .site import Call, Endpoint

PATH = "/api/dlq/operations"


def wants_one(call: Call) -> bool:
    """Whether the client would rather not wait (RFC 7240)."""
    given = ",".join(call.request.headers.getlist("prefer"))[:500]
    return any(part.partition(";")[0].strip().lower() == "respond-async" for part in given.split(","))


async def accepted(call: Call, kind: OperationKind, **how: Any) -> Response:
    """Order a bulk call and answer 202 with its place."""
    if how.pop("dry_run", False):
        raise Problem(400, "dry_run: only looks, and needs no operation; leave out Prefer: respond-async")
    site = call.site
    key = call.request.headers.get("idempotency-key")
    # With a key the same request is the same operation, also where the process died before it could answer.
    name = hashlib.sha256(f"{call.grant.holder} {kind} {key}".encode()).hexdigest()[:32] if key is not None else None
    ordered = await standing.order(site.seen, kind, call.query, id=name, **how)
    site.operations.start()
    headers = {"Location": call.link(f"{PATH}/{ordered.id}"), "Preference-Applied": "respond-async"}
    return json_answer(operation_item(ordered), 202, headers)


async def operations(call: Call) -> Response:
    """Those on their way and those that ended lately."""
    found = await standing.listed(call.site.queue)
    _look_after(call, *found)
    return json_answer({"operations": [operation_item(one) for one in found]})


async def operation(call: Call) -> Response:
    """How far one came."""
    found = await standing.look(call.site.queue, path_id(call))
    _look_after(call, found)
    return json_answer(operation_item(found))


async def call_off(call: Call) -> Response:
    """One does no further step."""
    return json_answer(operation_item(await standing.call_off(call.site.queue, path_id(call))))


def _look_after(call: Call, *found: Operation) -> None:
    """Whoever carried one out may be gone: who is asked about it takes care that it goes on."""
    if any(one.ended_at is None for one in found):
        call.site.operations.start()


ENDPOINTS = (
    Endpoint(method="GET", path=PATH, handler=operations, summary="Operations, newest first", answer="Operations"),
    Endpoint(
        method="GET",
        path=f"{PATH}/{{id}}",
        handler=operation,
        summary="How far an operation came",
        answer="Operation",
    ),
    Endpoint(
        method="DELETE",
        path=f"{PATH}/{{id}}",
        handler=call_off,
        summary="Call an operation off; one that has ended stays as it is",
        level=Level.WRITE,
        answer="Operation",
    ),
)
