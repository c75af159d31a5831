"""A queue and a worker within an application's life."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest

from deadletter import BackendUnavailable, DeadLetterQueue, State, Task
from deadletter.adapters.lifespan import lifespan
from deadletter.backends.memory import MemoryBackend

pytestmark = pytest.mark.anyio


async def test_a_worker_runs_as_long_as_the_application():
    dlq = DeadLetterQueue("memory://")
    done = anyio.Event()

    @dlq.processor("t")
    async def run(_: Task) -> None:
        done.set()

    async with lifespan(dlq, worker=True, concurrency=2)("app"):
        task_id = await dlq.enqueue(Task(type="t"))
        with anyio.fail_after(5):
            await done.wait()
    assert (await dlq.get(task_id)).state is State.SUCCEEDED, "and drains at the end"


async def test_without_a_worker_the_queue_is_opened_and_closed():
    class Seen(MemoryBackend):
        opened = 0

        async def open(self) -> None:
            self.opened += 1

    backend = Seen()
    async with lifespan(DeadLetterQueue(backend))("app") as state:
        assert (backend.opened, state) == (1, None)


async def test_a_store_that_is_away_is_told_at_the_start():
    class Away(MemoryBackend):
        async def open(self) -> None:
            raise BackendUnavailable("away")

    with pytest.raises(BackendUnavailable):
        async with lifespan(DeadLetterQueue(Away()))("app"):
            raise AssertionError("no request is taken")


async def test_your_own_lifespan_is_around_it():
    order = []

    @asynccontextmanager
    async def own(app):
        order.append(f"{app} begins")
        yield {"pool": 1}
        order.append("ends")

    async with lifespan(DeadLetterQueue("memory://"), within=own)("app") as state:
        order.append(state)
    assert order == ["app begins", {"pool": 1}, "ends"]
