"""Work beside the requests, in the loop that serves them, with or without an ASGI lifespan."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable

import anyio

log = logging.getLogger("deadletter.http")


class Background:
    """One coroutine that is started where it is wanted and does not run, and stopped with the application.

    Mounted in another application there may be no lifespan, so that a request starts it; the end of the loop ends it.
    """

    def __init__(self, run: Callable[[], Awaitable[None]]) -> None:
        self._run = run
        self._scope: anyio.CancelScope | None = None
        self._ended: anyio.Event | None = None
        self._wanted = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start it; where it runs, and is perhaps about to end, once more after that."""
        self._wanted = True
        if self._scope is not None:
            return
        self._scope, self._ended = anyio.CancelScope(), anyio.Event()
        trio = sys.modules.get("trio")
        if trio is not None and trio.lowlevel.in_trio_run():
            trio.lowlevel.spawn_system_task(self._life, self._scope, self._ended)
            return
        task = asyncio.get_running_loop().create_task(self._life(self._scope, self._ended))
        self._tasks.add(task)  # a loop holds its tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Stop it and wait until it has ended."""
        if self._scope is not None and self._ended is not None:
            self._scope.cancel()
            await self._ended.wait()

    async def _life(self, scope: anyio.CancelScope, ended: anyio.Event) -> None:
        try:
            with scope:
                while self._wanted:
                    self._wanted = False
                    await self._run()
        except Exception:  # nobody awaits it
            log.exception("work beside the requests failed")
        finally:
            if self._scope is scope:
                self._scope = None
            ended.set()
