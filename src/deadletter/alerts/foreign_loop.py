"""Libraries that know asyncio alone, under whatever loop we run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio.to_thread

T = TypeVar("T")


async def in_asyncio(call: Callable[[], Awaitable[T]]) -> T:
    """Await the call here under asyncio; under trio in a thread that runs an asyncio loop for it."""
    trio = sys.modules.get("trio")
    if trio is None or not trio.lowlevel.in_trio_run():
        return await call()

    async def run() -> T:
        return await call()

    return await anyio.to_thread.run_sync(lambda: asyncio.run(run()), abandon_on_cancel=True)
