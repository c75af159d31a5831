"""How fast does one worker process drain no-op tasks from SQLite at synchronous=FULL, beside huey on the same disk?

    python benchmarks/drain.py [--n 20000] [--runs 3] [--json FILE]

Each figure comes from a process of its own, the runs alternate, and the time counts from the first start to the last
one.
huey (``pip install huey``) runs with one thread, WAL and no results, at FULL and at OFF.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import anyio
from report import report

CASES = ("deadletter FULL", "huey FULL", "huey OFF")
SHARE = {"huey FULL": 8}  # a slow peer gets fewer tasks


def deadletter(folder: str, n: int) -> float:
    from deadletter import DeadLetterQueue, Task

    times: list[float] = []

    async def drain() -> None:
        async with DeadLetterQueue(f"sqlite:///{folder}/queue.db") as dlq:

            @dlq.processor("noop")
            async def noop(task: Task) -> None:
                times.append(time.perf_counter())

            await dlq.enqueue_many([Task(type="noop", payload={"n": i}) for i in range(n)])
            await dlq.worker(concurrency=100).run_until_idle()
            stats = await dlq.stats()
            if stats.by_state["succeeded"] != n:
                raise SystemExit(f"not all done: {stats.by_state}")

    anyio.run(drain)
    return n / (times[-1] - times[0])


def huey(folder: str, n: int, *, fsync: bool) -> float:
    from huey import SqliteHuey

    queue = SqliteHuey(filename=f"{folder}/huey.db", journal_mode="wal", fsync=fsync, results=False)
    times: list[float] = []
    done = threading.Event()

    @queue.task()
    def noop(number: int) -> None:
        times.append(time.perf_counter())
        if len(times) == n:
            done.set()

    for i in range(n):
        noop(i)
    queue.create_consumer(workers=1, worker_type="thread", check_worker_health=False, periodic=False).start()
    if not done.wait(300):
        raise SystemExit("huey did not finish within 300 s")
    return n / (times[-1] - times[0])


def one(case: str, n: int) -> None:
    """Measure one case in this process and print the figure."""
    with tempfile.TemporaryDirectory() as folder:
        rate = deadletter(folder, n) if case.startswith("deadletter") else huey(folder, n, fsync=case.endswith("FULL"))
        print(rate, flush=True)
        os._exit(0)  # huey's threads do not end by themselves


def measure(case: str, n: int) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", case, "--n", str(max(500, n // SHARE.get(case, 1)))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Run every case, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("--one", choices=CASES)
    given = parser.parse_args()
    if given.one:
        one(given.one, given.n)
    rates: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(given.runs):
        for case in CASES:
            rates[case].append(measure(case, given.n))
    ours = statistics.median(rates["deadletter FULL"])
    rows = [
        {
            "case": case,
            "tasks/s": statistics.median(values),
            "least": min(values),
            "most": max(values),
            "deadletter is faster by": ours / statistics.median(values),
        }
        for case, values in rates.items()
    ]
    report("Drain of no-op tasks, one worker process", rows, given.json)


if __name__ == "__main__":
    main()
