"""An asyncio event loop under a seed: time is virtual, and who is ready runs in an order that the seed decides."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

import attrs

LANE: contextvars.ContextVar[Lane | None] = contextvars.ContextVar("lane", default=None)
MOMENT = 1e-6
STUCK = 50_000  # callbacks without time moving on


class Deadlock(AssertionError):
    """Nothing can ever run again, yet somebody waits."""


class Livelock(AssertionError):
    """Callbacks follow each other for ever, and time stands still."""


@attrs.define(eq=False)
class Lane:
    """What runs, and stops, together: one simulated process. Whatever starts in its context stays in it."""

    name: str
    held: bool = False
    waiting: list[asyncio.Handle] = attrs.field(factory=list)


Chooser = Callable[[Sequence[asyncio.Handle]], int]
"""Which of the ready callbacks runs next: the seam for other schedulers."""


def any_order(chance: random.Random) -> Chooser:
    """Any callback may be next, as under trio: more than asyncio itself would ever do."""
    return lambda ready: chance.randrange(len(ready))


def lane_order(chance: random.Random) -> Chooser:
    """Any process may be next; within it the oldest callback, as asyncio promises."""

    def choose(ready: Sequence[asyncio.Handle]) -> int:
        lane = lane_of(ready[chance.randrange(len(ready))])
        return next(index for index, handle in enumerate(ready) if lane_of(handle) is lane)

    return choose


def lane_of(handle: asyncio.Handle) -> Lane | None:
    """The process that a callback belongs to."""
    return handle._context.get(LANE)  # type: ignore[attr-defined]


class _Task(asyncio.Task[Any]):
    """Numbered in the order of creation, since sets of tasks (anyio keeps some) are ordered by address."""

    number: int

    def __hash__(self) -> int:
        return getattr(self, "number", -1)


class SeededLoop(asyncio.BaseEventLoop):
    """Runs one ready callback at a time; jumps to the next timer when there is none."""

    def __init__(self, choose: Chooser) -> None:
        super().__init__()
        self._choose = choose
        self._now = 0.0
        self._fresh: list[asyncio.Handle] = []
        self._able: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._since_jump = 0
        self.steps = 0
        self.set_task_factory(_numbered)

    def time(self) -> float:
        return self._now

    def number(self) -> int:
        return next(self._numbers)

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        self._fresh.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # there is no other thread

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:  # type: ignore[override]
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, self.number(), timer))
        return timer

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]
        raise AssertionError("a thread was asked for: it would escape the seed")

    def hold(self, lane: Lane) -> None:
        """Nothing of it runs until ``let_go``; its timers pass meanwhile, as for a stopped process."""
        lane.held = True
        self._sort_in()
        lane.waiting += [handle for handle in self._able if lane_of(handle) is lane]
        self._able = [handle for handle in self._able if lane_of(handle) is not lane]

    def let_go(self, lane: Lane) -> None:
        """It goes on where it stood."""
        lane.held = False
        self._able += lane.waiting
        lane.waiting = []

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run to the end of ``main``, then cancel what is left, and close."""
        try:
            self.run_until_complete(main)
        finally:
            self.run_until_complete(asyncio.sleep(MOMENT))  # what has not begun cannot be cancelled cleanly
            left = asyncio.all_tasks(self)
            for task in sorted(left, key=hash):
                task.cancel()
            if left:
                self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.run_until_complete(self.shutdown_asyncgens())
            self.close()

    def _run_once(self) -> None:
        self._sort_in()
        self._ring()
        while not self._able:
            self._jump()
        handle = self._able.pop(self._choose(self._able))
        self.steps += 1
        self._since_jump += 1
        if self._since_jump > STUCK:
            raise Livelock(f"{STUCK} callbacks at {self._now:.3f} s, the last one {handle!r}")
        if not handle.cancelled():
            handle._run()

    def _sort_in(self) -> None:
        # What one callback made ready stands in an order of our own: anyio wakes the members of a set.
        if len(self._fresh) > 1:
            self._fresh.sort(key=_number)
        for handle in self._fresh:
            lane = lane_of(handle)
            if lane is not None and lane.held:
                lane.waiting.append(handle)
            else:
                self._able.append(handle)
        self._fresh = []

    def _ring(self) -> None:
        rung = False
        while self._timers and self._timers[0][0] <= self._now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled():
                self._fresh.append(timer)
                rung = True
        if rung:
            self._sort_in()

    def _jump(self) -> None:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            raise Deadlock(f"at {self._now:.3f} s nothing can ever run again")
        self._now = max(self._now, self._timers[0][0])
        self._since_jump = 0
        self._ring()


def _numbered(loop: Any, coroutine: Any, **options: Any) -> _Task:
    task = _Task(coroutine, loop=loop, **options)
    task.number = loop.number()
    return task


def _number(handle: asyncio.Handle) -> int:
    owner = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return owner.number if isinstance(owner, _Task) else -1
