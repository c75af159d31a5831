"""Bulk calls that answer at once: Prefer: respond-async."""

from __future__ import annotations

import re

import anyio
import pytest

from deadletter import Query, Task
from deadletter.engine import standing
from deadletter.http import create_app

from .clients import SECRET, TOKENS, client_of

pytestmark = pytest.mark.anyio

ASYNC = {"Prefer": "respond-async, wait=1"}


async def ended(client, place) -> dict:
    with anyio.fail_after(10):
        while True:
            told = (await client.get(place)).json()
            if told["ended_at"] is not None:
                return told
            await anyio.sleep(0.01)


async def test_a_bulk_retry_goes_on_by_itself(client, dlq):
    response = await client.post("/api/dlq/retry-all", json={"type": "email.*"}, headers=ASYNC)
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    place = response.headers["location"]
    assert place == f"/api/dlq/operations/{response.json()['id']}"
    told = await ended(client, place)
    assert (told["kind"], told["state"], told["total"], told["changed"]) == ("retry-all", "done", 2, 2)
    assert told["query"] == {"type": "email.*", "state": "dead"}
    assert (await client.get("/api/dlq/operations")).json() == {"operations": [told]}
    assert (await dlq.stats()).by_state["dead"] == 1


async def test_a_purge_too(client, dlq):
    response = await client.delete("/api/dlq/purge?type=report&why=old", headers=ASYNC)
    told = await ended(client, response.headers["location"])
    assert (told["kind"], told["why"], told["changed"]) == ("purge", "old", 1)


async def test_an_erase_too(client, dlq):
    """In every state, with a count before; what it was ordered by is not kept."""
    await dlq.enqueue(Task(type="report", delay=99))
    body = {"type": "report", "payload": {"n": 0}}
    counted = await client.post("/api/dlq/erase", json={**body, "dry_run": True})
    assert (counted.status_code, counted.json()["matched"], counted.json()["changed"]) == (200, 1, 0)
    response = await client.post("/api/dlq/erase", json={"type": "report", "why": "asked for"}, headers=ASYNC)
    told = await ended(client, response.headers["location"])
    assert (told["kind"], told["why"], told["total"], told["changed"]) == ("erase", "asked for", 2, 2)
    assert (await dlq.stats()).by_state["pending"] == 0
    now = await client.post("/api/dlq/erase", json={"type": "email.send", "limit": 1, "rate": 50})
    assert (now.json()["matched"], now.json()["changed"]) == (1, 1)
    for refused in ({}, {"type": "x", "cutoff": "2026-01-01T00:00:00Z"}, {"type": "x", "rate": 0}):
        assert (await client.post("/api/dlq/erase", json=refused)).status_code == 400, refused


async def test_hidden_values_erase_nothing_over_http(client, dlq):
    """A condition answers no guesses; on the command line they match."""
    body = {"payload": {"password": SECRET}}
    assert (await client.post("/api/dlq/erase", json=body)).json()["changed"] == 0
    assert (await client.post("/api/dlq/erase", json={"error_contains": SECRET})).json()["changed"] == 0


async def test_one_is_cancelled(client, dlq):
    response = await client.post("/api/dlq/retry-all", json={"limit": 3, "rate": 0.01}, headers=ASYNC)
    place = response.headers["location"]
    cancelled = await client.delete(place)
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert (await client.delete(place)).json()["state"] == "cancelled"
    assert (await dlq.stats()).by_state["dead"] >= 2


async def test_what_an_earlier_process_left_goes_on_where_somebody_asks(client, dlq):
    ordered = await standing.order(dlq, "retry-all", Query(type="report"))
    assert (await ended(client, f"/api/dlq/operations/{ordered.id}"))["changed"] == 1


async def test_what_an_earlier_process_left_goes_on_at_the_start(dlq):
    ordered = await standing.order(dlq, "retry-all", Query(type="report"))
    app = create_app(dlq)
    async with app.router.lifespan_context(app):
        with anyio.fail_after(10):
            while (await standing.look(dlq, ordered.id)).ended_at is None:
                await anyio.sleep(0.01)


async def test_the_end_of_the_application_gives_back_what_it_works_on(dlq):
    app = create_app(dlq)
    async with app.router.lifespan_context(app):
        client = client_of(app)
        response = await client.post("/api/dlq/retry-all", json={"limit": 3, "rate": 0.05}, headers=ASYNC)
        operation = response.json()["id"]
        with anyio.fail_after(10):
            while (await standing.look(dlq, operation)).state != "running":
                await anyio.sleep(0.01)
    assert (await standing.look(dlq, operation)).state == "pending"


async def test_the_same_key_is_the_same_operation(client, dlq):
    headers = {**ASYNC, "Idempotency-Key": "all-1"}
    first = await client.post("/api/dlq/retry-all", json={"type": "report"}, headers=headers)
    again = await client.post("/api/dlq/retry-all", json={"type": "report"}, headers=headers)
    assert (again.status_code, again.headers["location"]) == (202, first.headers["location"])
    purges = [await client.delete("/api/dlq/purge?type=x", headers=headers) for _ in range(2)]
    assert len({response.headers["location"] for response in (first, *purges)}) == 2


async def test_what_cannot_be_is_refused(client, dlq):
    for body in ({}, {"type": "x", "dry_run": True}, {"type": "x", "rate": 0}, {"type": "x", "state": "pending"}):
        assert (await client.post("/api/dlq/retry-all", json=body, headers=ASYNC)).status_code == 400, body
    for task_id in ("nobody", "a%00"):
        assert (await client.get(f"/api/dlq/operations/{task_id}")).status_code == 404
        assert (await client.delete(f"/api/dlq/operations/{task_id}")).status_code == 404
    assert (await client.get("/api/dlq/operations")).json() == {"operations": []}


async def test_scopes_hold(guarded):
    wanted = [("read", 403), ("write", 202)]
    for scope, status in wanted:
        response = await guarded(scope).post("/api/dlq/retry-all", json={"type": "none"}, headers=ASYNC)
        assert response.status_code == status
    assert (await guarded("write").delete("/api/dlq/purge?type=x", headers=ASYNC)).status_code == 403
    for headers in (ASYNC, {}):
        assert (await guarded("write").post("/api/dlq/erase", json={"type": "x"}, headers=headers)).status_code == 403
    assert (await guarded("read").get("/api/dlq/operations")).status_code == 200
    assert (await guarded("read").delete(response.headers["location"])).status_code == 403


def by_starlette(app):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount("/ops/dlq", app)])


def by_litestar(app):
    """As Litestar mounts: the path that is left, with slashes around it, and no word of what was taken away."""

    async def host(scope, receive, send):
        rest = scope["path"].removeprefix("/ops/dlq").strip("/")
        await app({**scope, "path": f"/{rest}/" if rest else "/"}, receive, send)

    return host


@pytest.mark.parametrize("mounted", [by_starlette, by_litestar])
async def test_links_know_where_the_application_is_mounted(dlq, mounted):
    host = mounted(create_app(dlq, tokens=TOKENS))
    client = client_of(host, token=TOKENS["admin"])
    response = await client.post("/ops/dlq/api/dlq/retry-all", json={"type": "none"}, headers=ASYNC)
    assert response.headers["location"].startswith("/ops/dlq/api/dlq/operations/")
    assert (await client.get(response.headers["location"])).status_code == 200
    assert (await client.get("/ops/dlq/healthz", headers={"Authorization": ""})).status_code == 200
    assert (await client.get("/ops/dlq/nothing")).json()["instance"] == "/ops/dlq/nothing"
    slashless = await client.get("/ops/dlq")
    where = slashless.headers["location"].removeprefix("http://localhost:5002")
    assert (slashless.status_code, where) == (307, "/ops/dlq/")
    assert (await client.get("/ops/dlq/letters/task-0")).status_code == 200
    links = re.findall(r'(?:href|src|action|hx-get|sse-connect)="(/[^"]*)"', (await client.get("/ops/dlq/")).text)
    assert len(links) > 20
    assert [link for link in links if not link.startswith("/ops/dlq/")] == []
