"""What time it is, and how to wait."""

from __future__ import annotations

import abc
import time

import anyio


class Clock(abc.ABC):
    """Time as the engine sees it. Everything that waits, waits here, so that a virtual clock can skip the waiting."""

    @abc.abstractmethod
    def now_ms(self) -> int:
        """Wall-clock milliseconds since the epoch."""

    @abc.abstractmethod
    def monotonic(self) -> float:
        """Seconds that never run backwards."""

    @abc.abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait; a checkpoint even for 0."""


class SystemClock(Clock):
    """The machine's clock."""

    def now_ms(self) -> int:
        """Wall-clock milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait; a checkpoint even for 0."""
        await anyio.sleep(seconds)
