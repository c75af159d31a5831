"""huey on SQLite (``pip install huey``), the fastest peer on a file: one thread, WAL, no results; at FULL and at OFF.

It claims by deleting, so that a kill loses what runs, and it keeps nothing of what failed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from _figures import Found, Measured, Stopwatch
from _stores import Store
from _work import TEXT, _charge

_PATIENCE = 120


def _run(folder: str, n: int, *, fsync: bool, fails: bool) -> tuple[float, Stopwatch]:
    """Enqueue n and work them off: (tasks a second from the first start to the last, CPU of the work)."""
    from huey import SqliteHuey

    queue = SqliteHuey(filename=f"{folder}/huey.db", journal_mode="wal", fsync=fsync, results=False)
    starts: list[float] = []
    done = threading.Event()
    all_starts = 3 * n if fails else n

    @queue.task(retries=2 if fails else 0, retry_delay=0)
    def work(payload: dict[str, object]) -> None:
        starts.append(time.perf_counter())
        if len(starts) == all_starts:
            done.set()
        if fails:
            _charge(0)

    for number in range(n):
        work({"n": number, "to": "someone@example.org", "text": TEXT})
    consumer = queue.create_consumer(workers=1, worker_type="thread", check_worker_health=False, periodic=False)
    with Stopwatch() as taken:
        consumer.start()
        if not done.wait(_PATIENCE):
            raise SystemExit(f"huey did not finish within {_PATIENCE} s")
    consumer.stop(graceful=True)
    return n / (starts[-1] - starts[0]), taken


def measure(figure: str, *, fsync: bool, fails: bool = False) -> Callable[[Store, str, int], Found]:
    """Measure one case."""

    def once(store: Store, folder: str, n: int) -> Found:
        rate, taken = _run(folder, n, fsync=fsync, fails=fails)
        return {figure: Measured(rate, taken.cpu / n * 1e6)}

    return once
