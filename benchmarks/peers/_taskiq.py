"""Taskiq: RedisStreamBroker, 100 async tasks, no result backend. Its delayed retries need a scheduler: not measured."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from _record import Record, payload
from taskiq import SimpleRetryMiddleware
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

PEER = "taskiq"


class Taskiq:
    def __init__(self, url: str, does: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.broker = RedisStreamBroker(url).with_middlewares(SimpleRetryMiddleware(default_retry_count=3))
        self.record: Record | None = None

        @self.broker.task(task_name="work", retry_on_error=does == "fails", max_retries=3)
        async def work(given: dict[str, Any]) -> None:
            assert self.record is not None
            self.record.start(given["n"])

        self.task = work

    def send(self, n: int) -> float:
        return self.loop.run_until_complete(self._send(n))

    async def _send(self, n: int) -> float:
        self.broker.is_worker_process = True
        await self.broker.startup()
        began = time.perf_counter()
        for number in range(n):
            await self.task.kiq(payload(number))
        return time.perf_counter() - began

    def work(self, record: Record) -> None:
        self.loop.run_until_complete(self._work(record))

    async def _work(self, record: Record) -> None:
        self.record = record
        running = asyncio.create_task(run_receiver_task(self.broker, max_async_tasks=100))
        while not record.done.is_set():
            await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def connect(url: str, does: str) -> Any:
    return Taskiq(url, does)
