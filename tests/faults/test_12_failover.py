"""Fault 12: a primary of a cluster dies; what a replica had is worked off by it, and nothing acknowledged is lost."""

from __future__ import annotations

from collections import Counter

import anyio
import anyio.to_thread
import pytest

from deadletter import BackendUnavailable, DeadLetterQueue, DurabilityNotMet, RedisBackend, Task

from ..redis_cluster import Cluster
from ..redis_servers import debian_program
from .conftest import recount, soon

AROUND = 40  # acknowledged before the kill, and after it


async def lose_a_primary(cluster: Cluster) -> None:
    dlq = DeadLetterQueue(RedisBackend(cluster.url, durability="wait:1"), lease=3, retry=[0.01])
    acknowledged: list[str] = []
    effects: Counter[str] = Counter()
    enough = anyio.Event()

    @dlq.processor("work")
    async def work(task: Task) -> None:
        effects[task.id] += 1

    async def produce() -> None:
        n = 0
        while not enough.is_set():
            n += 1
            task = Task(type="work", id=f"t{n}", payload={})
            while True:
                try:
                    await dlq.enqueue(task)
                    break
                except (BackendUnavailable, DurabilityNotMet):  # the same id again until it is where we want it
                    await anyio.sleep(0.05)
            acknowledged.append(task.id)

    async def more() -> bool:
        return len(acknowledged) >= before + AROUND

    async def promoted() -> bool:
        return cluster.owner("dl:{default:0}:meta") != victim

    async def drained() -> bool:
        tally = (await dlq.stats()).by_state
        return not tally.get("pending", 0) and not tally.get("running", 0)

    worker = dlq.worker(concurrency=8)
    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        group.start_soon(worker.run)
        before = 0
        await soon(more, within=20)
        victim = cluster.owner("dl:{default:0}:meta")
        cluster.nodes[victim].kill()
        await soon(promoted, within=60)
        await anyio.to_thread.run_sync(cluster.nodes[victim].start)  # as a replica: wait:1 wants one
        before = len(acknowledged)
        await soon(more, within=60)
        enough.set()
        await soon(drained, within=60)
        group.cancel_scope.cancel()
    rows = {row.id: row.state for row in await recount(dlq.backend)}
    await dlq.aclose()
    assert {rows.get(id_) for id_ in acknowledged} == {"succeeded"}
    assert set(effects) >= set(acknowledged)


@pytest.mark.full
def test_a_dead_primary_is_followed_and_nothing_is_lost() -> None:
    cluster = Cluster(debian_program(), replicas=1)
    try:
        anyio.run(lose_a_primary, cluster)
    finally:
        cluster.end()
