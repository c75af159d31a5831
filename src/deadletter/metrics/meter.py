"""What this process's own attempts took: histograms, filled as an Instrumentation of the queue."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import Histogram

from ..interfaces.instrumentation import AttemptSpan, AttemptStart, Instrumentation
from ..model.outcome import Outcome
from ..model.task import Task
from .labels import Bounded

if TYPE_CHECKING:
    from ..engine.queue import DeadLetterQueue

_OUTCOMES = ("succeeded", "failed")  # those that every type that is registered here shows from the start
_TAKEN = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_WAITED = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)


class Meter(Instrumentation):
    """Measures the attempts that run in this process.

    Attributes:
        taken: seconds of an attempt, by type and outcome.
        late: seconds from when a task was due to the start of its attempt.
        waited: seconds from enqueue or replay to the start of the first attempt.
    """

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._types = Bounded()
        self.taken = Histogram(
            "task_duration_seconds",
            "How long attempts in this process took.",
            ("queue", "type", "outcome"),
            registry=None,
            buckets=_TAKEN,
        )
        self.late = Histogram(
            "task_schedule_lateness_seconds",
            "How long after they were due attempts in this process started.",
            ("queue", "type"),
            registry=None,
            buckets=_WAITED,
        )
        self.waited = Histogram(
            "task_queue_wait_seconds",
            "From enqueue or replay to the start of the first attempt, in this process.",
            ("queue", "type"),
            registry=None,
            buckets=_WAITED,
        )

    def expect(self, types: list[str]) -> None:
        """Show the series of these types from the start."""
        for type_ in types:
            name = self._types(type_)
            for outcome in _OUTCOMES:
                self.taken.labels(self._queue, name, outcome)
            self.late.labels(self._queue, name)
            self.waited.labels(self._queue, name)

    @contextmanager
    def operation(self, name: str, *, queue: str, task_id: str | None = None, count: int = 1) -> Iterator[None]:
        """Not measured: what was done is counted by the store."""
        del name, queue, task_id, count
        yield

    def metadata(self) -> Mapping[str, str]:
        """Nothing to add."""
        return {}

    @contextmanager
    def attempt(self, task: Task, *, queue: str, number: int, start: AttemptStart) -> Iterator[AttemptSpan]:
        """Measure one attempt."""
        del queue, number
        name = self._types(task.type)
        self.late.labels(self._queue, name).observe(start.late)
        if start.waited is not None:
            self.waited.labels(self._queue, name).observe(start.waited)
        yield _Measured(self, name)

    def measure(self, name: str, outcome: str, taken: float) -> None:
        """Count an attempt that has ended."""
        self.taken.labels(self._queue, name, outcome).observe(taken)


class _Measured(AttemptSpan):
    def __init__(self, meter: Meter, name: str) -> None:
        self._meter, self._name = meter, name
        self._began = time.perf_counter()

    def ended(self, outcome: Outcome) -> None:
        self._meter.measure(self._name, type(outcome).__name__.lower(), time.perf_counter() - self._began)


_meters: weakref.WeakKeyDictionary[DeadLetterQueue, Meter] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def meter_of(queue: DeadLetterQueue) -> Meter:
    """The queue's meter; the first call makes it, and from then on it measures."""
    with _lock:
        found = _meters.get(queue)
        if found is None:
            found = _meters[queue] = Meter(queue.name)
            queue.watchers += (found,)
        return found
