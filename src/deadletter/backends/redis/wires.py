"""What one event loop talks and listens through: an asyncio client of its own, or a synchronous one in threads."""

from __future__ import annotations

import abc
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import anyio
import anyio.to_thread
from redis import exceptions

from ...runtime.loops import Bell
from ...runtime.threads import start_thread
from .endpoint import CONNECTIONS, Endpoint
from .lines import Lines, can_be_held
from .sentinel import close_sentinels

LISTEN = 5.0  # seconds of one wait for a message
_SCRIPTS = ("EVALSHA", "EVAL")  # to which redis-py's own reading of answers adds nothing
_LISTEN_THREAD = 0.5  # likewise where a thread waits, which nobody can interrupt


class Ear(abc.ABC):
    """One subscription to one channel."""

    @abc.abstractmethod
    async def hear(self) -> bool | None:
        """Wait for messages; True where one of them said that an event was stored, None where a while passed in silence.

        Raises:
            ConnectionError: the server is gone, or gives no sign of life.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Stop listening."""


def _dead(silence: float) -> exceptions.ConnectionError:
    return exceptions.ConnectionError(f"it gave no sign of life for {silence:g} s")


class Wire(abc.ABC):
    """What one event loop talks through."""

    @abc.abstractmethod
    async def run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands on one connection in one trip; the answers, an exception for each that was refused.

        Whoever is cancelled hears the answer first, within the socket's timeout: else what was sent might run after the
        steps that clean up after it.
        """

    @abc.abstractmethod
    async def listen(self, channel: str) -> Ear:
        """Subscribe; returns once the server has confirmed it."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close its connections."""


class LoopWire(Wire):
    """On asyncio."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._client: Any = endpoint.async_client()  # redis-py annotates only parts of itself
        self._lines = Lines(self._client.connection_pool) if can_be_held(endpoint.async_class) else None
        self._life = self._lives()

    async def start(self) -> None:
        """Tie the client to the loop's life."""
        await anext(self._life)

    async def _lives(self) -> AsyncGenerator[None, None]:
        # An ending loop closes its asynchronous generators, which is the only hook that it offers: a lease keeper's
        # loop ends without anybody who could await us.
        try:
            yield
        finally:
            await self._client.aclose(close_connection_pool=True)
            await close_sentinels(self._client)

    async def run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """See Wire.run."""
        if self._lines is not None and self._lines.held and commands[0][0] in _SCRIPTS:
            answers = await self._lines.ask(commands)
            if answers is not None:
                return answers
        with anyio.CancelScope(shield=True):
            return await self._run(commands)
        raise AssertionError  # nobody cancels that scope

    async def _run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        if len(commands) == 1:
            return [await self._client.execute_command(*commands[0])]
        async with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(await pipe.execute(raise_on_error=False))

    async def listen(self, channel: str) -> Ear:
        """See Wire.listen."""
        ear = _LoopEar(self._client.pubsub())
        try:
            await ear.open(channel)
        except BaseException:
            await ear.close()
            raise
        return ear

    async def close(self) -> None:
        """See Wire.close."""
        await self._life.aclose()


class _LoopEar(Ear):
    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub
        self._asked = False  # for a sign of life

    async def open(self, channel: str) -> None:
        await self._pubsub.subscribe(channel)
        while (message := await self._pubsub.get_message(timeout=LISTEN)) is None or message["type"] != "subscribe":
            if message is None:
                raise _dead(LISTEN)

    async def hear(self) -> bool | None:
        while True:
            message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=LISTEN)
            if message is None:
                await self._ask()
                return None
            self._asked = False
            if message["type"] == "message":
                return await self._burst(message)

    async def _ask(self) -> None:
        """Say that we are here: a line that was cut without a word looks like silence for ever."""
        if self._asked:
            raise _dead(2 * LISTEN)
        self._asked = True
        await self._pubsub.ping()

    async def _burst(self, message: Any) -> bool:
        event = False
        while message is not None:  # a burst is one hint
            event = event or message["data"] == b"event"
            message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=0)
        return event

    async def close(self) -> None:
        await self._pubsub.aclose()


class ThreadWire(Wire):
    """Anywhere: a synchronous client in worker threads."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._limiter = anyio.CapacityLimiter(CONNECTIONS)

    async def run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """See Wire.run."""
        with anyio.CancelScope(shield=True):
            return await anyio.to_thread.run_sync(self._run, commands, abandon_on_cancel=True, limiter=self._limiter)
        raise AssertionError  # nobody cancels that scope

    def _run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        if len(commands) == 1:
            return [self._client.execute_command(*commands[0])]
        with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(pipe.execute(raise_on_error=False))

    async def listen(self, channel: str) -> Ear:
        """See Wire.listen."""
        ear = _ThreadEar(self._client, channel)
        await ear.opened()
        return ear

    async def close(self) -> None:
        """See Wire.close."""


class _ThreadEar(Ear):
    def __init__(self, client: Any, channel: str) -> None:
        self._client, self._channel = client, channel
        self._bell = Bell()
        self._lock = threading.Lock()
        self._event = self._heard = self._silent = self._subscribed = self._over = False
        self._error: BaseException | None = None
        start_thread("redis-listen", self._listen)

    def _listen(self) -> None:
        try:
            with self._client.pubsub() as pubsub:
                pubsub.subscribe(self._channel)
                quiet = 0.0
                while not self._over:
                    message = pubsub.get_message(timeout=_LISTEN_THREAD)
                    quiet = 0.0 if message is not None else self._pass(pubsub, quiet)
                    if message is not None:
                        self._take(message)
        except Exception as error:
            self._error = error
            self._bell.ring()

    def _take(self, message: Any) -> None:
        if message["type"] == "pong":
            return
        if message["type"] == "message":
            with self._lock:
                self._event, self._heard = self._event or message["data"] == b"event", True
        self._subscribed = True
        self._bell.ring()

    def _pass(self, pubsub: Any, quiet: float) -> float:
        """How long it has been quiet by now; asks for a sign of life as a loop's ear does."""
        now = quiet + _LISTEN_THREAD
        if now >= 2 * LISTEN:
            raise _dead(2 * LISTEN)
        if quiet < LISTEN <= now:
            pubsub.ping()
            self._silent = True
            self._bell.ring()
        return now

    async def opened(self) -> None:
        try:
            while not self._subscribed:
                await self._woken()
        except BaseException:
            self._over = True
            raise

    async def _woken(self) -> None:
        await self._bell.wait()
        if self._error is not None:
            raise self._error

    async def hear(self) -> bool | None:
        while not self._heard:
            if self._silent:
                self._silent = False
                return None
            await self._woken()
        with self._lock:
            event, self._event, self._heard = self._event, False, False
        return event

    async def close(self) -> None:
        self._over = True
