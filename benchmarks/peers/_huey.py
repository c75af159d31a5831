"""huey on Redis with 2 threads, or on SQLite with one, WAL and ``synchronous=FULL``; no results."""

from __future__ import annotations

import time
from typing import Any

from _record import Record, payload
from huey import RedisHuey, SqliteHuey
from huey.exceptions import RetryTask

PEER = "huey"


class Huey:
    def __init__(self, url: str, does: str) -> None:
        on_file = url.startswith("sqlite:///")
        path = url.removeprefix("sqlite:///")
        self.queue = (
            SqliteHuey(filename=path, journal_mode="wal", fsync=True, results=False)
            if on_file
            else RedisHuey(url=url, results=False)
        )
        self.threads = 1 if on_file else 2
        self.record: Record | None = None
        retries = {"noop": 0, "fails": 2, "again": 1}[does]
        self.task = self.queue.task(retries=retries, retry_delay=0, name="work")(self._run)

    def _run(self, given: dict[str, Any]) -> None:
        assert self.record is not None
        self.record.start(given["n"])

    def send(self, n: int) -> float:
        began = time.perf_counter()
        for number in range(n):
            self.task(payload(number))
        return time.perf_counter() - began

    def work(self, record: Record) -> None:
        record.again = lambda delay, given: RetryTask(delay=delay)
        self.record = record
        consumer = self.queue.create_consumer(
            workers=self.threads, worker_type="thread", check_worker_health=False, periodic=False
        )
        consumer.start()
        record.done.wait()


def connect(url: str, does: str) -> Any:
    return Huey(url, does)
