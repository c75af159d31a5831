"""Crossing from any thread into an event loop, under asyncio and trio alike."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import anyio

T = TypeVar("T")


def loop_caller() -> Callable[..., object]:
    """A thread-safe function that calls ``f(*args)`` soon in the running loop."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_trio_token().run_sync_soon  # type: ignore[no-any-return]
    return asyncio.get_running_loop().call_soon_threadsafe


class Bell:
    """Wakes one coroutine from any thread; rings before a wait are kept as one.

    Made inside the loop that waits.
    """

    def __init__(self) -> None:
        self._call = loop_caller()
        self._event = anyio.Event()
        self._rung = False  # spares the loop a call per ring in a burst

    def ring(self) -> None:
        """Wake the waiter; from any thread, never blocks."""
        if self._rung:
            return
        self._rung = True
        try:
            self._call(self._set)
        except RuntimeError:  # its loop is closed: nobody waits there any more
            return

    def _set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        """Return at the next ring (or at once, where it rang since the last wait)."""
        await self._event.wait()
        self._event = anyio.Event()
        self._rung = False


class Reply(Generic[T]):
    """An answer that another thread brings to the coroutine that waits for it.

    On asyncio a bare future: an event and a checkpoint cost more than a whole SQLite statement.
    """

    __slots__ = ("_event", "_future", "call", "error", "leads", "value")

    def __init__(self) -> None:
        self.value: T | None = None
        self.error: BaseException | None = None
        self.leads = False  # woken to act for all who wait, not with an answer
        self._event: anyio.Event | None = None
        self._future: asyncio.Future[None] | None = None
        trio = sys.modules.get("trio")
        if trio is not None and trio.lowlevel.in_trio_run():
            self._event = anyio.Event()
            self.call: Callable[..., Any] = trio.lowlevel.current_trio_token().run_sync_soon
        else:
            loop = asyncio.get_running_loop()
            self._future = loop.create_future()
            self.call = loop.call_soon_threadsafe

    def arrive(self) -> None:
        """Wake the waiter; in its loop, after ``value`` or ``error`` was set."""
        if self._future is not None:
            if not self._future.done():
                self._future.set_result(None)
        elif self._event is not None:
            self._event.set()

    async def wait(self) -> T:
        """The value, or raise the error."""
        if self._future is not None:
            await self._future
        elif self._event is not None:
            await self._event.wait()
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


def arrive_all(replies: list[Reply[Any]]) -> None:
    """Wake many waiters of one loop in one call."""
    for reply in replies:
        reply.arrive()
