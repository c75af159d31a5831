"""Queues, workers and commands on real servers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import attrs
import pytest

from deadletter import BackendUnavailable, DeadLetterQueue, Query, State, Task
from deadletter.backends.redis import RedisBackend
from deadletter.model.row import DEAD, Claim, Claimed, FailureRow, NewRow, Scan

from ..redis_servers import Server, valkey, valkey_program

pytestmark = pytest.mark.anyio

FORBIDDEN = {"KEYS", "SMEMBERS", "SCAN", "SORT", "FLUSHDB"}


async def test_a_worker_works_fails_and_buries() -> None:
    async with DeadLetterQueue(valkey().emptied(), retry_delays=[0]) as dlq:

        @dlq.processor("fine")
        def fine(_: Task) -> None: ...

        @dlq.processor("bad", max_retries=2)
        async def bad(task: Task) -> None:
            raise ValueError(f"no {task.payload['n']}")

        await dlq.enqueue_many([Task(type="fine", payload={"n": n}) for n in range(150)])
        await dlq.enqueue_many([Task(type="bad", payload={"n": n, "password": "x"}) for n in range(30)])
        await dlq.worker().run_until_idle()
        stats = await dlq.stats()
        assert (stats.by_state["succeeded"], stats.by_state["dead"]) == (150, 30)
        [group] = await dlq.groups()
        assert (group.count, group.error_type) == (30, "ValueError")
        page = await dlq.list(Query(error_contains="NO 7"))
        assert [item.task.payload["n"] for item in page.items] == [7]
        record = page.items[0]
        assert (record.attempts, len(record.history)) == (3, 3)
        assert record.history[0].traceback == record.history[1].traceback != ""
        result = await dlq.retry_all(Query(type="bad"))
        assert (result.matched, result.changed) == (30, 30)
        await dlq.purge(everything=True)
        await dlq.worker().run_until_idle()
        assert (await dlq.purge(Query(type="b*"))).changed == 30


async def test_a_queue_over_four_shards_is_worked_off_retried_and_purged() -> None:
    """All of 2,000 tasks, by workers that know nothing of shards."""
    async with DeadLetterQueue(f"{valkey().emptied()}&shards=4", retry_delays=[0]) as dlq:
        ran: Counter[int] = Counter()
        healed = False

        @dlq.processor("t", max_retries=0)
        async def t(task: Task) -> None:
            ran[task.payload["n"]] += 1
            if task.payload["n"] % 20 == 0 and not healed:
                raise ValueError("no")

        def key(n: int) -> str | None:
            return f"k{n}" if n % 3 == 0 else None

        tasks = [Task(type="t", payload={"n": n}, idempotency_key=key(n)) for n in range(2_000)]
        ids = await dlq.enqueue_many(tasks)
        assert ids == await dlq.enqueue_many(tasks) == [task.id for task in tasks]
        await dlq.worker().run_until_idle()
        assert dict(ran) == dict.fromkeys(range(2_000), 1)
        stats = await dlq.stats()
        assert (stats.by_state["succeeded"], stats.by_state["dead"]) == (1_900, 100)
        assert [record.task.payload["n"] % 20 async for record in dlq.scan()] == [0] * 100
        healed = True
        assert (await dlq.retry_all(everything=True, limit=50)).changed == 50
        await dlq.worker().run_until_idle()
        assert (await dlq.purge(everything=True)).changed == 50
        assert dict(ran) == {n: 2 if n % 20 == 0 and n in again(ran) else 1 for n in range(2_000)}
        assert len(again(ran)) == 50
        left = await dlq.stats()
        assert (left.by_state["succeeded"], left.by_state["dead"], left.by_state["pending"]) == (1_950, 0, 0)
        late = Task(type="t", payload={"n": 1}, delay=60)
        assert await dlq.process_task(await dlq.enqueue(late), t)


def again(ran: Counter[int]) -> set[int]:
    return {n for n, times in ran.items() if times > 1}


async def test_an_idle_worker_wakes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """From another process's connection, without polling: well before the poll that a lost hint would cost."""
    url = valkey().emptied()
    async with DeadLetterQueue(url) as dlq, DeadLetterQueue(url) as other, anyio.create_task_group() as group:
        ran, looked = anyio.Event(), anyio.Event()
        claim = dlq.backend.claim

        async def claim_and_tell(queue: str, wish: Claim) -> Claimed:
            claimed = await claim(queue, wish)
            looked.set()
            return claimed

        @dlq.processor("t")
        async def t(_: Task) -> None:
            ran.set()

        monkeypatch.setattr(dlq.backend, "claim", claim_and_tell)
        group.start_soon(dlq.worker().run)
        with valkey().client() as client:
            with anyio.fail_after(10):
                while not client.pubsub_channels("dl:*bell"):
                    await anyio.sleep(0.01)
            with anyio.fail_after(10):
                await looked.wait()  # and found nothing
        began = time.monotonic()
        await other.enqueue(Task(type="t"))
        with anyio.fail_after(4):
            await ran.wait()
        assert time.monotonic() - began < 2
        group.cancel_scope.cancel()


async def test_one_trip_to_enqueue_and_two_for_an_attempt() -> None:
    server = valkey()
    async with DeadLetterQueue(server.emptied()) as dlq:
        await dlq.enqueue(Task(type="t"))  # scripts are loaded, and the server was asked what it is
        await dlq.process_task(await dlq.enqueue(Task(type="t")), lambda _: None)
        with server.client() as client, server.client() as marker, client.monitor() as monitor:
            marker.ping()
            commands_until_ping(monitor)
            task_id = await dlq.enqueue(Task(type="t"))
            marker.ping()
            assert await dlq.process_task(task_id, lambda _: None)
            marker.ping()
            told = [commands_until_ping(monitor) for _ in range(2)]
    assert [[name for kind, name in part if kind != "lua"] for part in told] == [["EVALSHA"], ["EVALSHA"] * 2]
    assert not {name.upper() for part in told for _, name in part} & FORBIDDEN


def commands_until_ping(monitor: Any) -> list[tuple[str, str]]:
    """Who sent what: ``lua`` for what a script did."""
    found: list[tuple[str, str]] = []
    while not (told := monitor.next_command())["command"].startswith("PING"):
        found.append((told["client_type"], told["command"].split(" ")[0]))
    return found


@pytest.fixture
def durable() -> Iterator[Server]:
    server = Server(valkey_program(), "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.end()


async def test_a_killed_server_loses_nothing(durable: Server) -> None:
    """Killed three times while a producer and a worker are busy: every task whose enqueue returned is run."""
    ran: Counter[str] = Counter()
    kept: list[str] = []
    async with (
        DeadLetterQueue(durable.url(), lease=2) as dlq,
        DeadLetterQueue(durable.url()) as producer,
        anyio.create_task_group() as group,
    ):

        @dlq.processor("t")
        async def t(task: Task) -> None:
            ran[task.id] += 1
            await anyio.sleep(0.002)

        async def produce() -> None:
            for _ in range(300):
                task = Task(type="t")
                while True:
                    try:
                        kept.append(await producer.enqueue(task))
                        break
                    except BackendUnavailable:
                        await anyio.sleep(0.05)

        async with anyio.create_task_group() as producing:
            group.start_soon(dlq.worker(concurrency=8).run)
            producing.start_soon(produce)
            for at in (60, 120, 200):
                while len(kept) < at:
                    await anyio.sleep(0.005)
                await anyio.to_thread.run_sync(durable.kill)
                await anyio.to_thread.run_sync(durable.start)
        with anyio.fail_after(60):
            while await pending(producer):
                await anyio.sleep(0.1)
        group.cancel_scope.cancel()
    assert set(ran) == set(kept)
    assert len(set(kept)) == 300


async def pending(dlq: DeadLetterQueue) -> int:
    try:
        by_state = (await dlq.stats()).by_state
    except BackendUnavailable:
        return 1
    return by_state["pending"] + by_state["running"]


async def test_many_letters_are_read_in_short_steps() -> None:
    """10,000 letters with one time of death: pages, narrowing and purge, and no script takes long."""
    server = valkey()
    backend = RedisBackend(server.emptied())
    for start in range(0, 10_000, 100):
        rows = [
            NewRow(
                id=f"{n:06}",
                type="often" if n % 100 else "rare",
                digest="x",
                body=b"{}",
                state=DEAD,
                reason="captured",
                created_at_ms=5,
                ended_at_ms=7,
                history=[FailureRow(attempt=1, error_type="E", message="m", traceback="T" * 500, fingerprint="f")],
            )
            for n in range(start, start + 100)
        ]
        await backend.insert("many", rows)
    with server.client() as client:
        client.config_set("slowlog-log-slower-than", 0)
        client.config_set("slowlog-max-len", 5_000)
        client.slowlog_reset()
        found = [row.id async for row in scanned(backend, Scan(history=0, body=False))]
        assert found == [f"{n:06}" for n in reversed(range(10_000))]
        rare = [row.id async for row in scanned(backend, Scan(type="rare", newest_first=False))]
        assert rare == [f"{n:06}" for n in range(0, 10_000, 100)]
        counts = await backend.counts("many")
        assert counts.tally["dead", 1, "often", "captured"] == 9_900
        took = sorted(entry["duration"] for entry in client.slowlog_get(5_000) if b"EVALSHA" in entry["command"])
        client.config_set("slowlog-log-slower-than", 10_000)
    assert await backend._connections.command("HLEN", "dl:{many:0}:traces") == 1, (
        "a text that many share is stored once"
    )
    assert took[len(took) // 2] < 5_000, "in microseconds; half of them, since others share this machine"
    await backend.aclose()


async def scanned(backend: RedisBackend, scan: Scan) -> Any:
    while True:
        page = await backend.scan("many", scan)
        for row in page.rows:
            yield row
        if page.after is None:
            return
        scan = attrs.evolve(scan, after=page.after)


def test_the_command_line_takes_the_url() -> None:
    url = valkey().emptied()
    done = subprocess.run(
        [sys.executable, "-m", "deadletter", "doctor", "--url", url, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert '"valkey"' in done.stdout
    assert "no AOF" in done.stdout


async def test_a_subscriber_hears_of_deaths_elsewhere() -> None:
    url = valkey().emptied()
    async with DeadLetterQueue(url) as dlq, DeadLetterQueue(url) as other, dlq.subscribe("dead") as events:
        task_id = await other.capture(Task(type="t"), ValueError("no"))
        with anyio.fail_after(10):
            event = await anext(events)
        assert (event.task_id, event.kind) == (task_id, "dead")
        assert (await dlq.get(task_id)).state is State.DEAD
