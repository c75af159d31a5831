"""RQ: SimpleWorker, which forks no process for each job; result_ttl 0; its scheduler in a thread of its own."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from _record import Record, payload
from redis import Redis
from rq import Queue, Retry, SimpleWorker
from rq.timeouts import TimerDeathPenalty

PEER = "rq"
RECORD: list[Record] = []


def work(given: dict[str, Any]) -> None:
    """The job: RQ finds it by the name of this module."""
    RECORD[0].start(given["n"])


class _InThread(SimpleWorker):
    death_penalty_class = TimerDeathPenalty

    def _install_signal_handlers(self) -> None:
        """Signals belong to the main thread."""


class Rq:
    def __init__(self, url: str, does: str) -> None:
        sys.modules.setdefault("_rq", sys.modules[__name__])
        self.connection = Redis(unix_socket_path=url.removeprefix("unix://"))
        self.queue, self.does = Queue(connection=self.connection), does

    def send(self, n: int) -> float:
        retry = {"noop": None, "fails": Retry(max=2, interval=0), "again": Retry(max=1, interval=2)}[self.does]
        began = time.perf_counter()
        for number in range(n):
            self.queue.enqueue("_rq.work", payload(number), retry=retry, result_ttl=0)
        return time.perf_counter() - began

    def work(self, record: Record) -> None:
        record.fixed = 2.0  # whole seconds, given when it is enqueued
        RECORD[:] = [record]
        worker = _InThread([self.queue], connection=self.connection)
        run = lambda: worker.work(with_scheduler=record.does == "again", logging_level="CRITICAL")  # noqa: E731
        threading.Thread(target=run, daemon=True).start()
        record.done.wait()


def connect(url: str, does: str) -> Any:
    return Rq(url, does)
