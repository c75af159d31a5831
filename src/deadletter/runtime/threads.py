"""Threads start here and nowhere else, so that a simulator may run inline what they would run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

T = TypeVar("T")


def start_thread(name: str, run: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread named ``deadletter-<name>``."""
    thread = threading.Thread(target=run, name=f"deadletter-{name}", daemon=True)
    thread.start()
    return thread


class Threads:
    """Real threads."""

    inline = False

    async def run(self, call: Callable[[], T], limiter: anyio.CapacityLimiter | None) -> T:
        """Run ``call`` in a worker thread with the caller's context; a cancelled caller leaves it behind."""
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)


class InlineThreads(Threads):
    """No threads at all: everything runs in the event loop, in an order that a seed decides."""

    inline = True

    async def run(self, call: Callable[[], T], limiter: anyio.CapacityLimiter | None) -> T:
        """Run ``call`` here and now."""
        del limiter
        await anyio.lowlevel.checkpoint()
        return call()
