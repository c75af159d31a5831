from __future__ import annotations

from contextlib import aclosing, asynccontextmanager

import anyio
import pytest

from deadletter import InvalidQuery, Query, Task
from deadletter.model.row import EventRow, Hint

pytestmark = pytest.mark.anyio


async def take(events, n):
    with anyio.fail_after(10):
        return [await anext(events) for _ in range(n)]


async def test_events_come_as_they_happen_from_every_queue_object(make_queue, kill, clock):
    dlq, other = make_queue(), make_queue()
    await kill(dlq, Task(type="before"))
    async with dlq.subscribe() as events:
        (dead,) = await kill(other, Task(type="t"))
        await other.retry(dead, why="mended")
        await other.cancel(dead)
        died, replayed, cancelled = await take(events, 3)
    assert (died.kind, died.task_id, died.type, died.count) == ("dead", dead, "t", 1)
    assert died.detail["reason"] == "permanent"
    assert died.detail["fingerprint"]
    assert (replayed.kind, replayed.detail["why"]) == ("replayed", "mended")
    assert cancelled.kind == "cancelled"
    assert died.seq < replayed.seq < cancelled.seq
    assert died.at.timestamp() * 1000 == clock.now_ms()


async def test_kinds_narrow(dlq, kill):
    async with dlq.subscribe("purged") as events:
        (dead,) = await kill(dlq, Task(type="t"))
        await dlq.purge(Query(ids=[dead]))
        (event,) = await take(events, 1)
    assert (event.kind, event.task_id) == ("purged", dead)


async def test_an_unknown_kind_is_refused(dlq):
    with pytest.raises(InvalidQuery, match="kinds"):
        async with dlq.subscribe("born"):
            pass


async def test_a_gap_is_told_whatever_the_kinds(dlq, backend, monkeypatch):
    async def signals():
        yield EventRow(1, "dead", 5, "a", "t")
        yield Hint()
        yield EventRow(2, "lost", 5, "a", "t")
        yield EventRow(3, "of a newer version", 5, "a", "t")
        yield EventRow(7, "dead", 9, "b", "t", missed=3)

    @asynccontextmanager
    async def listen(queue, after=None):
        async with aclosing(signals()) as found:
            yield found

    monkeypatch.setattr(backend, "listen", listen)
    async with dlq.subscribe("dead") as events:
        seen = [event async for event in events]
    assert [(event.kind, event.seq, event.count) for event in seen] == [("dead", 1, 1), ("gap", 6, 3), ("dead", 7, 1)]
