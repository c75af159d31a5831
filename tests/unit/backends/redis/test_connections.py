"""Connections on real servers: lost, repeated, forked, refused, closed."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import fakeredis
import pytest
import redis
from anyio.from_thread import start_blocking_portal

from deadletter import BackendUnavailable, DeadLetterQueue, DurabilityNotMet, RedisBackend, Task
from deadletter.backends.redis import client as client_module
from deadletter.model.errors import BackendError
from deadletter.model.record import Reason
from deadletter.model.row import Claim, FailureRow, NewRow
from deadletter.rules import changes

from ....redis_servers import Server, free_ports, valkey, valkey_program

pytestmark = pytest.mark.anyio


def new(id: str = "a", **fields: Any) -> NewRow:
    return NewRow(id=id, **{"type": "t", "digest": "x", "body": b"body", **fields})


async def test_nobody_there_is_told_with_the_url_and_no_password() -> None:
    backend = RedisBackend("redis://user:secret@localhost:1/0")
    with pytest.raises(BackendUnavailable, match=r"redis://user:\*\*\*@localhost:1/0 cannot be reached") as caught:
        await backend.open()
    assert "secret" not in str(caught.value)
    await backend.aclose()


async def test_a_wrong_password_is_not_tried_again() -> None:
    with valkey().client() as client:
        client.acl_setuser("guest", enabled=True, passwords=["+right"], keys=["dl:*"], channels=[], commands=["+@all"])
    backend = RedisBackend(f"unix://guest:wrong@{valkey().socket}")
    with pytest.raises(BackendUnavailable, match="does not let us in"):
        await backend.open()
    await backend.aclose()


async def test_a_user_without_channels_works() -> None:
    """Without the right to publish nobody is woken, and that is all."""
    with valkey().client() as client:
        client.acl_setuser("quiet", enabled=True, passwords=["+right"], keys=["dl:*"], channels=[], commands=["+@all"])
    backend = RedisBackend(f"unix://quiet:right@{valkey().socket}")
    await backend.insert("quiet", [new()])
    assert [row.id for row in (await backend.claim("quiet", Claim(op="o", types=["t"]))).rows] == ["a"]
    with pytest.raises(BackendError):
        async with backend.listen("quiet"):
            pass
    await backend.aclose()


async def test_a_forgotten_script_is_sent_again() -> None:
    url = valkey().emptied()
    backend = RedisBackend(url)
    await backend.insert("q", [new("a")])
    with valkey().client() as client:
        client.script_flush()
    assert [row.id for row in (await backend.claim("q", Claim(op="o", types=["t"]))).rows] == ["a"]
    await backend.aclose()


async def test_a_server_that_restarts_is_found_again() -> None:
    server = Server(valkey_program(), "--appendonly", "yes", "--appendfsync", "always")
    try:
        backend = RedisBackend(server.url())
        await backend.insert("q", [new("a")])
        await anyio.to_thread.run_sync(server.kill)
        with pytest.raises(BackendUnavailable):
            await backend.load("q", ["a"])
        await anyio.to_thread.run_sync(server.start)
        [row] = await backend.load("q", ["a"])
        assert row is not None
        assert row.body == b"body"
        await backend.aclose()
    finally:
        server.end()


async def test_a_full_server_takes_no_task_and_finishes_what_it_has() -> None:
    server = Server(valkey_program(), "--maxmemory-policy", "noeviction")
    try:
        backend = RedisBackend(server.url())
        await backend.insert("q", [new("a")])
        with server.client() as client:
            client.config_set("maxmemory", "1mb")
        with pytest.raises(BackendError, match="no memory left"):
            await backend.insert("q", [new("b", body=b"x" * 1000)])
        [row] = (await backend.claim("q", Claim(op="o", types=["t"]))).rows
        assert await backend.apply("q", [changes.succeed(row, "s", 1000)]) == ["done"]
        assert await backend.load("q", ["b"]) == [None]
        await backend.aclose()
    finally:
        server.end()


@pytest.mark.parametrize("durability", ["wait:1", "waitaof:1"])
async def test_too_few_replicas_are_an_error_that_names_the_task(
    durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deadletter.backends.redis.shard._WAIT_MS", 20)
    backend = RedisBackend(valkey().emptied(), durability=durability)
    with pytest.raises(DurabilityNotMet, match="'a'"):
        await backend.insert("q", [new("a")])
    [row] = await backend.load("q", ["a"])
    assert row is not None, "it is stored, and repeating is safe"
    await backend.aclose()


async def test_a_replica_in_time_is_enough() -> None:
    [port] = free_ports(1)
    tcp = Server(valkey_program(), "--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
    try:
        second = Server(valkey_program(), "--replicaof", "127.0.0.1", str(port))
        try:
            with tcp.client() as client:
                until = time.monotonic() + 20
                while client.info("replication")["connected_slaves"] < 1 or client.wait(1, 100) < 1:
                    assert time.monotonic() < until
            backend = RedisBackend(f"{tcp.url()}&durability=wait:1")
            [insertion] = await backend.insert("q", [new("a")])
            assert insertion.verdict == "stored"
            [row] = (await backend.claim("q", Claim(op="o", types=["t"]))).rows
            death = changes.die(row, "d", Reason.REJECTED, FailureRow(attempt=1), None)
            assert await backend.apply("q", [death]) == ["done"]
            assert "wait:1" in (await backend.inspect()).durability
            await backend.aclose()
        finally:
            second.end()
    finally:
        tcp.end()


async def test_a_given_client_stays_open() -> None:
    with valkey().client(decode_responses=True) as client:
        client.ping()
        mine = list(client.connection_pool._available_connections)
        async with DeadLetterQueue(client, name="given") as dlq:
            task_id = await dlq.enqueue(Task(type="t", payload={"n": 1}))
            assert (await dlq.get(task_id)).task.payload == {"n": 1}
        assert client.connection_pool._available_connections == mine
        assert client.get("nothing") is None
        assert client.connection_pool._available_connections == mine


@pytest.fixture
def lonely() -> Iterator[Server]:
    """A server that nobody else is connected to."""
    server = Server(valkey_program())
    yield server
    server.end()


def connected(server: Server) -> int:
    """How many connections it has beside the one that asks."""
    with server.client() as client:
        return len(client.client_list()) - 1


def test_a_loop_that_ends_takes_its_connections_along(lonely: Server) -> None:
    """A lease keeper's loop ends without anybody to close what it used; warnings are errors here."""
    backend = RedisBackend(lonely.url())
    for n in range(3):
        asyncio.run(backend.insert("q", [new(f"{n}")]))
    gc.collect()
    until = time.monotonic() + 10
    while connected(lonely):
        assert time.monotonic() < until


def test_closing_reaches_the_connections_of_other_loops(lonely: Server) -> None:
    """A queue that is closed in one loop leaves nothing open in another that still runs."""
    backend = RedisBackend(lonely.url())
    entered, leave = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        await backend.insert("q", [new("b")])
        entered.set()
        while not leave.is_set():
            await anyio.sleep(0.01)

    async def here() -> None:
        await anyio.to_thread.run_sync(entered.wait)
        await backend.insert("q", [new("a")])
        assert connected(lonely) == 2
        await backend.aclose()
        with anyio.fail_after(10):
            while connected(lonely):
                await anyio.sleep(0.01)

    thread = threading.Thread(target=lambda: anyio.run(elsewhere))
    thread.start()
    try:
        anyio.run(here)
    finally:
        leave.set()
        thread.join()


async def _in_child(backend: RedisBackend, answer: Any) -> None:
    [insertion] = await backend.insert("q", [new("child")])
    answer.send((insertion.verdict, os.getpid()))


def _child(backend: RedisBackend, answer: Any) -> None:
    anyio.run(_in_child, backend, answer)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_forked_child_connects_anew(loop: str) -> None:
    """Preloading servers fork after the first connection was made; its loop is the parent's, still running."""
    backend = RedisBackend(valkey().emptied())
    with start_blocking_portal(loop) as portal:
        portal.call(backend.insert, "q", [new("parent")])
        here, there = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=_child, args=(backend, there))
        child.start()
        assert here.poll(15)
        verdict, pid = here.recv()
        child.join()
        assert (verdict, pid != os.getpid()) == ("stored", True)
        rows = portal.call(backend.load, "q", ["parent", "child"])
        assert [row and row.id for row in rows] == ["parent", "child"]
        portal.call(backend.aclose)


def test_an_asyncio_stand_in_serves_asyncio_alone() -> None:
    async def run() -> None:
        backend = RedisBackend(fakeredis.FakeAsyncRedis())
        with pytest.raises(BackendUnavailable, match="serves asyncio alone"):
            await backend.open()

    anyio.run(run, backend="trio")


def test_an_asyncio_stand_in_serves_asyncio() -> None:
    async def run() -> None:
        backend = RedisBackend(fakeredis.FakeAsyncRedis())
        await backend.insert("q", [new("a")])
        assert [row and row.id for row in await backend.load("q", ["a"])] == ["a"]
        await backend.aclose()

    anyio.run(run)


async def test_a_moving_slot_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the probe reports is tried again a bounded number of times, and nothing has been written."""
    monkeypatch.setattr(client_module, "PAUSES", (0.0, 0.0))
    backend = RedisBackend(valkey().emptied())
    await backend.open()
    sent: list[Any] = []
    once = backend._connections.once

    async def moving(commands: Any) -> list[Any]:
        sent.append(commands)
        return [[b"moving"]] if len(sent) < 3 else await once(commands)

    monkeypatch.setattr(backend._connections, "once", moving)
    assert (await backend.insert("q", [new("a")]))[0].verdict == "stored"
    assert len(sent) >= 3
    sent[:] = []

    async def for_ever(commands: Any) -> list[Any]:
        sent.append(commands)
        return [[b"moving"]]

    monkeypatch.setattr(backend._connections, "once", for_ever)
    with pytest.raises(BackendUnavailable, match="moving to another node"):
        await backend.insert("q", [new("b")])
    assert len(sent) == 3
    monkeypatch.undo()
    await backend.aclose()


async def held_up(server: redis.Redis) -> None:
    """Return once the server has a command that it is not yet to run."""
    while not server.info("clients")["blocked_clients"]:
        await anyio.sleep(0.001)


async def test_who_is_cancelled_hears_the_answer_first() -> None:
    """What was sent has run by then: it cannot run after the steps that clean up after it."""
    backend = RedisBackend(valkey().emptied())
    await backend.insert("cancelled", [new("before")])
    over = []

    async def insert(scope: anyio.CancelScope) -> None:
        with scope:
            await backend.insert("cancelled", [new()])
        over.append(scope.cancelled_caught or "answered")

    with valkey().client() as server:
        server.client_pause(60_000, all=False)
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()
            group.start_soon(insert, scope)
            await held_up(server)
            scope.cancel()
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            assert over == []
            server.client_unpause()
    assert len(over) == 1
    assert [row and row.id for row in await backend.load("cancelled", ["a"])] == ["a"]
    await backend.aclose()
