"""A clock that stands still until it is told to move."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio
import anyio.lowlevel
import attrs

from ..interfaces.clock import Clock
from ..runtime.loops import loop_caller

_QUIET = 10  # rounds of a loop in which whoever is ready gets its turn before time jumps
_PATIENCE = 1.0  # real seconds until other loops are asked anew: one may have ended over the question


@attrs.define(order=True)
class _Sleeper:
    at: int
    number: int
    event: anyio.Event = attrs.field(order=False)
    call: Callable[..., object] = attrs.field(order=False)
    thread: int = attrs.field(order=False)

    def wake(self) -> None:
        """In its own loop: its time has come, or it is the next."""
        self.event.set()

    async def woken(self) -> None:
        await self.event.wait()
        self.event = anyio.Event()


class _Inquiry:
    """Whether other loops are idle: each is given a few rounds, and says so when it has had them."""

    def __init__(self, loops: Sequence[Callable[..., object]]) -> None:
        self._busy = set(range(len(loops)))
        self._over, self._home = anyio.Event(), loop_caller()
        for number, call in enumerate(loops):
            self._ask(number, call, _QUIET)

    def _ask(self, number: int, call: Callable[..., object], rounds: int) -> None:
        with suppress(RuntimeError):  # its loop is closed: nobody works there any more
            if rounds:
                call(self._ask, number, call, rounds - 1)
                return
        self._busy.discard(number)
        if not self._busy:
            with suppress(RuntimeError):
                self._home(self._over.set)

    async def idle(self) -> bool:
        """Wait for all answers; False where one stays out."""
        if self._busy:
            with anyio.move_on_after(_PATIENCE):
                await self._over.wait()
        return not self._busy


class VirtualClock(Clock):
    """Time that moves by ``advance`` alone; with ``autojump`` also to the next sleeper, once all its loops are idle.

    May be read, moved and slept on from any thread and event loop; a sleeper wakes once the time has passed its end.

    Args:
        start_ms: the first ``now_ms``.
        autojump: let ``sleep`` move the time. Every event loop that has slept on this clock is waited for, a lease
            keeper's in its own thread among them; where work goes on in other threads or on the network, advance by hand.
    """

    def __init__(self, start_ms: int = 1_750_000_000_000, *, autojump: bool = False) -> None:
        self._start_ms = start_ms
        self._autojump = autojump
        self._lock = threading.Lock()
        self._us = 0  # whole microseconds, since thousands of added floats would drift
        self._sleepers: list[_Sleeper] = []
        self._numbers = itertools.count()
        self._loops: dict[int, Callable[..., object]] = {}  # by thread: those that have slept here
        self._stirs = 0  # raised by every sleep and move: a jump waits until it stands still

    def now_ms(self) -> int:
        """``start_ms`` and what has passed since."""
        return self._start_ms + self._us // 1000

    def monotonic(self) -> float:
        """Seconds that have passed."""
        return self._us / 1e6

    @property
    def sleepers(self) -> int:
        """How many sleep now: a test that waits for them need not guess."""
        with self._lock:
            return len(self._sleepers)

    def sleeps(self, thread: int) -> bool:
        """Whether somebody sleeps in this thread: one that does not has not yet done what the last move asked of it."""
        with self._lock:
            return any(sleeper.thread == thread for sleeper in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move on, and wake those whose time has come.

        Raises:
            ValueError: for a negative number; time never runs backwards.
        """
        if seconds < 0:
            raise ValueError(f"cannot advance by {seconds} s: time never runs backwards")
        with self._lock:
            self._move(self._us + round(seconds * 1e6))

    async def sleep(self, seconds: float) -> None:
        """Wait until the time has passed; a checkpoint even for 0."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        event, call, thread = anyio.Event(), loop_caller(), threading.get_ident()
        with self._lock:
            at = self._us + round(seconds * 1e6)
            sleeper = _Sleeper(at, next(self._numbers), event, call, thread)
            heapq.heappush(self._sleepers, sleeper)
            self._loops[thread] = call
            self._stirs += 1
        try:
            while self._us < at:
                if self._autojump and self._is_next(sleeper):
                    await self._jump(sleeper)
                else:
                    await sleeper.woken()
        finally:
            with self._lock:
                if sleeper in self._sleepers:  # cancelled
                    self._sleepers.remove(sleeper)
                    heapq.heapify(self._sleepers)
                    self._tell_next()

    def _is_next(self, sleeper: _Sleeper) -> bool:
        with self._lock:
            return bool(self._sleepers) and self._sleepers[0] is sleeper

    async def _jump(self, sleeper: _Sleeper) -> None:
        """Move the time to its end once nothing stirs; or give up, when there is one before it."""
        stirs = self._stirs
        for _ in range(_QUIET):
            await anyio.lowlevel.checkpoint()
        with self._lock:
            others = [call for thread, call in self._loops.items() if thread != sleeper.thread]
        if self._stirs == stirs and await _Inquiry(others).idle():
            with self._lock:
                if self._stirs == stirs:
                    self._move(sleeper.at)

    def _move(self, us: int) -> None:
        self._us = us
        self._stirs += 1
        while self._sleepers and self._sleepers[0].at <= us:
            self._wake(heapq.heappop(self._sleepers))
        self._tell_next()

    def _tell_next(self) -> None:
        while self._autojump and self._sleepers and not self._wake(self._sleepers[0]):
            heapq.heappop(self._sleepers)

    @staticmethod
    def _wake(sleeper: _Sleeper) -> bool:
        """False where its loop is closed: nobody sleeps there any more."""
        try:
            sleeper.call(sleeper.wake)
        except RuntimeError:
            return False
        return True
