"""Celery: a worker of 32 threads in this process, prefetch 128, results ignored."""

from __future__ import annotations

import time
from typing import Any

from _record import Record, payload
from celery import Celery
from celery.contrib.testing.worker import start_worker

PEER = "celery"


class CeleryPeer:
    def __init__(self, url: str, does: str) -> None:
        self.app = Celery("bench", broker="redis+socket://" + url.removeprefix("unix://"))
        self.app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4, worker_hijack_root_logger=False)
        self.record: Record | None = None

        @self.app.task(bind=True, name="work", max_retries=2)
        def work(task: Any, given: dict[str, Any]) -> None:
            assert self.record is not None
            try:
                self.record.start(given["n"], task)
            except RuntimeError as error:
                raise task.retry(exc=error, countdown=0) from None

        self.task = work

    def send(self, n: int) -> float:
        began = time.perf_counter()
        for number in range(n):
            self.task.delay(payload(number))
        return time.perf_counter() - began

    def work(self, record: Record) -> None:
        def again(delay: float, task: Any) -> BaseException:
            return task.retry(countdown=delay, throw=False)  # type: ignore[no-any-return]

        record.again = again
        self.record = record
        with start_worker(self.app, pool="threads", concurrency=32, perform_ping_check=False, loglevel="CRITICAL"):
            record.done.wait()


def connect(url: str, does: str) -> Any:
    return CeleryPeer(url, does)
