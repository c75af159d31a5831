"""Whatever client a user has, of a cluster or of Sentinels: subscriptions and workers go on after a failover."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from deadletter import BackendError, DeadLetterQueue, Event, Task
from deadletter.backends.redis.keys import prefix

from ..redis_cluster import Cluster
from ..redis_sentinels import Trio
from ..redis_servers import Server, debian_program, valkey_program

pytestmark = [pytest.mark.full, pytest.mark.anyio]

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
DECODES = pytest.mark.parametrize("decode", [False, True], ids=["bytes", "text"])


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """A synchronous client is also tried under trio, where threads serve; an asyncio client is asyncio's."""
    kind = request.node.callspec.params["kind"]
    return "trio" if kind == "sync" else "asyncio"


@pytest.fixture(scope="module", params=[debian_program, valkey_program], ids=["debian", "valkey"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    made = Cluster(request.param(), replicas=1)
    yield made
    made.end()


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Trio]:
    made = Trio(tmp_path)
    yield made
    made.end()


@contextlib.asynccontextmanager
async def closed_after(client: Any) -> AsyncIterator[Any]:
    try:
        yield client
    finally:
        close = getattr(client, "aclose", None)
        if close is None:
            client.close()
        else:
            await close()


async def cut_off(primary: Server, replica: Server) -> None:
    """From now on the replica gets nothing more, whatever its primary stores."""

    def cut() -> None:
        with replica.client() as client:
            client.config_set("masteruser", "nobody")
            client.config_set("masterauth", "x")
        with primary.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
            while client.info("replication")["connected_slaves"]:
                continue

    await anyio.to_thread.run_sync(cut)


async def joined(replica: Server) -> None:
    """It may follow a primary again."""

    def join() -> None:
        with replica.client() as client:
            client.config_set("masteruser", "")
            client.config_set("masterauth", "")

    await anyio.to_thread.run_sync(join)


async def insisted(dlq: DeadLetterQueue, id_: str) -> None:
    """Enqueue until it is acknowledged."""
    with anyio.fail_after(60):
        while True:
            with contextlib.suppress(BackendError):
                await dlq.enqueue(Task(type="bad", id=id_))
                return
            await anyio.sleep(0.05)


async def until_dead(events: Any, id_: str) -> list[Event]:
    """The events up to the death of a task."""
    found: list[Event] = []
    with anyio.fail_after(60):
        while not found or found[-1].task_id != id_:
            found.append(await anext(events))
    return found


def caught_up(primary: Server) -> None:
    """Wait until its replica has all that it stored; WAIT on a connection that wrote nothing would not wait."""
    with primary.client() as client:
        wanted = client.info("replication")["master_repl_offset"]
        while client.info("replication")["slave0"]["offset"] < wanted:
            client.wait(1, 100)  # asks the replica where it is


async def failover(dlq: DeadLetterQueue, primary: Server, replica: Server) -> None:
    """A subscriber and a worker live through the loss of their primary, whose last events nobody else had."""

    @dlq.processor("bad")
    async def bad(_: Task) -> bool:
        return False

    async with dlq.subscribe("dead") as events, anyio.create_task_group() as group:
        group.start_soon(dlq.worker().run)
        await insisted(dlq, "before")
        await until_dead(events, "before")
        await anyio.to_thread.run_sync(caught_up, primary)
        await cut_off(primary, replica)
        await insisted(dlq, "lost")
        await until_dead(events, "lost")
        await anyio.to_thread.run_sync(primary.kill)
        await insisted(dlq, "after")
        told = await until_dead(events, "after")
        group.cancel_scope.cancel()
    kinds = [event.kind for event in told if event.task_id != "before"]  # a settle that was lost may be told again
    assert kinds[0] == "gap"
    assert {event.task_id for event in told} >= {"after"}
    assert (await dlq.get("before")).state == (await dlq.get("after")).state == "dead"
    assert "lost" not in {record.task.id async for record in dlq.scan()}
    await joined(replica)


@KINDS
@DECODES
async def test_of_a_cluster(cluster: Cluster, kind: str, decode: bool, anyio_backend: str) -> None:
    module: Any = redis if kind == "sync" else redis.asyncio
    primary = cluster.owner(prefix("default"))
    replica = cluster.replica_of(primary)
    cluster.emptied()

    made = module.RedisCluster(**cluster.startup, decode_responses=decode)
    async with closed_after(made) as client, DeadLetterQueue(client) as dlq:
        await failover(dlq, cluster.nodes[primary], cluster.nodes[replica])
    await anyio.to_thread.run_sync(cluster.nodes[primary].start)
    await anyio.to_thread.run_sync(cluster.settled)


@KINDS
@DECODES
async def test_of_sentinels(sentinels: Trio, kind: str, decode: bool, anyio_backend: str) -> None:
    module: Any = redis.sentinel if kind == "sync" else redis.asyncio.sentinel
    asked = module.Sentinel([("127.0.0.1", port) for port in sentinels.ports])

    async with (
        closed_after(asked.master_for("main", decode_responses=decode)) as client,
        DeadLetterQueue(client) as dlq,
    ):
        await failover(dlq, sentinels.primary, sentinels.replica)
    for sentinel in asked.sentinels:
        async with closed_after(sentinel):
            pass
