"""Which node of a cluster serves a slot, and how steps find it while slots move and primaries die.

The map of slots is read by ``CLUSTER SLOTS`` from any node that answers, once for all who need it, in whatever loop they
are. Whoever meets an error that may come from an old map doubts it, and the next step reads it anew.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import attrs
from redis import exceptions
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from ...model.errors import BackendError
from ...model.row import Finding
from ...runtime.loops import Bell
from .client import AWAY, PAUSES, Connections
from .cluster import Address, ClusterEndpoint
from .endpoint import Endpoint
from .wires import Ear

# A node is declared dead after cluster-node-timeout (15 s where nobody changed it); the election takes another second.
PATIENCE = 20.0
_ASK_S = 2.0  # for one node to tell its map
_KEYLESS = frozenset({"INFO", "TIME", "CONFIG", "CLUSTER", "PING"})


class NobodyAnswers(exceptions.ConnectionError):
    """No node of the cluster can be reached."""


@attrs.frozen(eq=False)
class Topology:
    """Who serves what.

    Attributes:
        owners: the primary of each slot; None where nobody has it.
        replicas: how many each primary has.
        others: where else the map can be asked.
    """

    owners: tuple[Address | None, ...]
    replicas: Mapping[Address, int]
    others: frozenset[Address] = frozenset()

    @property
    def uncovered(self) -> int:
        """Slots that nobody serves."""
        return self.owners.count(None)

    def owner(self, key: str | bytes) -> Address:
        """The primary for a key.

        Raises:
            ClusterDownError: nobody serves its slot.
        """
        slot = key_slot(key if isinstance(key, bytes) else key.encode())
        found = self.owners[slot]
        if found is None:
            raise exceptions.ClusterDownError(f"no node serves slot {slot}")
        return found


def topology_of(answer: Sequence[Any], asked: Address, endpoint: ClusterEndpoint) -> Topology:
    """Read the answer of ``CLUSTER SLOTS``; a node without a name of its own is the one that was asked."""
    owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    replicas: dict[Address, int] = {}
    others: set[Address] = set()
    for first, last, primary, *rest in answer:
        address = _address(primary, asked, endpoint)
        owners[first : last + 1] = [address] * (last + 1 - first)
        replicas[address] = max(replicas.get(address, 0), len(rest))
        others.update(_address(node, asked, endpoint) for node in rest)
    return Topology(tuple(owners), replicas, frozenset(others))


def _address(node: Sequence[Any], asked: Address, endpoint: ClusterEndpoint) -> Address:
    told = node[0].decode() if isinstance(node[0], bytes) else node[0]
    host = asked[0] if told in (None, "", "?") else str(told)
    address = (host, int(node[1]))
    return endpoint.remap(address) if endpoint.remap is not None else address


class _Reading:
    """One reading of the map, for all who wait for it."""

    def __init__(self) -> None:
        self.bells: list[Bell] = []
        self.found: Topology | None = None
        self.error: Exception | None = None


class ClusterConnections(Connections):
    """Connections to every node that is needed, and the way to the right one."""

    endpoint: ClusterEndpoint

    def __init__(self, endpoint: ClusterEndpoint) -> None:
        super().__init__(endpoint)
        self._nodes: dict[Address, Connections] = {}
        self._topology: Topology | None = None
        self._doubted: Topology | None = None
        self._reading: _Reading | None = None
        self._failed: Address | None = None

    async def primaries(self) -> dict[str, Connections]:
        """See Connections.primaries."""
        try:
            known = await self.topology()
        except AWAY as error:
            raise self.away(error) from error
        return {self._node(address).url: self._node(address) for address in sorted(known.replicas)}

    async def findings(self) -> list[Finding]:
        """See Connections.findings."""
        found: list[Finding] = []
        told: bytes | str = await self.command("CLUSTER", "INFO")
        state = told.decode() if isinstance(told, bytes) else told
        self._doubt(self._topology)
        known = await self.topology()
        if known.uncovered:
            found.append(Finding(level="error", text=f"{known.uncovered} slots are served by no node"))
        elif "cluster_state:ok" not in state:
            found.append(Finding(level="error", text="the cluster says of itself that it is not ok (CLUSTER INFO)"))
        alone = [self._node(address).url for address in sorted(known.replicas) if not known.replicas[address]]
        if alone:
            found.append(Finding(level="warning", text=f"without a replica: {', '.join(alone)}; its loss stops queues"))
        return found

    async def listen(self, channel: str) -> Ear:
        """Subscribe at the node of the channel's slot; a cluster carries what is published to all its nodes."""
        try:
            known = await self.topology()
            address = self._owner(known, channel)
        except AWAY as error:
            raise self.away(error) from error
        try:
            return await self._node(address).listen(channel)
        except BackendError:
            self._doubt(known, address)
            raise

    async def topology(self) -> Topology:
        """The map, read anew where it is doubted."""
        while True:
            with self._lock:
                known = self._topology
                if known is not None and known is not self._doubted:
                    return known
                leads = self._reading is None
                reading = self._reading = self._reading or _Reading()
                bell = Bell()
                reading.bells.append(bell)
            if leads:
                return await self._lead(reading)
            await bell.wait()
            if reading.error is not None:
                raise reading.error
            if reading.found is not None:
                return reading.found

    async def _lead(self, reading: _Reading) -> Topology:
        try:
            found = reading.found = await self._read()
        except Exception as error:
            reading.error = error
            raise
        finally:
            with self._lock:
                if reading.found is not None:
                    self._topology = reading.found
                self._reading = None
            for bell in reading.bells:
                bell.ring()
        return found

    async def _read(self) -> Topology:
        known = self._topology
        nodes = {*self.endpoint.nodes, *(known.replicas if known else ()), *(known.others if known else ())}
        asked = random.sample(sorted(nodes), len(nodes))  # a node that was cut off tells an old map for ever
        asked.sort(key=lambda address: address == self._failed)
        problem: BaseException | str = "no node is named"
        for address in asked:
            try:
                with anyio.fail_after(_ASK_S):
                    [answer] = await self._node(address).once([("CLUSTER", "SLOTS")])
            except (*AWAY, TimeoutError) as error:
                problem = error
                if self.refused(error):
                    raise
                continue
            if isinstance(answer, Exception):
                problem = answer
            else:
                return topology_of(answer, address, self.endpoint)
        raise NobodyAnswers(f"no node tells its slots: {problem}")

    def _node(self, address: Address) -> Connections:
        with self._lock:
            node = self._nodes.get(address)
            if node is None:
                node = self._nodes[address] = Connections(self.endpoint.node(address))
            return node

    def _doubt(self, known: Topology | None, failed: Address | None = None) -> None:
        self._doubted = known
        self._failed = failed

    async def once(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """See Connections.once: at the node of the first command's key."""
        known = await self.topology()
        address = self._way(known, commands[0])
        try:
            answers = await self._node(address).once(commands)
        except AWAY:
            self._doubt(known, address)
            raise
        problem = next((answer for answer in answers if isinstance(answer, (exceptions.AskError, *AWAY))), None)
        if problem is not None:
            self._doubt(known)
            # By ASK the other node would run a script on half of its keys: it waits until the slot has moved.
            raise exceptions.TryAgainError(f"{self._node(address).url} answers {problem}") from problem
        return answers

    def _way(self, known: Topology, command: Sequence[Any]) -> Address:
        name = command[0]
        if name in _KEYLESS:
            if not known.replicas:
                raise exceptions.ClusterDownError("no node serves any slot")
            return min(known.replicas)
        return self._owner(known, command[3] if name in ("EVALSHA", "EVAL") else command[1])

    def _owner(self, known: Topology, key: str) -> Address:
        try:
            return known.owner(key)
        except exceptions.ClusterDownError:
            self._doubt(known)
            raise

    def _pause(self, problem: BaseException | str, repeats: int, elapsed: float) -> float | None:
        if isinstance(problem, NobodyAnswers):
            return super()._pause(problem, repeats, elapsed)
        return PAUSES[min(repeats, len(PAUSES) - 1)] if elapsed <= PATIENCE else None

    async def aclose(self) -> None:
        """Close all clients of all nodes."""
        with self._lock:
            self.closings += 1
            nodes, self._nodes = list(self._nodes.values()), {}
            self._topology = None
        for node in nodes:
            await node.aclose()

    def _forked(self) -> None:
        super()._forked()
        self._reading = None  # its reader stayed with the parent


def connections_to(endpoint: Endpoint) -> Connections:
    """How to talk to a server or a cluster."""
    return ClusterConnections(endpoint) if isinstance(endpoint, ClusterEndpoint) else Connections(endpoint)
