"""Talking to the server: scripts and commands, from any event loop in any thread, sent again where a reply is lost.

On asyncio each loop has a client of its own; elsewhere (trio) and for connection classes that asyncio cannot use, one
synchronous client serves from worker threads.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread
import redis
from redis import exceptions

from ...model.errors import BackendError, BackendUnavailable
from ...model.row import Finding
from .endpoint import Endpoint
from .scripts import Script
from .wires import Ear, LoopWire, ThreadWire, Wire

PAUSES = (0.0, 0.05, 0.2, 0.5)  # seconds before each repeat: every step is safe to repeat
_PATIENCE = 6.0  # seconds after which nothing is repeated any more
_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError)
AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    OSError,
)
_ABANDONED: list[Any] = []  # a parent's clients in a forked child: never used, never closed


class Connections:
    """A wire for every event loop, and the rules for sending again."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.closings = 0  # how often it was closed, after which whoever still listens is not to connect anew
        self.plain = False  # the server is a stand-in that does not know the #!lua line
        self._lock = threading.Lock()
        self._wires: weakref.WeakKeyDictionary[Any, Wire] = weakref.WeakKeyDictionary()
        self._shared: redis.Redis | None = None
        _at_fork(self)

    @property
    def url(self) -> str:
        """For messages."""
        return self.endpoint.url

    async def script(
        self, script: Script, key: str, args: Sequence[Any], then: Sequence[Sequence[Any]] = ()
    ) -> list[Any]:
        """Run a script on the slot of ``key``; its answer, and after it those of the commands ``then`` in the same trip.

        Raises:
            BackendUnavailable: it cannot be reached, or its slot is moving; repeating is safe.
            BackendError: the server refused.
        """
        if self.plain:
            script = script.plain
        call = ["EVALSHA", script.sha, 1, key, *args]
        answers = await self._sent([call, *then])
        if isinstance(answers[0], exceptions.NoScriptError):
            answers = await self._sent([["EVAL", script.text, *call[2:]], *then])
        for answer in answers:
            if isinstance(answer, Exception):
                raise self._refusal(answer)
        return [*answers[0], *answers[1:]] if then else answers[0]

    async def command(self, *command: Any) -> Any:
        """Run one command; refused, it raises BackendError."""
        [answer] = await self._sent([command])
        if isinstance(answer, Exception):
            raise self._refusal(answer)
        return answer

    async def primaries(self) -> dict[str, Connections]:
        """The servers that take writes, by name."""
        return {self.url: self}

    async def findings(self) -> list[Finding]:
        """What an operator should know of how the servers stand to each other."""
        return []

    async def listen(self, channel: str) -> Ear:
        """Subscribe to a channel."""
        try:
            return await (await self._here()).listen(channel)
        except AWAY as error:
            raise self.away(error) from error
        except exceptions.ResponseError as error:
            raise self._refusal(error) from error

    def away(self, error: BaseException | str) -> BackendUnavailable:
        """The error that says so."""
        if isinstance(error, exceptions.ReadOnlyError):
            return BackendUnavailable(
                f"{self.url} is a replica, which takes no writes; give the address of its primary (redis+sentinel:// and"
                " redis+cluster:// find it by themselves)"
            )
        return BackendUnavailable(f"{self.url} cannot be reached: {error}")

    def _refusal(self, error: Exception) -> BackendError:
        if isinstance(error, exceptions.OutOfMemoryError) or "OOM" in str(error):
            return BackendError(f"{self.url} has no memory left: nothing was stored; raise maxmemory or purge letters")
        if isinstance(error, exceptions.AskError):
            error.add_note("it is a node of a cluster: give a redis.RedisCluster, or a redis+cluster:// URL")
        refusal = BackendError(f"{self.url} refused: {error}")
        refusal.__cause__ = error
        return refusal

    async def _sent(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        began = time.monotonic()
        for repeats in itertools.count():
            problem: BaseException | str
            answers: list[Any] = []
            try:
                answers = await self.once(commands)
            except AWAY as error:
                if self.refused(error):
                    raise BackendUnavailable(f"{self.url} does not let us in: {error}") from error
                problem = error
            else:
                away = next((answer for answer in answers if isinstance(answer, AWAY)), None)
                if away is None and not (isinstance(answers[0], list) and answers[0][:1] == [b"moving"]):
                    return answers
                problem = away or "the queue's slot is moving to another node"
            pause = self._pause(problem, repeats, time.monotonic() - began)
            if pause is None:
                raise self.away(problem) from (problem if isinstance(problem, BaseException) else None)
            await anyio.sleep(pause)
        raise AssertionError  # it counts for ever

    def _pause(self, problem: BaseException | str, repeats: int, elapsed: float) -> float | None:
        """How long to wait before it is sent again; None gives up."""
        del problem  # a cluster tells by it whether a replica may yet take over
        return PAUSES[repeats] if repeats < len(PAUSES) and elapsed <= _PATIENCE else None

    @staticmethod
    def refused(error: BaseException) -> bool:
        """Whether the server does not let us in, which no repeat would change."""
        return isinstance(error, _REFUSED) or isinstance(error.__cause__, _REFUSED)

    async def once(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands, and nothing again: the answers, an exception for each that was refused."""
        wire = self._wires.get(_running())
        if wire is None:
            wire = await self._here()
        try:
            return await wire.run(commands)
        except AWAY:
            raise
        except exceptions.ResponseError as error:
            return [error, *[None] * (len(commands) - 1)]

    async def _here(self) -> Wire:
        loop = _running()
        wire = self._wires.get(loop)
        if wire is None:
            with self._lock:
                wire = self._wires.get(loop)
                if wire is None:
                    wire = self._wires[loop] = self._make(loop)
            if isinstance(wire, LoopWire):
                await wire.start()
        return wire

    def _make(self, loop: object) -> Wire:
        endpoint = self.endpoint
        if isinstance(loop, asyncio.AbstractEventLoop) and endpoint.async_class is not None:
            return LoopWire(endpoint)
        if endpoint.sync_class is None:
            raise BackendUnavailable(
                f"{self.url}: an asyncio client of this kind serves asyncio alone; give a redis.Redis, or a URL"
            )
        if self._shared is None:
            self._shared = endpoint.sync_client()
        return ThreadWire(self._shared)

    async def aclose(self) -> None:
        """Close all clients, in whatever loop they are."""
        with self._lock:
            self.closings += 1
            wires = list(self._wires.items())
            self._wires = weakref.WeakKeyDictionary()
            shared, self._shared = self._shared, None
        here = _running()
        for loop, wire in wires:
            if loop is here:
                await wire.close()
            elif isinstance(wire, LoopWire):
                _soon(loop, wire)
        if shared is not None:
            await anyio.to_thread.run_sync(shared.close)

    def _forked(self) -> None:
        _ABANDONED.append((self._wires, self._shared, list(self._wires.values())))
        self._lock = threading.Lock()
        self._wires, self._shared = weakref.WeakKeyDictionary(), None


def _soon(loop: asyncio.AbstractEventLoop, wire: LoopWire) -> None:
    def close() -> None:
        closing = loop.create_task(wire.close())
        _closing.add(closing)  # the loop keeps only weak references
        closing.add_done_callback(_closing.discard)

    try:
        loop.call_soon_threadsafe(close)
    except RuntimeError:  # it is closed, and closed its generators before
        return


_closing: set[asyncio.Task[None]] = set()


def _running() -> Any:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_trio_token()
    return asyncio.get_running_loop()


def _at_fork(connections: Connections) -> None:
    if not hasattr(os, "register_at_fork"):
        return
    known = weakref.ref(connections)

    def forked() -> None:
        alive = known()
        if alive is not None:
            alive._forked()  # noqa: SLF001 - its own

    os.register_at_fork(after_in_child=forked)
