"""What the tasks of every library do, and the check that what was measured did happen."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import attrs
from _work import TEXT, _charge

TIMES = {"noop": 1, "fails": 3, "again": 2}  # how often each task has to start


class Peer(Protocol):
    """A library under test: ``send`` enqueues one by one, ``work`` runs a worker until ``record.done``."""

    def send(self, n: int) -> float:
        """Enqueue tasks 0 to n - 1; answer the seconds that it took."""

    def work(self, record: Record) -> None:
        """Work them off."""


def payload(number: int) -> dict[str, Any]:
    """Some 200 bytes."""
    return {"n": number, "to": "someone@example.org", "text": TEXT}


@attrs.define(kw_only=True)
class Record:
    """Starts of tasks.

    Attributes:
        does: ``noop``; ``fails`` each time, with a chained traceback; ``again`` fails at first and is due together with all.
        n: tasks.
        again: the exception that asks for a retry in so many seconds; called with what ``start`` was given.
        fixed: the delay in seconds, where the library takes none from a task.
    """

    does: str
    n: int
    again: Callable[[float, Any], BaseException] = lambda delay, given: RuntimeError("again")
    fixed: float | None = None
    done: threading.Event = attrs.field(factory=threading.Event)
    starts: list[tuple[int, float]] = attrs.field(factory=list)
    due: dict[int, float] = attrs.field(factory=dict)
    late: list[float] = attrs.field(factory=list)
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    together: float = 0.0

    def begin(self) -> None:
        """Set the moment at which all retries fall due: late enough that every first attempt is over."""
        self.together = time.perf_counter() + 1.5 + self.n / 700

    def start(self, number: int, given: Any = None) -> None:
        """Be the task's body."""
        now = time.perf_counter()
        with self.lock:
            self.starts.append((number, now))
            if self.does == "again" and number in self.due:
                self.late.append(now - self.due[number])
            if len(self.starts) == TIMES[self.does] * self.n:
                self.done.set()
            first = number not in self.due
        if self.does == "fails":
            _charge(number)
        if self.does == "again" and first:
            self.due[number] = self.together if self.fixed is None else now + self.fixed
            raise self.again(max(0.0, self.due[number] - time.perf_counter()), given)

    def rate(self) -> float:
        """Tasks a second, from the first start to the last."""
        return self.n / (self.starts[-1][1] - self.starts[0][1])

    def check(self) -> None:
        """Each id ran exactly as often as it should, and no other one did."""
        ran = Counter(number for number, _ in self.starts)
        wrong = {number: ran[number] for number in range(self.n) if ran[number] != TIMES[self.does]}
        if wrong or len(ran) != self.n:
            raise SystemExit(
                f"{len(wrong)} of {self.n} tasks did not start {TIMES[self.does]} times: {dict(list(wrong.items())[:5])}"
            )
        if self.does == "again" and self.fixed is None:
            firsts = sorted(at for _, at in self.starts)[: self.n]
            if firsts[-1] > self.together:
                raise SystemExit(
                    f"first attempts went on for {firsts[-1] - self.together:.1f} s after their retries were due"
                )
