"""dramatiq on Redis (``pip install dramatiq``), the fastest peer there to enqueue and to drain: 32 threads, no results."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from _figures import Found, Measured, Stopwatch
from _stores import Store
from _work import TEXT, _charge

_PATIENCE = 300


def _broker(store: Store, folder: str) -> Any:
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.middleware import Retries

    return RedisBroker(url=store.url(folder), middleware=[Retries(max_retries=2, min_backoff=1, max_backoff=1)])


def enqueue(store: Store, folder: str, n: int) -> Found:
    """Enqueue one by one."""
    import dramatiq

    actor = dramatiq.actor(lambda payload: None, actor_name="work", broker=_broker(store, folder))
    with Stopwatch() as taken:
        for number in range(n):
            actor.send({"n": number, "to": "someone@example.org", "text": TEXT})
    return {"W1 dramatiq": taken.rate(n)}


def measure(figure: str, *, fails: bool = False) -> Callable[[Store, str, int], Found]:
    """Measure one case: tasks a second from the first start to the last."""

    def once(store: Store, folder: str, n: int) -> Found:
        import dramatiq

        broker = _broker(store, folder)
        starts: list[float] = []
        done, number, all_starts = threading.Event(), itertools.count(1), 3 * n if fails else n

        def work(payload: dict[str, object]) -> None:
            starts.append(time.perf_counter())
            if next(number) == all_starts:
                done.set()
            if fails:
                _charge(0)

        actor = dramatiq.actor(work, actor_name="work", broker=broker)
        for at in range(n):
            actor.send({"n": at, "to": "someone@example.org", "text": TEXT})
        worker = dramatiq.Worker(broker, worker_threads=32)
        with Stopwatch() as taken:
            worker.start()
            if not done.wait(_PATIENCE):
                raise SystemExit(f"dramatiq did not finish within {_PATIENCE} s")
        return {figure: Measured(n / (max(starts) - starts[0]), taken.cpu / n * 1e6)}

    return once
