"""Fault 5: the server restarts beside idle workers: they go on by themselves once it is back, and poll nothing for that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from deadletter import DeadLetterQueue, Task
from deadletter.engine import feeder

from ..redis_servers import Server, debian_program, valkey_program
from .conftest import Child, eventually, soon
from .invariants import check
from .redis_store import RedisStore

PROGRAMS = [
    pytest.param(valkey_program, id="valkey"),
    pytest.param(debian_program, id="debian", marks=pytest.mark.full),
]


@pytest.fixture(params=PROGRAMS)
def kept(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that remembers."""
    server = Server(request.param(), "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.end()


@pytest.fixture
def store(kept: Server, tmp_path: Path) -> Iterator[RedisStore]:
    store = RedisStore(tmp_path, kept)
    yield store
    store.close()


def test_idle_workers_resume_by_themselves(store: RedisStore, start: Callable[..., Child]) -> None:
    """They waited for the bell of the server that died; the next one's work reaches them."""
    worker = start("worker", lease=1)
    store.enqueue(Task(type="work", id="before"))
    eventually(store.drained)
    store.server.kill()
    store.server.start()
    store.enqueue(Task(type="work", id="after"))
    eventually(store.drained)
    assert worker.drain() == 0
    assert store.ledger.effects() == {"before": 1, "after": 1}
    check(store)


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not told to a worker does not reach it."""
    monkeypatch.setattr(feeder, "_SAFETY_POLL", 3600.0)


@asynccontextmanager
async def working(server: Server, ran: list[str]) -> AsyncIterator[DeadLetterQueue]:
    async with DeadLetterQueue(server.url()) as dlq:

        @dlq.processor("work")
        async def work(task: Task) -> None:
            ran.append(task.id)

        yield dlq


async def until_ran(ran: list[str], id_: str) -> None:
    async def has() -> bool:
        return id_ in ran

    await soon(has)


@pytest.mark.anyio
@pytest.mark.usefixtures("no_poll")
async def test_what_was_stored_before_they_listen_again_is_found(kept: Server) -> None:
    """Its bell rang for nobody: they look as soon as they hear the server again, not at the next poll."""
    ran: list[str] = []
    async with working(kept, ran) as dlq, anyio.create_task_group() as group:
        group.start_soon(dlq.worker().run)
        await dlq.enqueue(Task(type="work", id="before"))
        await until_ran(ran, "before")
        await anyio.to_thread.run_sync(kept.kill)
        await anyio.to_thread.run_sync(kept.start)
        await dlq.enqueue(Task(type="work", id="after"))
        await until_ran(ran, "after")
        group.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.usefixtures("no_poll")
async def test_one_that_could_not_claim_for_long_does_not_sleep_on(
    kept: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits longer after each try; the server's return ends that."""
    ran: list[str] = []
    async with working(kept, ran) as dlq, anyio.create_task_group() as group:
        await dlq.enqueue(Task(type="work", id="x"))
        await anyio.to_thread.run_sync(kept.kill)
        group.start_soon(dlq.worker().run)

        async def tried() -> bool:
            return sum("cannot claim" in record.message for record in caplog.records) >= 2

        await soon(tried)
        await anyio.to_thread.run_sync(kept.start)
        await until_ran(ran, "x")
        group.cancel_scope.cancel()
