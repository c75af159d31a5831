"""A cluster: how its URL and clients are read, which node serves a key, and what happens when the map is old."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from redis import exceptions
from redis.crc import key_slot

from deadletter import BackendUnavailable, InvalidSetting, RedisBackend
from deadletter.backends import backend_from_url
from deadletter.backends.redis import routes
from deadletter.backends.redis.client import Connections
from deadletter.backends.redis.cluster import Address, ClusterEndpoint, of_cluster_url
from deadletter.backends.redis.endpoint import Endpoint
from deadletter.backends.redis.routes import ClusterConnections, topology_of

from ....redis_cluster import valkey_cluster

A, B, C = ("a", 1), ("b", 2), ("c", 3)
SLOT = key_slot(b"{k}")


@pytest.mark.parametrize(
    ("url", "shown", "nodes", "options"),
    [
        ("redis+cluster://a", "redis+cluster://a", (("a", 6379),), {}),
        (
            "redis+cluster://u:secret@a:1,[::1]:2/0?socket_timeout=1&durability=wait:1",
            "redis+cluster://u:***@a:1,[::1]:2/0",
            (("a", 1), ("::1", 2)),
            {"username": "u", "password": "secret", "socket_timeout": 1.0},
        ),
    ],
)
def test_a_url_names_nodes(url: str, shown: str, nodes: Any, options: Any) -> None:
    backend = backend_from_url(url)
    assert isinstance(backend, RedisBackend)
    address: Any = backend._connections.endpoint
    assert (backend.url, address.nodes, address.options) == (shown, nodes, options)
    assert "secret" not in repr(address)
    assert "secret" not in address.node(A).url


def test_ssl_is_asked_for_in_the_query() -> None:
    endpoint: Any = backend_from_url("redis+cluster://a?ssl=true")._connections.endpoint  # type: ignore[attr-defined]
    assert endpoint.sync_class.__name__ == "SSLConnection"
    assert "ssl" not in endpoint.options


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster://a/1",
        "redis+cluster://a:b",
        "redis+cluster://a,",
        "redis+cluster://a?ssl=so",
    ],
)
def test_a_bad_url_says_so(url: str) -> None:
    with pytest.raises(InvalidSetting, match=r"redis\+cluster://"):
        backend_from_url(url)


def slots(*ranges: tuple[int, int, Address]) -> list[Any]:
    """As CLUSTER SLOTS answers."""
    return [[first, last, [host.encode(), port, b"id", []]] for first, last, (host, port) in ranges]


def test_a_map_is_read() -> None:
    endpoint = of_cluster_url("redis+cluster://a", {})
    told = [[0, 9, [b"a", 1, b"i"], [b"b", 2, b"j"]], [20, 16383, [None, 3, b"k"]]]
    read = topology_of(told, ("asked", 9), endpoint)
    assert (read.owners[0], read.owners[9], read.owners[10], read.owners[20]) == (A, A, None, ("asked", 3))
    assert (read.uncovered, dict(read.replicas), read.others) == (10, {A: 1, ("asked", 3): 0}, {B})


def test_addresses_are_remapped() -> None:
    endpoint = ClusterEndpoint("", None, None, {}, (A,), lambda address: ("outside", address[1] + 1))
    assert topology_of(slots((0, 16383, A)), A, endpoint).owner("x") == ("outside", 2)


class Nodes:
    """Stands for all nodes: what each answers, and what was sent to it."""

    def __init__(self) -> None:
        self.sent: list[tuple[Address, Any]] = []
        self.map: Any = slots((0, 16383, A))
        self.answers: dict[Address, list[Any]] = {}

    async def once(self, endpoint: Endpoint, commands: Sequence[Sequence[Any]]) -> list[Any]:
        address = (endpoint.options["host"], endpoint.options["port"])
        self.sent.append((address, commands[0][0]))
        await anyio.lowlevel.checkpoint()
        waiting = [self.map] if commands[0][0] == "CLUSTER" else self.answers.get(address)
        answer = waiting.pop(0) if waiting else b"ok"
        if isinstance(answer, exceptions.ConnectionError):
            raise answer
        return [answer]

    def asked(self, command: str) -> list[Address]:
        return [address for address, name in self.sent if name == command]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    made = Nodes()

    class Node(Connections):
        async def once(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
            return await made.once(self.endpoint, commands)

    monkeypatch.setattr(routes, "Connections", Node)
    monkeypatch.setattr(routes, "PAUSES", (0.0,))
    return made


def connections() -> ClusterConnections:
    return ClusterConnections(of_cluster_url("redis+cluster://a:1,b:2", {}))


@pytest.mark.anyio
async def test_a_key_goes_to_its_node_and_the_map_is_read_once_for_many(nodes: Nodes) -> None:
    nodes.map = slots((0, SLOT, B), (SLOT + 1, 16383, A))
    to = connections()
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(to.command, "HGET", "{k}meta", "seq")
    assert nodes.asked("HGET") == [B] * 5
    assert len(nodes.asked("CLUSTER")) == 1
    assert await to.command("TIME") == b"ok"
    assert nodes.asked("TIME") == [A]


@pytest.mark.anyio
@pytest.mark.parametrize("error", [exceptions.MovedError(f"{SLOT} b:2"), exceptions.ConnectionError("gone")])
async def test_an_old_map_is_read_anew(nodes: Nodes, error: Exception) -> None:
    to = connections()
    await to.topology()
    nodes.map, nodes.answers = slots((0, 16383, B)), {A: [error]}
    assert await to.command("HGET", "{k}meta", "seq") == b"ok"
    assert nodes.asked("HGET") == [A, B]
    assert len(nodes.asked("CLUSTER")) == 2


@pytest.mark.anyio
async def test_ask_is_waited_for_and_never_followed(nodes: Nodes) -> None:
    nodes.answers = {A: [exceptions.AskError(f"{SLOT} b:2")] * 3}
    assert await connections().command("HGET", "{k}meta", "seq") == b"ok"
    assert nodes.asked("HGET") == [A] * 4


@pytest.mark.anyio
async def test_a_slot_without_a_node_is_given_up(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "PATIENCE", 0.05)
    nodes.map = []
    with pytest.raises(BackendUnavailable, match="no node serves slot"):
        await connections().command("HGET", "{k}meta", "seq")


@pytest.mark.anyio
async def test_nobody_there_is_told_soon_and_without_the_password() -> None:
    backend = RedisBackend("redis+cluster://user:secret@localhost:1,localhost:2")
    with pytest.raises(BackendUnavailable, match="no node tells its slots") as caught, anyio.fail_after(10):
        await backend.open()
    assert "secret" not in str(caught.value)
    await backend.aclose()


@pytest.mark.anyio
async def test_every_primary_is_asked_and_the_odd_one_named() -> None:
    cluster = valkey_cluster()
    cluster.tell(1, "CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    backend = RedisBackend(cluster.url)
    try:
        found = {finding.text for finding in (await backend.inspect()).findings}
        cluster.tell(1, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        with pytest.raises(InvalidSetting, match=f"127.0.0.1:{cluster.ports[1]} has maxmemory-policy allkeys-lru"):
            await backend.open()
    finally:
        cluster.tell(1, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        await backend.aclose()
    assert any(text.startswith(f"127.0.0.1:{cluster.ports[1]}: maxmemory-policy volatile-lru") for text in found)
    assert any(text.startswith("no AOF") for text in found)
    assert any(text.startswith("without a replica: 127.0.0.1") for text in found)
