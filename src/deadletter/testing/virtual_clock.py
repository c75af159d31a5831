"""A clock that stands still until it is told to move."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable

import anyio
import anyio.lowlevel
import attrs

from ..interfaces.clock import Clock
from ..runtime.loops import loop_caller

_QUIET = 10  # rounds of the loop in which whoever is ready gets its turn before time jumps


@attrs.define(order=True)
class _Sleeper:
    at: int
    number: int
    event: anyio.Event = attrs.field(order=False)
    call: Callable[..., object] = attrs.field(order=False)
    thread: int = attrs.field(order=False)


class VirtualClock(Clock):
    """Time that moves by ``advance`` alone; with ``autojump`` also to the next sleeper, once its loop is idle.

    May be read, moved and slept on from any thread and event loop; a sleeper wakes once the time has passed its end.

    Args:
        start_ms: the first ``now_ms``.
        autojump: let ``sleep`` move the time. Only what runs on the sleepers' loop is waited for; where work goes on in
            threads or on the network, advance by hand.
    """

    def __init__(self, start_ms: int = 1_750_000_000_000, *, autojump: bool = False) -> None:
        self._start_ms = start_ms
        self._autojump = autojump
        self._lock = threading.Lock()
        self._us = 0  # whole microseconds, since thousands of added floats would drift
        self._sleepers: list[_Sleeper] = []
        self._numbers = itertools.count()
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
        event = anyio.Event()
        with self._lock:
            at = self._us + round(seconds * 1e6)
            sleeper = _Sleeper(at, next(self._numbers), event, loop_caller(), threading.get_ident())
            heapq.heappush(self._sleepers, sleeper)
            self._stirs += 1
        try:
            if self._autojump:
                await self._jump(sleeper)
            await event.wait()
        finally:
            with self._lock:
                if sleeper in self._sleepers:  # cancelled
                    self._sleepers.remove(sleeper)
                    heapq.heapify(self._sleepers)

    async def _jump(self, sleeper: _Sleeper) -> None:
        quiet, stirs = 0, self._stirs
        while self._us < sleeper.at:
            await anyio.lowlevel.checkpoint()
            quiet, stirs = (quiet + 1, stirs) if self._stirs == stirs else (0, self._stirs)
            if quiet >= _QUIET:
                with self._lock:
                    if self._stirs == stirs and self._sleepers[0] is sleeper:
                        self._move(sleeper.at)

    def _move(self, us: int) -> None:
        self._us = us
        self._stirs += 1
        while self._sleepers and self._sleepers[0].at <= us:
            sleeper = heapq.heappop(self._sleepers)
            try:
                sleeper.call(sleeper.event.set)
            except RuntimeError:  # its loop is closed: nobody sleeps there any more
                continue
