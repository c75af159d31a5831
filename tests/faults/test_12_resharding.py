"""Slots that move under load: what was acknowledged ends once, and every index equals a recount."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.to_thread
import pytest
from redis.crc import key_slot

from deadletter import BackendError, BackendUnavailable, DeadLetterQueue, PermanentError, RedisBackend, Task
from deadletter.backends.redis import routes, scripts
from deadletter.backends.redis.keys import BODY, FIELDS, prefix
from deadletter.engine.worker import Worker
from deadletter.model.row import Claim, NewRow, Verdict
from deadletter.rules import changes

from ..redis_cluster import Cluster
from ..redis_servers import debian_program, valkey_program
from .conftest import recount, soon

MOVES = 20
DRAIN_S = 15.0
RESTS = 300  # rows that wait all the while, so that a move takes its time
PREFIX = prefix("default")
SLOT = key_slot(PREFIX.encode())


class Load:
    """A producer and a worker on one queue, and what they were told."""

    def __init__(self, cluster: Cluster, shards: int) -> None:
        self.dlq = DeadLetterQueue(RedisBackend(cluster.url, shards=shards), retry=[0.01, 0.01], lease=60)
        self.acknowledged: list[str] = []
        self.effects: Counter[str] = Counter()
        self.refused: list[str] = []
        self.stopped = False

        @self.dlq.processor("work")
        async def work(task: Task) -> None:
            await anyio.sleep(0.001)
            self.effects[task.id] += 1
            if task.payload["n"] % 5 == 0:
                raise PermanentError("no")
            if task.payload["n"] % 7 == 0 and self.effects[task.id] == 1:
                raise ValueError("again")

    async def rest(self) -> None:
        """Store rows that nobody works on."""
        tasks = [Task(type="rest", id=f"rest{n}", delay=3_600, payload={}) for n in range(RESTS)]
        await self.dlq.enqueue_many(tasks)

    async def produce(self) -> None:
        """Enqueue until stopped, each again with its id until it is acknowledged."""
        n = 0
        while not self.stopped:
            n += 1
            task = Task(type="work", id=f"t{n}", payload={"n": n})
            while True:
                try:
                    await self.dlq.enqueue(task)
                    break
                except BackendUnavailable:
                    pass
                except BackendError as error:
                    self.refused.append(str(error))
                await anyio.sleep(0.05)
            self.acknowledged.append(task.id)
            await anyio.sleep(0.002)

    async def drained(self) -> bool:
        """Whether only what rests is left."""
        tally = (await self.dlq.stats()).by_state
        return tally.get("pending", 0) == RESTS and not tally.get("running", 0)


@contextlib.asynccontextmanager
async def under_load(load: Load) -> AsyncIterator[None]:
    """Work while the block runs, then drain."""
    worker: Worker = load.dlq.worker(concurrency=8)
    async with anyio.create_task_group() as tasks:
        await load.rest()
        tasks.start_soon(load.produce)
        tasks.start_soon(worker.run)
        yield
        load.stopped = True
        with anyio.move_on_after(DRAIN_S):  # what is left then is told by the check
            await soon(load.drained, within=2 * DRAIN_S)
        tasks.cancel_scope.cancel()


async def move_slots(cluster: Cluster, shards: int, moves: int = MOVES) -> None:
    """Move the queue's slots, one after the other, from primary to primary under load; then check all that must hold."""
    load = Load(cluster, shards)
    async with under_load(load):
        for n in range(moves):
            before = len(load.acknowledged)
            its = prefix("default", n % shards)
            target = (cluster.owner(its) + 1) % len(cluster.primaries)
            await anyio.to_thread.run_sync(cluster.move, key_slot(its.encode()), target)
            await soon(lambda before=before: _more(load, before), within=20)
    check(load, [Stored(cluster, shard) for shard in range(shards)])
    await recount(load.dlq.backend)
    await load.dlq.aclose()


async def _more(load: Load, before: int) -> bool:
    return len(load.acknowledged) > before + 5


def check(load: Load, stored: list[Stored]) -> None:
    """I1 to I3, I5 and I6, by the keys themselves."""
    ended = {id_: row for store in stored for id_, row in store.rows.items() if row["type"] == "work"}
    assert sum(len(store.rows) for store in stored) == len(ended) + RESTS, "a row is on two shards"
    assert all(store.rows for store in stored)
    found = [f"I1: {id_} is lost" for id_ in load.acknowledged if id_ not in ended]
    found += [f"I2: nobody offered {id_}" for id_ in set(ended) - set(load.acknowledged)]
    for id_, row in ended.items():
        n, effects, losses = int(id_[1:]), load.effects[id_], int(row["lease_losses"] or 0)
        expected = "dead" if n % 5 == 0 else "succeeded"
        if row["state"] != expected:
            found.append(f"I1: {id_} is {row['state']}")
        claims = 2 if n % 7 == 0 and n % 5 else 1
        if effects != claims or losses or int(row["attempts"] or 0) != claims:
            found.append(f"I5: {id_} ran {effects} times, {row['attempts']} attempts, {losses} losses")
    found += [difference for store in stored for difference in store.differences()]
    dead = sum(row["state"] == "dead" for row in ended.values())
    counted = sum(store.counted("dead") for store in stored)
    if counted != dead:
        found.append(f"I6: dead is counted {counted} times and happened {dead} times")
    found += [f"refused: {error}" for error in load.refused]
    assert not found, "\n".join(found[:20])
    assert len(load.acknowledged) > MOVES


class Stored:
    """What the node of a shard's slot holds."""

    def __init__(self, cluster: Cluster, shard: int = 0) -> None:
        self.prefix = prefix("default", shard)
        self.ask = lambda *command: cluster.tell(cluster.owner(self.prefix), *command)
        slot = key_slot(self.prefix.encode())
        names = [key.decode() for key in self.ask("CLUSTER", "GETKEYSINSLOT", slot, 1_000_000)]
        self.keys = sorted(key[len(self.prefix) :] for key in names if key.startswith(self.prefix))
        self.rows: dict[str, dict[str, str]] = {}
        self.with_body: dict[str, bytes] = {}
        for key in self.keys:
            if key.startswith("t:"):
                told, self.with_body[key[2:]], _ = self.ask("GET", self.prefix + key).partition(BODY)
                fields = told.decode().split("\x1f")
                self.rows[key[2:]] = dict(zip(FIELDS, fields, strict=False))

    def differences(self) -> Iterator[str]:
        """I3: where an index and the records disagree."""
        expected: dict[str, set[str]] = defaultdict(set)
        for id_, row in self.rows.items():
            for index in _indexes(row):
                expected[index].add(id_)
            if row["state"] in ("pending", "running", "dead") and not self.with_body[id_]:
                yield f"I3: {id_} has no body"
        for key in self.keys:
            if key.partition(":")[0] in ("live", "done", "lease", "due", "dead", "dx"):
                expected.setdefault(key, set())
        for index, ids in expected.items():
            held = {member.decode() for member in self.ask("ZRANGE", self.prefix + index, 0, -1)}
            if held != ids:
                yield f"I3: {index} holds {sorted(held - ids)[:5]} too much, lacks {sorted(ids - held)[:5]}"

    def counted(self, name: str) -> int:
        """A lifetime counter."""
        told = self.ask("HGETALL", self.prefix + "stats")
        return sum(int(n) for key, n in told.items() if key.startswith(b'["' + name.encode() + b'"'))


def _indexes(row: dict[str, str]) -> Iterator[str]:
    rank, type_ = row["priority"], row["type"]
    if row["state"] == "pending":
        yield from ("live", f"due:{rank}:{type_}")
    elif row["state"] == "running":
        yield from ("live", "lease")
    elif row["state"] == "succeeded":
        yield "done"
    elif row["state"] == "dead":
        yield from ("dead", f"dead:{rank}", f"dx:type:{type_}", f"dx:reason:{row['reason']}")
        yield f"dx:fp:{row['fingerprint']}"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(valkey_program())
    yield made
    made.end()


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts that do not ask whether their slot is moving."""
    read = scripts._read

    def spoilt(name: str) -> str:
        text = read(name)
        if name == "prelude":
            assert "probe.err" in text
            text = text.replace("type(probe) == 'table' and probe.err", "false")
        return text

    monkeypatch.setattr(scripts, "_read", spoilt)
    scripts.load_script.cache_clear()
    yield
    monkeypatch.undo()
    scripts.load_script.cache_clear()


@pytest.mark.full
def test_twenty_moves_tear_and_double_nothing(cluster: Cluster) -> None:
    anyio.run(move_slots, cluster, 1)


@pytest.mark.full
def test_nor_do_they_of_a_queue_over_four_shards() -> None:
    """Of three primaries with a replica each, as users have them."""
    made = Cluster(debian_program(), replicas=1)
    try:
        anyio.run(move_slots, made, 4)
    finally:
        made.end()


async def release_in_mid_move(cluster: Cluster) -> tuple[BaseException | None, list[str], Verdict]:
    """A step while half of its keys have moved: how it ended, what differs after the move, and its repeat."""
    backend = RedisBackend(cluster.url)
    await backend.insert("default", [NewRow(id="x", type="t", digest="d", body=b"{}")])
    [row] = (await backend.claim("default", Claim(op="c", types=["t"], lease_ms=60_000, owner="w"))).rows
    change = changes.release(row, "op")
    source = cluster.owner(PREFIX)
    target = (source + 1) % len(cluster.primaries)
    cluster.tell(target, "CLUSTER", "SETSLOT", SLOT, "IMPORTING", cluster.ids[source])
    cluster.tell(source, "CLUSTER", "SETSLOT", SLOT, "MIGRATING", cluster.ids[target])
    # Its record is written before it is taken from this set.
    cluster.tell(source, "MIGRATE", "127.0.0.1", cluster.ports[target], f"{PREFIX}lease", 0, 5_000)
    ended: BaseException | None = None
    try:
        await backend.apply("default", [change])
    except BackendError as error:
        ended = error
    await anyio.to_thread.run_sync(cluster.move, SLOT, target)
    differs = list(Stored(cluster).differences())
    [verdict] = await backend.apply("default", [change])
    await backend.aclose()
    return ended, differs, verdict


@pytest.mark.full
def test_a_step_in_mid_move_changes_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "PATIENCE", 0.2)
    ended, differs, verdict = anyio.run(release_in_mid_move, cluster)
    assert isinstance(ended, BackendUnavailable)
    assert (differs, verdict) == ([], Verdict.DONE)
    assert list(Stored(cluster).differences()) == []


@pytest.mark.full
@pytest.mark.usefixtures("no_probe")
def test_without_the_probe_it_is_torn(cluster: Cluster) -> None:
    """A test of the test: the same step leaves a record that no index knows."""
    ended, differs, _ = anyio.run(release_in_mid_move, cluster)
    assert isinstance(ended, BackendError)
    assert any(found.startswith("I3: ") for found in differs)
