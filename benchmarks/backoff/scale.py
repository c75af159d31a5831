"""Many scheduled retries: memory of each, cost to schedule it, to put it off again, and to run the next that is due.

    python benchmarks/backoff/scale.py [--backend memory|sqlite|redis] [--sizes 1000,100000,1000000] [--json FILE]

Tasks are stored and fail once, so that each is put off for an hour; then single tasks are due among them. Every count is
checked against the store's own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from _figures import Stopwatch, resident
from _stores import STORES
from _work import tasks
from report import report

from deadletter import DeadLetterQueue, RetryAfter, Task

_STEP = 10_000


async def scheduled(backend: str, n: int, folder: str) -> dict[str, object]:
    """One line: so many retries on one backend."""
    store = STORES[backend]
    before = store.size(folder) if store.size is not None and backend == "redis" else resident()
    async with DeadLetterQueue(store.url(folder)) as dlq:

        @dlq.processor("noop")
        async def again(task: Task) -> None:
            raise RetryAfter(3_600, "later")

        @dlq.processor("due")
        async def due(task: Task) -> None:
            pass

        with Stopwatch() as stored:
            for at in range(0, n, _STEP):
                await dlq.enqueue_many(tasks(min(_STEP, n - at)))
        with Stopwatch() as put_off:
            await dlq.worker(concurrency=100).run_until_idle()
        stats = await dlq.stats()
        if stats.by_state["pending"] != n:
            raise SystemExit(f"{stats.by_state} after {n} tasks were put off")
        taken = []
        for _ in range(20):
            await dlq.enqueue(Task(type="due"))
            began = time.perf_counter()
            await dlq.worker().run_until_idle()
            taken.append(time.perf_counter() - began)
        size = (store.size(folder) if store.size is not None else resident()) - (0 if backend == "sqlite" else before)
    return {
        "backend": backend,
        "scheduled": n,
        "µs to store one": stored.wall / n * 1e6,
        "µs to fail one and put it off": put_off.wall / n * 1e6,
        "ms to run the next due": statistics.median(taken) * 1e3,
        "bytes each": size / n,
    }


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=STORES, default="memory")
    parser.add_argument("--sizes", default="1000,100000,1000000")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    rows = []
    for size in map(int, given.sizes.split(",")):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                STORES[given.backend].url(folder)
                rows.append(asyncio.run(scheduled(given.backend, size, folder)))
            finally:
                STORES[given.backend].end(folder)
    report(f"Scheduled retries on {given.backend}", rows, given.json)


if __name__ == "__main__":
    main()
