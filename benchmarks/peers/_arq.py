"""arq: max_jobs 100, poll 0.01 s."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from _record import Record, payload
from arq import Retry, Worker, create_pool, func
from arq.connections import RedisSettings

PEER = "arq"


class Arq:
    def __init__(self, url: str, does: str) -> None:
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.settings, self.does = RedisSettings(unix_socket_path=url.removeprefix("unix://")), does

    def send(self, n: int) -> float:
        return self.loop.run_until_complete(self._send(n))

    async def _send(self, n: int) -> float:
        pool = await create_pool(self.settings)
        began = time.perf_counter()
        for number in range(n):
            await pool.enqueue_job("work", payload(number))
        taken = time.perf_counter() - began
        await pool.aclose()
        return taken

    def work(self, record: Record) -> None:
        self.loop.run_until_complete(self._work(record))

    async def _work(self, record: Record) -> None:
        record.again = lambda delay, given: Retry(defer=delay)

        async def work(ctx: Any, given: dict[str, Any]) -> None:
            try:
                record.start(given["n"])
            except Retry:  # a RuntimeError, too
                raise
            except RuntimeError as error:  # arq retries what asks for it only
                if ctx["job_try"] < 3:
                    raise Retry(defer=0) from error
                raise

        worker = Worker(
            [func(work, name="work", max_tries=3)],
            redis_settings=self.settings,
            max_jobs=100,
            poll_delay=0.01,
            handle_signals=False,
        )
        running = asyncio.create_task(worker.main())
        while not record.done.is_set():
            await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def connect(url: str, does: str) -> Any:
    return Arq(url, does)
