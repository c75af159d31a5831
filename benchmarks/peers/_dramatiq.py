"""Dramatiq: 32 threads, no results."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
from _record import Record, payload
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import Retry
from dramatiq.middleware import Retries

PEER = "dramatiq"


class Dramatiq:
    def __init__(self, url: str, does: str) -> None:
        self.broker = RedisBroker(url=url, middleware=[Retries(max_retries=2, min_backoff=1, max_backoff=1)])
        self.record: Record | None = None
        self.actor = dramatiq.actor(self._run, actor_name="work", broker=self.broker)

    def _run(self, given: dict[str, Any]) -> None:
        assert self.record is not None
        self.record.start(given["n"])

    def send(self, n: int) -> float:
        began = time.perf_counter()
        for number in range(n):
            self.actor.send(payload(number))
        return time.perf_counter() - began

    def work(self, record: Record) -> None:
        record.again = lambda delay, given: Retry(delay=round(delay * 1000))
        self.record = record
        dramatiq.Worker(self.broker, worker_threads=32).start()
        record.done.wait()


def connect(url: str, does: str) -> Any:
    return Dramatiq(url, does)
