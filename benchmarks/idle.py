"""What does an idle worker on SQLite cost, and how soon does it start a task that another process enqueues?

    python benchmarks/idle.py [--n 200] [--idle 20] [--json FILE]

A worker process idles first (its CPU time is read from the operating system), then this process enqueues tasks one
by one
at random intervals; lateness is from the return of ``enqueue`` to the start of the processor, on one clock.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time

import anyio
from report import report


async def work(url: str) -> None:
    """The worker process: prints when each task starts."""
    from deadletter import DeadLetterQueue, Task

    async with DeadLetterQueue(url) as dlq:

        @dlq.processor("ping")
        async def ping(task: Task) -> None:
            os.write(1, f"{task.payload['n']} {time.monotonic()}\n".encode())

        os.write(1, b"ready\n")
        await dlq.worker().run()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(n: int, idle: float) -> list[dict[str, object]]:
    """Idle first, then enqueue."""
    from deadletter import DeadLetterQueue, Task

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/queue.db"
        child = subprocess.Popen([sys.executable, __file__, "--work", url], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
        assert child.stdout is not None
        child.stdout.readline()
        await anyio.sleep(2)
        before = cpu_seconds(child.pid)
        await anyio.sleep(idle)
        share = (cpu_seconds(child.pid) - before) / idle
        late: list[float] = []
        async with DeadLetterQueue(url) as dlq:
            for number in range(n):
                await dlq.enqueue(Task(type="ping", payload={"n": number}))
                sent = time.monotonic()
                _, started = child.stdout.readline().split()
                late.append(max(0.0, float(started) - sent))
                await anyio.sleep(random.uniform(0.02, 0.08))
        child.terminate()
        child.wait()
    late.sort()
    return [
        {"figure": "idle CPU, % of a core", "value": share * 100, "goal": "< 0.5"},
        {"figure": "start after enqueue by another process, p50 ms", "value": late[len(late) // 2] * 1000},
        {"figure": "… p99 ms", "value": late[int(len(late) * 0.99)] * 1000, "goal": "<= 20"},
        {"figure": "… most ms", "value": late[-1] * 1000},
    ]


def main() -> None:
    """Measure, or be the worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--idle", type=float, default=20)
    parser.add_argument("--json")
    parser.add_argument("--work")
    given = parser.parse_args()
    if given.work:
        anyio.run(work, given.work)
        return
    report("An idle worker on SQLite", anyio.run(measure, given.n, given.idle), given.json)


if __name__ == "__main__":
    main()
