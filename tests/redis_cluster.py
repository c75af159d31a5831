"""A real Redis Cluster on loopback, built by commands alone; a missing program fails, nothing is skipped."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from .redis_servers import Server, debian_program, free_ports, valkey_program

NODE_TIMEOUT_MS = 1_500


class Cluster:
    """Some primaries, each with so many replicas; ``secure``: over TLS alone, which ``options`` set up."""

    def __init__(
        self, program: str, *options: str, primaries: int = 3, replicas: int = 0, secure: bool = False
    ) -> None:
        n = primaries * (1 + replicas)
        ports = free_ports(2 * n)
        self.ports, buses = ports[:n], ports[n:]
        self.nodes = [
            Server(
                program,
                *(("--port", "0", "--tls-port") if secure else ("--port",)),
                *(str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes"),
                *("--cluster-port", str(bus), "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
                *("--cluster-config-file", "nodes.conf", "--repl-diskless-sync-delay", "0"),
                *("--cluster-allow-replica-migration", "no", *options),
            )
            for port, bus in zip(self.ports, buses, strict=True)
        ]
        self.ids = [self.tell(i, "CLUSTER", "MYID").decode() for i in range(n)]
        for i in range(n):  # no two alike, else they take a while to settle it
            self.tell(i, "CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for i in range(1, n):
            self.tell(i, "CLUSTER", "MEET", "127.0.0.1", self.ports[0], buses[0])
        for i in range(primaries):
            first, last = (REDIS_CLUSTER_HASH_SLOTS * j // primaries for j in (i, i + 1))
            self.tell(i, "CLUSTER", "ADDSLOTSRANGE", first, last - 1)
        _until(lambda: all(self.info(i)["cluster_known_nodes"] == str(n) for i in range(n)))
        for i in range(primaries, n):
            self.tell(i, "CLUSTER", "REPLICATE", self.ids[i % primaries])
        _until(lambda: all(self.info(i)["cluster_state"] == "ok" for i in range(n)))
        _until(lambda: all(self._online(i) == replicas for i in range(primaries)))
        self.primaries = list(range(primaries))

    def tell(self, node: int, *command: Any) -> Any:
        """Send a command to one node, past any client of clusters."""
        with redis.Redis(unix_socket_path=str(self.nodes[node].socket)) as client:
            client.response_callbacks.clear()  # type: ignore[attr-defined]
            return client.execute_command(*command)

    def info(self, node: int) -> dict[str, str]:
        """What ``CLUSTER INFO`` tells."""
        lines = self.tell(node, "CLUSTER", "INFO").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def _online(self, node: int) -> int:
        return int(self.tell(node, "INFO", "replication").count(b"state=online"))

    def owner(self, key: str) -> int:
        """The node that serves a key, as the first living node sees it."""
        slot = key_slot(key.encode())
        alive = next(i for i, node in enumerate(self.nodes) if node.process and node.process.poll() is None)
        for first, last, (_, port, *_), *_ in self.tell(alive, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self.ports.index(port)
        raise LookupError(f"nobody serves slot {slot}")

    def replica_of(self, primary: int) -> int:
        """A replica that a primary has now."""
        [told] = [self.tell(primary, "CLUSTER", "REPLICAS", self.ids[primary])]
        return self.ids.index(told[0].split()[0].decode())

    def settled(self) -> None:
        """Wait until all nodes are there again and agree who serves what, and learn who is a primary now."""
        n = len(self.nodes)
        roles: dict[int, bytes] = {}

        def calm() -> bool:
            roles.update({i: self.tell(i, "ROLE")[0] for i in range(n)})
            primaries = [i for i in range(n) if roles[i] == b"master"]
            replicas = (n - len(self.primaries)) // len(self.primaries)
            return (
                len(primaries) == len(self.primaries)
                and all(self._online(i) == replicas for i in primaries)
                and all(len(self.tell(i, "CLUSTER", "REPLICAS", self.ids[i])) == replicas for i in primaries)
                and all(self.info(i)["cluster_state"] == "ok" for i in range(n))
                and len({self._map(i) for i in range(n)}) == 1
            )

        _until(calm)
        self.primaries = [i for i in range(n) if roles[i] == b"master"]

    def _map(self, node: int) -> frozenset[tuple[int, int, int]]:
        """Which port serves what, as one node sees it."""
        return frozenset((first, last, port) for first, last, (_, port, *_), *_ in self.tell(node, "CLUSTER", "SLOTS"))

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in self.ports[:2])}"

    @property
    def startup(self) -> dict[str, Any]:
        """Arguments of a RedisCluster."""
        return {"host": "127.0.0.1", "port": self.ports[0]}

    def emptied(self) -> Cluster:
        """It, with nothing stored: a cluster has one database alone."""
        for i in self.primaries:
            self.tell(i, "FLUSHALL")
        return self

    def move(self, slot: int, target: int, *, at_once: int = 10) -> None:
        """Move a slot with its keys to another primary, ``at_once`` keys at a time."""
        source = next(i for i in self.primaries if self._serves(i, slot))
        self.tell(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        self.tell(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target])
        while keys := self.tell(source, "CLUSTER", "GETKEYSINSLOT", slot, at_once):
            self.tell(source, "MIGRATE", "127.0.0.1", self.ports[target], "", 0, 5_000, "KEYS", *keys)
        for i in (target, source, *(i for i in self.primaries if i not in (target, source))):
            self.tell(i, "CLUSTER", "SETSLOT", slot, "NODE", self.ids[target])

    def _serves(self, node: int, slot: int) -> bool:
        return any(
            first <= slot <= last and port == self.ports[node]
            for first, last, (_, port, *_), *_ in self.tell(node, "CLUSTER", "SLOTS")
        )

    def end(self) -> None:
        for node in self.nodes:
            node.end()


def _until(holds: Callable[[], bool], timeout: float = 60) -> None:
    until = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < until, "the cluster never came up"
        time.sleep(0.02)


@functools.cache
def valkey_cluster() -> Cluster:
    """Three primaries, from the wheel."""
    return Cluster(valkey_program())


@functools.cache
def debian_cluster() -> Cluster:
    """Three primaries and three replicas."""
    return Cluster(debian_program(), replicas=1)


__all__: Sequence[str] = ["Cluster", "debian_cluster", "valkey_cluster"]
