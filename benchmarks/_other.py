"""W4 idle wake-up and W6 kill -9 midway: a worker in a process of its own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from _figures import Found, Measured, lateness
from _stores import Store

LEASE = 2.0  # of W6, in seconds


async def work(url: str, lease: str) -> None:
    """The worker process: tells when each task starts and ends."""
    from deadletter import DeadLetterQueue, Task

    async with DeadLetterQueue(url, lease=float(lease)) as dlq:

        @dlq.processor("ping")
        async def ping(task: Task) -> None:
            tell("start", task)

        @dlq.processor("slow")
        async def slow(task: Task) -> None:
            await asyncio.sleep(0.005)
            tell("end", task)

        def tell(what: str, task: Task) -> None:
            os.write(1, f"{what} {task.payload['n']} {time.monotonic()}\n".encode())

        os.write(1, b"ready\n")
        await dlq.worker().run()


def _spawn(url: str, stdout: int | None = subprocess.PIPE, lease: float = 60) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name("throughput.py")), "--work", url, str(lease)]
    return subprocess.Popen(command, stdout=stdout, text=True)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def wake_other(store: Store, folder: str, n: int) -> Found:
    """Idle first, whose CPU time the operating system tells; then tasks at random intervals."""
    from deadletter import DeadLetterQueue, Task

    late: list[float] = []
    with _spawn(store.url(folder)) as child:
        assert child.stdout is not None
        child.stdout.readline()
        await asyncio.sleep(min(1.0, n / 100))
        idle = min(10.0, n / 20)
        before = _cpu_seconds(child.pid)
        await asyncio.sleep(idle)
        share = (_cpu_seconds(child.pid) - before) / idle
        async with DeadLetterQueue(store.url(folder)) as dlq:
            for number in range(n):
                await dlq.enqueue(Task(type="ping", payload={"n": number}))
                sent = time.monotonic()
                late.append(max(0.0, float(child.stdout.readline().split()[2]) - sent))
                await asyncio.sleep(random.uniform(0, 0.08))
        child.kill()
    return {**lateness("W4 wake-up in another process", late), "W4 idle CPU": Measured(share * 100)}


async def wake_same(store: Store, folder: str, n: int) -> Found:
    """From the return of ``enqueue`` to the start, in one event loop."""
    from deadletter import DeadLetterQueue, Task

    started: dict[str, float] = {}
    late: list[float] = []
    async with DeadLetterQueue(store.url(folder)) as dlq:

        @dlq.processor("ping")
        async def ping(task: Task) -> None:
            started[task.id] = time.monotonic()

        async with asyncio.TaskGroup() as group:
            working = group.create_task(dlq.worker().run())
            await asyncio.sleep(0.05)
            for number in range(n):
                id_ = await dlq.enqueue(Task(type="ping", payload={"n": number}))
                sent = time.monotonic()
                await asyncio.sleep(random.uniform(0.01, 0.03))
                while id_ not in started:
                    await asyncio.sleep(0.001)
                late.append(max(0.0, started[id_] - sent))
            working.cancel()
    return lateness("W4 wake-up in the same process", late)


async def kill(store: Store, folder: str, n: int) -> Found:
    """Kill the worker midway, start another at once, and count what comes back when."""
    from _work import tasks

    from deadletter import DeadLetterQueue

    url, told = store.url(folder), Path(folder, "told")
    async with DeadLetterQueue(url) as dlq:
        await dlq.enqueue_many(tasks(n, "slow"))
    with told.open("ab") as out:
        with _spawn(url, out.fileno(), LEASE) as child:
            while told.read_bytes().count(b"end") < n // 2:
                await asyncio.sleep(0.001)
            child.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        with _spawn(url, out.fileno(), LEASE) as child:
            async with DeadLetterQueue(url) as dlq:
                while (stats := await dlq.stats()).by_state["succeeded"] < n and time.monotonic() < killed + 60:
                    await asyncio.sleep(0.02)
            child.kill()
    ends = [line.split() for line in told.read_text().splitlines() if line.startswith("end")]
    times = Counter(number for _, number, _ in ends)
    return {
        "W6 lost": Measured(n - min(stats.by_state["succeeded"], len(times))),
        "W6 all back": Measured(max(float(at) for *_, at in ends) - killed - LEASE),
        "W6 run twice": Measured(sum(count > 1 for count in times.values())),
    }
