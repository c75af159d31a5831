"""huey (``pip install huey``), the fastest peer on a file: one thread, WAL, no results, at FULL and at OFF. Or on Redis.

It claims by deleting, so that a kill loses what runs, and it keeps nothing of what failed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from _figures import Found, Measured, Stopwatch
from _stores import Store
from _work import TEXT, _charge

_PATIENCE = 120


def _queue(store: Store, folder: str, *, fsync: bool) -> Any:
    from huey import RedisHuey, SqliteHuey

    url = store.url(folder)
    if url.startswith("sqlite"):
        return SqliteHuey(filename=f"{folder}/huey.db", journal_mode="wal", fsync=fsync, results=False)
    return RedisHuey(url=url, results=False)


def _run(store: Store, folder: str, n: int, *, fsync: bool, fails: bool) -> tuple[float, Stopwatch]:
    """Enqueue n and work them off: (tasks a second from the first start to the last, CPU of the work)."""
    queue = _queue(store, folder, fsync=fsync)
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


def measure(figure: str, *, fsync: bool = False, fails: bool = False) -> Callable[[Store, str, int], Found]:
    """Measure one case."""

    def once(store: Store, folder: str, n: int) -> Found:
        rate, taken = _run(store, folder, n, fsync=fsync, fails=fails)
        return {figure: Measured(rate, taken.cpu / n * 1e6)}

    return once


def enqueue(store: Store, folder: str, n: int) -> Found:
    """Enqueue one by one."""
    queue = _queue(store, folder, fsync=False)

    @queue.task()
    def work(payload: dict[str, object]) -> None:
        pass

    with Stopwatch() as taken:
        for number in range(n):
            work({"n": number, "to": "someone@example.org", "text": TEXT})
    return {"W1 huey on Redis": taken.rate(n)}
