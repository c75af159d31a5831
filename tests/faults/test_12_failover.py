"""Fault 12: a primary of a cluster killed under load; with ``durability="wait:1"`` nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest

from deadletter import BackendUnavailable, DeadLetterQueue, DurabilityNotMet, RedisBackend, Task
from deadletter.backends.redis.keys import prefix
from deadletter.model.record import State

from ..redis_cluster import Cluster
from ..redis_servers import debian_program
from .conftest import recount, soon


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(debian_program(), replicas=1)
    yield made
    made.end()


@pytest.mark.full
@pytest.mark.parametrize("shards", [1, 4])
def test_a_killed_primary_of_a_cluster_loses_nothing(cluster: Cluster, shards: int) -> None:
    anyio.run(kill_under_load, cluster, shards)


async def kill_under_load(cluster: Cluster, shards: int) -> None:
    dlq = DeadLetterQueue(RedisBackend(cluster.url, shards=shards, durability="wait:1"), retry=[0.1], lease=3)
    acknowledged: list[str] = []
    began: Counter[str] = Counter()

    @dlq.processor("work")
    async def work(task: Task) -> bool:
        began[task.id] += 1
        await anyio.sleep(0.002)
        return task.payload["n"] % 5 != 0

    async def produce() -> None:
        n = 0
        while True:
            n += 1
            task = Task(type="work", id=f"t{n}", payload={"n": n})
            while task.id not in acknowledged:
                with contextlib.suppress(BackendUnavailable, DurabilityNotMet):
                    # Alone the promoted one has no replica to wait for: it is stored, and acknowledged to nobody.
                    await dlq.enqueue(task)
                    acknowledged.append(task.id)
                await anyio.sleep(0.005)

    async def enough(more: int) -> None:
        n = len(began) + more
        await soon(lambda: _reached(began, n), within=40)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(produce)
        tasks.start_soon(dlq.worker(concurrency=8).run)
        await enough(100)
        victim = cluster.owner(prefix("default"))
        before = list(acknowledged)
        await anyio.to_thread.run_sync(cluster.nodes[victim].kill)
        await soon(lambda: _promoted(cluster, victim), within=40)
        await anyio.to_thread.run_sync(cluster.nodes[victim].start)  # as the new primary's replica, to wait for
        await enough(100)
        tasks.cancel_scope.cancel()
    assert len(acknowledged) > len(before) >= 50

    async def drained() -> bool:
        await dlq.worker(concurrency=8).run_until_idle()
        tally = (await dlq.stats()).by_state
        return not tally.get("pending", 0) and not tally.get("running", 0)

    await soon(drained, within=60)
    states = {row.id: str(row.state) for row in await recount(dlq.backend)}
    lost = {id_: states.get(id_, "lost") for id_ in acknowledged if states.get(id_) not in ENDED}
    assert not lost
    assert all(began[id_] for id_ in acknowledged)
    await dlq.aclose()


ENDED = (str(State.SUCCEEDED), str(State.DEAD))


async def _reached(began: Counter[str], n: int) -> bool:
    return len(began) >= n


async def _promoted(cluster: Cluster, victim: int) -> bool:
    return await anyio.to_thread.run_sync(cluster.owner, prefix("default")) != victim
