"""deadletter itself, by the same harness."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from _record import Record, payload

from deadletter import DeadLetterQueue, RetryAfter, Task
from deadletter.retry import Schedule

PEER = "deadletter"


class Library:
    def __init__(self, url: str, does: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.does = does
        self.dlq = DeadLetterQueue(url, retry=Schedule([0, 0], jitter=0))

    def tasks(self, n: int) -> list[Task]:
        return [Task(type="work", payload=payload(number)) for number in range(n)]

    def send(self, n: int) -> float:
        return self.loop.run_until_complete(self._send(self.tasks(n)))

    async def _send(self, tasks: list[Task]) -> float:
        began = time.perf_counter()
        for task in tasks:
            await self.dlq.enqueue(task)
        return time.perf_counter() - began

    def bulk(self, n: int) -> float:
        return self.loop.run_until_complete(self._bulk(self.tasks(n)))

    async def _bulk(self, tasks: list[Task]) -> float:
        began = time.perf_counter()
        await self.dlq.enqueue_many(tasks)
        return time.perf_counter() - began

    def work(self, record: Record) -> None:
        self.loop.run_until_complete(self._work(record))

    async def _work(self, record: Record) -> None:
        record.again = lambda delay, given: RetryAfter(delay, "again")

        @self.dlq.processor("work")
        async def work(task: Task) -> None:
            record.start(task.payload["n"])

        working = asyncio.create_task(self.dlq.worker(concurrency=100).run())
        while not record.done.is_set():
            await asyncio.sleep(0.02)
        await self._settled(record)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await self.dlq.aclose()

    async def _settled(self, record: Record) -> None:
        """Counts add up: all are dead, or all succeeded."""
        end = "dead" if record.does == "fails" else "succeeded"
        until = time.monotonic() + 10
        while (found := (await self.dlq.stats()).by_state[end]) != record.n:  # type: ignore[index]
            if time.monotonic() > until:
                raise SystemExit(f"{found} of {record.n} {end}")
            await asyncio.sleep(0.02)


def connect(url: str, does: str) -> Any:
    return Library(url, does)
