"""What ``durability="wait:N"`` and ``"waitaof:N"`` refuse, with real replicas: none, one, and one that stands still."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest
import redis

from deadletter import BackendUnavailable, BatchFailed, DeadLetterQueue, DurabilityNotMet, RedisBackend, Task
from deadletter.backends.redis import shard
from deadletter.model.row import Claim, FailureRow, NewRow, Row
from deadletter.rules import changes

from ..redis_servers import Server, debian_program, free_ports, valkey_program
from .conftest import soon

pytestmark = [pytest.mark.full, pytest.mark.anyio]

AOF = ("--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes")
PROGRAMS = {"valkey": valkey_program, "debian": debian_program}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Pair:
    """A primary, and a replica that may be made to stand still."""

    def __init__(self, program: str, durability: str) -> None:
        self.durability = durability
        [port] = free_ports(1)
        local = ("--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0", *AOF)
        self.primary = Server(program, "--port", str(port), *local)
        self.replica = Server(program, "--replicaof", "127.0.0.1", str(port), *AOF)
        self.until_followed()

    def until_followed(self) -> None:
        """Wait until the replica has all that the primary has."""
        until = time.monotonic() + 30
        with self.primary.client() as client:
            client.set("here", 1)
            while client.wait(1, 100) < 1:
                assert time.monotonic() < until

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Its process does not run, and its connection stays."""
        assert self.replica.process is not None
        os.kill(self.replica.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.replica.process.pid, signal.SIGCONT)
            self.until_followed()

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        """It answers nobody for a while."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.replica.socket))
            line.sendall(b"DEBUG SLEEP 5\r\n")
            with contextlib.suppress(redis.TimeoutError), self.replica.client(socket_timeout=0.2, retry=None) as client:
                while client.ping():
                    continue
            yield
        self.until_followed()

    def end(self) -> None:
        self.primary.end()
        self.replica.end()


# Debian's is older than waitaof.
@pytest.fixture(scope="module", params=["valkey wait:1", "valkey waitaof:1", "debian wait:1"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    program, _, durability = request.param.partition(" ")
    made = Pair(PROGRAMS[program](), durability)
    yield made
    made.end()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A replica tells once a second what its file has."""
    aof = "waitaof" in request.node.name
    monkeypatch.setattr(shard, "_WAIT_MS", 1_500 if aof else 300)


@pytest.fixture
async def make_queue(anyio_backend: str, pair: Pair) -> AsyncIterator[Callable[[], DeadLetterQueue]]:
    """A function that makes a queue, each time with connections of its own: none of them has written anything."""
    url, made = pair.primary.emptied(), []

    def make(**options: Any) -> DeadLetterQueue:
        made.append(DeadLetterQueue(RedisBackend(url, durability=pair.durability), **options))
        return made[-1]

    yield make
    for dlq in made:
        await dlq.aclose()
        await dlq.backend.aclose()


@pytest.mark.parametrize("still", [Pair.stopped, Pair.asleep], ids=["stopped", "asleep"])
async def test_a_replica_that_stands_still_is_no_replica(
    pair: Pair, make_queue: Callable[..., DeadLetterQueue], still: Any
) -> None:
    """Its connection is still there, as are its older acknowledgements; whoever repeats is told again."""
    await make_queue().enqueue(Task(type="t"))
    task = Task(type="t", id="a")
    with still(pair):
        for _ in range(2):
            with pytest.raises(DurabilityNotMet, match="'a'") as caught:
                await make_queue().enqueue(task)
            assert caught.value.task_id == "a"
    assert await make_queue().enqueue(task) == "a"
    assert (await make_queue().stats()).by_state["pending"] == 2


async def dying(backend: RedisBackend) -> Any:
    """A change that makes a claimed row dead."""
    await backend.insert("default", [NewRow(id="a", type="t", digest="d", body=b"{}")])
    [row] = (await backend.claim("default", Claim(op="c", types=["t"]))).rows
    assert isinstance(row, Row)
    return changes.die(row, "d", "rejected", FailureRow(attempt=1), None)


async def test_a_death_that_is_repeated_waits_again(pair: Pair, make_queue: Callable[..., DeadLetterQueue]) -> None:
    """A repeat writes nothing: servers that wait for their connection's last write would answer at once."""
    death = await dying(make_queue().backend)  # type: ignore[arg-type]
    with pair.stopped():
        for _ in range(2):
            with pytest.raises(DurabilityNotMet, match="'a'"):
                await make_queue().backend.apply("default", [death])
    assert await make_queue().backend.apply("default", [death]) == ["repeated"]


async def test_each_of_many_callers_is_told_its_own_task(
    pair: Pair, make_queue: Callable[..., DeadLetterQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored together is refused together: nobody waits for the others one by one."""
    dlq = make_queue()
    await dlq.open()
    asked: list[int] = []
    insert = dlq.backend.insert

    async def counted(queue: str, rows: Any) -> Any:
        asked.append(len(rows))
        return await insert(queue, rows)

    monkeypatch.setattr(dlq.backend, "insert", counted)
    named: dict[str, str] = {}

    async def enqueue(id_: str) -> None:
        try:
            await dlq.enqueue(Task(type="t", id=id_))
        except DurabilityNotMet as error:
            named[id_] = error.task_id

    with pair.stopped():
        async with anyio.create_task_group() as group:
            for n in range(30):
                group.start_soon(enqueue, f"t{n}")
        with pytest.raises(BatchFailed) as caught:
            await dlq.enqueue_many([Task(type="t", id=f"t{n}") for n in range(30)])
    assert isinstance(caught.value.__cause__, DurabilityNotMet)
    assert named == {f"t{n}": f"t{n}" for n in range(30)}
    assert sum(asked) == 60
    assert await dlq.enqueue_many([Task(type="t", id=f"t{n}") for n in range(30)]) == [f"t{n}" for n in range(30)]


async def test_a_worker_whose_replica_stands_still_loses_and_doubles_nothing(
    pair: Pair, make_queue: Callable[..., DeadLetterQueue], caplog: pytest.LogCaptureFixture
) -> None:
    dlq, ran = make_queue(), []

    @dlq.processor("t")
    async def t(task: Task) -> bool:
        ran.append(task.id)
        return task.id != "bad"

    await dlq.enqueue_many([Task(type="t", id="bad"), Task(type="t", id="good")])
    async with anyio.create_task_group() as group:
        with pair.stopped():
            group.start_soon(dlq.worker().run)

            async def ended() -> bool:
                counts = (await dlq.stats()).by_state
                return (counts.get("dead"), counts.get("succeeded")) == (1, 1)

            async def told() -> bool:
                return "too few replicas have them yet: task 'bad'" in caplog.text

            await soon(ended)
            await soon(told)
        group.cancel_scope.cancel()
    assert sorted(ran) == ["bad", "good"]
    assert "refused by the store" not in caplog.text


async def test_a_paused_primary_only_takes_longer(pair: Pair, make_queue: Callable[..., DeadLetterQueue]) -> None:
    dlq = make_queue()
    await dlq.open()
    with pair.primary.client() as client:
        client.client_pause(500)
    assert await dlq.enqueue(Task(type="t", id="a")) == "a"


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
async def test_without_any_replica_all_is_refused_and_doctor_says_why(program: Callable[[], str]) -> None:
    server = Server(program())
    try:
        dlq = DeadLetterQueue(RedisBackend(server.url(), durability="wait:1"))
        with pytest.raises(DurabilityNotMet, match="'a'"):
            await dlq.enqueue(Task(type="t", id="a"))
        with pytest.raises(DurabilityNotMet, match="'b'"):
            await dlq.capture(Task(type="t", id="b"), ValueError("no"))
        found = [finding.text for finding in (await dlq.backend.inspect()).findings]
        assert "durability=wait:1 wants 1 replicas, and 0 are connected" in found
        await dlq.aclose()
        await dlq.backend.aclose()
    finally:
        server.end()


async def test_a_replica_takes_no_writes_and_says_so(pair: Pair) -> None:
    """In one line that tells what to do; what only reads may read there."""
    async with DeadLetterQueue(pair.primary.url()) as primary:
        task_id = await primary.enqueue(Task(type="t"))
    pair.until_followed()
    async with DeadLetterQueue(pair.replica.url()) as dlq:
        assert (await dlq.get(task_id)).state == "pending"
        for write in (dlq.enqueue(Task(type="t")), dlq.cancel(task_id), dlq.process_task(task_id, print)):
            with pytest.raises(
                BackendUnavailable, match="is a replica, which takes no writes; give the address of its p"
            ):
                await write
        assert {finding.level for finding in (await dlq.backend.inspect()).findings if "replica" in finding.text} == {
            "error"
        }
