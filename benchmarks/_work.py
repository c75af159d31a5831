"""W1 enqueue, W2 drain, W3 fail to dead, W5 retry lateness: one process, through the public API."""

from __future__ import annotations

import asyncio
import gc
import random
import time
import tracemalloc

from _figures import Found, Measured, Stopwatch, lateness
from _stores import Store

TEXT = "x" * 160  # a payload of some 200 bytes


def tasks(n: int, type_: str = "noop") -> list:
    from deadletter import Task

    return [Task(type=type_, payload={"n": i, "to": "someone@example.org", "text": TEXT}) for i in range(n)]


async def enqueue_one_by_one(store: Store, folder: str, n: int) -> Found:
    from deadletter import DeadLetterQueue

    async with DeadLetterQueue(store.url(folder)) as dlq:
        given = tasks(n)
        with Stopwatch() as taken:
            for task in given:
                await dlq.enqueue(task)
    return {"W1 one by one": taken.rate(n)}


async def enqueue_by_64(store: Store, folder: str, n: int) -> Found:
    from deadletter import DeadLetterQueue

    async with DeadLetterQueue(store.url(folder)) as dlq:
        given = iter(tasks(n))

        async def feed() -> None:
            for task in given:
                await dlq.enqueue(task)

        with Stopwatch() as taken:
            await asyncio.gather(*(feed() for _ in range(64)))
    return {"W1 64 coroutines": taken.rate(n)}


async def enqueue_in_bulk(store: Store, folder: str, n: int) -> Found:
    from deadletter import DeadLetterQueue

    async with DeadLetterQueue(store.url(folder)) as dlq:
        given = tasks(n)
        with Stopwatch() as taken:
            await dlq.enqueue_many(given)
    return {"W1 bulk": taken.rate(n)}


async def drain(store: Store, folder: str, n: int) -> Found:
    from deadletter import DeadLetterQueue, Task

    starts: list[float] = []
    async with DeadLetterQueue(store.url(folder)) as dlq:

        @dlq.processor("noop")
        async def noop(task: Task) -> None:
            starts.append(time.perf_counter())

        await dlq.enqueue_many(tasks(n))
        with Stopwatch() as taken:
            await dlq.worker(concurrency=100).run_until_idle()
        stats = await dlq.stats()
        if stats.by_state["succeeded"] != n:
            raise SystemExit(f"not all done: {stats.by_state}")
    return {"W2 drain": Measured(n / (starts[-1] - starts[0]), taken.cpu / n * 1e6)}


def _send() -> None:
    raise OSError("no route to host")


def _charge(number: int) -> None:
    try:
        _send()
    except OSError as error:
        raise RuntimeError(f"charge {number} failed") from error


async def fail_to_dead(store: Store, folder: str, n: int) -> Found:
    from deadletter import DeadLetterQueue, Query, Task
    from deadletter.retry import Schedule

    starts: list[float] = []
    async with DeadLetterQueue(store.url(folder), retry=Schedule([0, 0], jitter=0)) as dlq:

        @dlq.processor("fails")
        async def fails(task: Task) -> None:
            starts.append(time.perf_counter())
            _charge(task.payload["n"])

        await dlq.enqueue_many(tasks(n, "fails"))
        with Stopwatch() as taken:
            await dlq.worker(concurrency=100).run_until_idle()
        page = await dlq.list(Query(), limit=1)
        kept = page.items[0].history
        if page.total != n or len(kept) != 3 or not all("direct cause" in failure.traceback for failure in kept):
            raise SystemExit(f"{page.total} letters of {n}, {len(kept)} failures kept")
    return {"W3 fail to dead": Measured(n / (starts[-1] - starts[0]), taken.cpu / n * 1e6)}


async def retry_lateness(store: Store, folder: str, n: int) -> Found:
    from deadletter import DeadLetterQueue, Task, current_attempt
    from deadletter.retry import Schedule

    failed: dict[str, float] = {}
    late: list[float] = []
    delay = min(1.0, n / 200)
    async with DeadLetterQueue(store.url(folder), retry=Schedule([delay], jitter=0)) as dlq:

        @dlq.processor("again")
        async def again(task: Task) -> None:
            now = time.monotonic()
            if current_attempt().number == 1:
                failed[task.id] = now
                raise OSError("not yet")
            late.append(now - failed[task.id] - delay)

        async with asyncio.TaskGroup() as group:
            working = group.create_task(dlq.worker().run())
            for task in tasks(n, "again"):
                await dlq.enqueue(task)
                await asyncio.sleep(random.uniform(0, 0.01))
            while len(late) < n:
                await asyncio.sleep(0.01)
            working.cancel()
    return {**lateness("W5 retry lateness", late), "W5 retry lateness, least": Measured(min(late) * 1e3)}


async def memory(store: Store, folder: str, n: int) -> Found:
    """What pending tasks and dead letters with one failure and a shared traceback take."""
    from _letters import letter

    from deadletter import DeadLetterQueue

    def taken() -> float:
        gc.collect()
        return store.size(folder) if store.size is not None else tracemalloc.get_traced_memory()[0]

    if store.size is None:
        tracemalloc.start()
    found: Found = {}
    kept: list[DeadLetterQueue] = []
    for figure, dies in (("memory, a pending task", False), ("memory, a dead letter", True)):
        async with DeadLetterQueue(store.url(folder)) as dlq:
            kept.append(dlq)
            await dlq.backend.insert("warm-up", [letter(0, 1), *map(dlq.new_row, tasks(1))])
            before = taken()
            for at in range(0, n, 100):  # what is inserted is let go of, so that only the store's own copy is counted
                given = range(at, min(n, at + 100))
                rows = [letter(i, n, alike=True) for i in given] if dies else [*map(dlq.new_row, tasks(len(given)))]
                await dlq.backend.insert("default", rows)
            del rows
            found[figure] = Measured((taken() - before) / n)
    return found
