"""Server-Sent Events."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import anyio
import pytest

from deadletter import BackendUnavailable, Query, Task
from deadletter.http import create_app
from deadletter.http.audience import Audience

from .clients import SECRET, streaming

pytestmark = pytest.mark.anyio


def told(text: str) -> list[dict]:
    """The events of a stream, each with its id and name."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if "data" in fields:
            found.append({**json.loads(fields["data"]), "id": fields.get("id"), "event": fields["event"]})
    return found


async def test_what_happens_is_told_as_it_happens(dlq):
    async with streaming(create_app(dlq), "/api/dlq/events") as stream:
        await stream.until("listening")
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert stream.headers["cache-control"] == "no-store"
        await dlq.retry("task-1", why=f"because of {SECRET}")
        await dlq.pause("email.*", why="mail is down")
        await dlq.capture(Task(type="t", id="new"), ValueError(SECRET))
        text = await stream.until('"task_id":"new"')
    assert [(event["event"], event["task_id"]) for event in told(text) if event["kind"] != "paused"] == [
        ("replayed", "task-1"),
        ("dead", "new"),
    ]
    assert [event["type"] for event in told(text) if event["kind"] == "paused"] == ["email.*"]
    assert SECRET not in text


async def test_what_happens_once_the_answer_has_begun_is_told(dlq):
    """A page that is connected looks no more by itself: what came between was never shown."""

    async def dies():
        await dlq.capture(Task(type="t", id="at-once"), ValueError("no"))

    async with streaming(create_app(dlq), "/api/dlq/events", at_start=dies) as stream:
        text = await stream.until('"task_id":"at-once"')
    assert [event["event"] for event in told(text)] == ["dead"]


async def test_only_the_kinds_that_were_asked_for(dlq):
    async with streaming(create_app(dlq), "/api/dlq/events?kinds=purged,dead") as stream:
        await stream.until("listening")
        await dlq.retry("task-1")
        await dlq.purge(Query(ids=["task-2"]))
        text = await stream.until("purged")
    assert [event["event"] for event in told(text)] == ["purged"]


async def test_a_client_that_comes_back_misses_nothing(dlq):
    app = create_app(dlq)
    async with streaming(app, "/api/dlq/events") as stream:
        await stream.until("listening")
        await dlq.retry("task-0")
        last = told(await stream.until("task-0"))[-1]["id"]
    await dlq.retry("task-1")
    async with streaming(app, "/api/dlq/events", {"Last-Event-ID": last}) as stream:
        await dlq.retry("task-2")
        text = await stream.until("task-2")
    assert [event["task_id"] for event in told(text)] == ["task-1", "task-2"]


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "9" * 30, "1 2"])
async def test_an_id_that_no_event_has_is_refused(client, given):
    assert (await client.get("/api/dlq/events", headers={"Last-Event-ID": given})).status_code == 400


async def test_unknown_kinds_are_refused(client):
    response = await client.get("/api/dlq/events?kinds=born")
    assert [error["field"] for error in response.json()["errors"]] == ["kinds"]


async def test_where_the_store_is_away_the_stream_ends(dlq, monkeypatch):
    def away(*args):
        raise BackendUnavailable("away")

    monkeypatch.setattr(dlq.backend, "listen", away)
    async with streaming(create_app(dlq), "/api/dlq/events") as stream:
        await stream.until("unavailable")


async def test_all_who_listen_share_one_subscription(dlq, monkeypatch):
    listen, calls = dlq.backend.listen, []

    def counted(*args):
        calls.append(args)
        return listen(*args)

    monkeypatch.setattr(dlq.backend, "listen", counted)
    app = create_app(dlq)
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(streaming(app, "/api/dlq/events")) for _ in range(20)]
        for stream in streams:
            await stream.until("listening")
        await dlq.retry("task-1")
        for stream in streams:
            assert [event["task_id"] for event in told(await stream.until("task-1"))] == ["task-1"]
    assert len(calls) == 2, "one for tasks, one for pauses"
    async with streaming(app, "/api/dlq/events") as stream:
        await stream.until("listening")
        await dlq.retry("task-2")
        await stream.until("task-2")


async def test_who_comes_back_beside_others_misses_nothing(dlq, monkeypatch):
    """What happened while others listened is kept here, what happened before is asked of the store."""
    monkeypatch.setattr("deadletter.http.audience._QUIET", 0.1)
    app = create_app(dlq)
    async with streaming(app, "/api/dlq/events") as first:
        await first.until("listening")
        await dlq.retry("task-0")
        last = told(await first.until("task-0"))[-1]["id"]
        await dlq.retry("task-1")
        await first.until("task-1")
        for seen, missed in [(last, ["task-1"]), (str(int(last) - 1), ["task-0", "task-1"])]:
            async with streaming(app, "/api/dlq/events", {"Last-Event-ID": seen}) as again:
                text = await again.until("task-1")
                assert [event["task_id"] for event in told(text) if event["kind"] == "replayed"] == missed
        async with streaming(app, "/api/dlq/events?kinds=replayed", {"Last-Event-ID": last}) as again:
            await again.until("task-1")
            await dlq.retry("task-2")
            text = await again.until("task-2")
            assert [event["task_id"] for event in told(text)] == ["task-1", "task-2"]


async def test_who_reads_too_slowly_is_told_a_gap(dlq, monkeypatch):
    monkeypatch.setattr("deadletter.http.audience._WAITING", 2)
    audience = Audience(dlq)
    async with audience.listen(None) as events:
        for n in range(6):
            await dlq.capture(Task(type="t", id=f"new-{n}"), ValueError("x"))
        with anyio.fail_after(10):
            while sum(listener.missed for listener in audience._listeners) < 4:
                await anyio.sleep(0.002)
            heard = [await anext(events) for _ in range(2)]
            await dlq.capture(Task(type="t", id="last"), ValueError("x"))
            heard += [await anext(events) for _ in range(2)]
    assert [(event.kind, event.task_id, event.count) for event in heard] == [
        ("dead", "new-0", 1),
        ("dead", "new-1", 1),
        ("gap", None, 4),
        ("dead", "last", 1),
    ]
