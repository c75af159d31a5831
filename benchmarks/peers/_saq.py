"""SAQ: concurrency 32."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from _record import Record, payload
from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue

PEER = "saq"


class Saq:
    def __init__(self, url: str, does: str) -> None:
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.queue, self.does = RedisQueue(Redis.from_url(url)), does

    def send(self, n: int) -> float:
        return self.loop.run_until_complete(self._send(n))

    async def _send(self, n: int) -> float:
        await self.queue.connect()
        began = time.perf_counter()
        for number in range(n):
            await self.queue.enqueue(
                "work", given=payload(number), retries=1 if self.does == "noop" else 3, retry_delay=0.0
            )
        return time.perf_counter() - began

    def work(self, record: Record) -> None:
        self.loop.run_until_complete(self._work(record))

    async def _work(self, record: Record) -> None:
        def again(delay: float, job: Any) -> BaseException:
            job.retry_delay = delay
            return RuntimeError("again")

        async def work(ctx: Any, *, given: dict[str, Any]) -> None:
            record.start(given["n"], ctx["job"])

        record.again = again
        worker = Worker(self.queue, functions=[("work", work)], concurrency=32)
        running = asyncio.create_task(worker.start())
        while not record.done.is_set():
            await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def connect(url: str, does: str) -> Any:
    return Saq(url, does)
