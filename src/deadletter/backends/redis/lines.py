"""Connections that scripts go over on asyncio: opened by redis-py, and from there on spoken to without it.

It knows all of TLS, users and Sentinels, and takes four fifths of the time of a trip. Each line carries one trip at a time,
so that a cancelled caller costs a connection and nobody an answer that is not theirs.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import anyio
from redis import exceptions
from redis.asyncio import connection as asynchronous

_redis_py: Any = asynchronous  # it annotates only parts of itself
_hiredis: Any
try:
    import hiredis as _hiredis
except ImportError:
    _hiredis = None

LINES = 12  # of one loop: fewer than its connections, for what goes through redis-py needs some, too
WRITER = "_writer"  # where redis-py keeps the stream of a connection
_TAKEN = (asynchronous.Connection, asynchronous.SSLConnection, asynchronous.UnixDomainSocketConnection)
_MORE_TO_COME = object()
# After these answers the server is not, or no longer, the one to talk to: the next connection may lead to another.
_AWAY = (exceptions.ConnectionError, exceptions.ReadOnlyError, exceptions.MasterDownError)


def can_be_held(connection_class: type | None) -> bool:
    """Whether connections of this class are plain streams; a class of the user's own may do anything with its bytes."""
    return _hiredis is not None and connection_class in _TAKEN


class Line(asyncio.Protocol):
    """One connection.

    Attributes:
        broken: nothing can be asked any more.
        idle_since: when the last answer came, in the loop's time.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.broken = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = getattr(connection, WRITER).transport
        self._before = self._transport.get_protocol()  # redis-py waits for its end when it closes a connection
        self._transport.set_protocol(self)
        self._reader = _hiredis.Reader(
            protocolError=exceptions.InvalidResponse,
            replyError=_redis_py.BaseParser.parse_error,
            notEnoughData=_MORE_TO_COME,
        )
        self._patience: float | None = connection.socket_timeout
        self._watched = False
        self._asked_at = self.idle_since = self._loop.time()
        self._waiting: asyncio.Future[list[Any]] | None = None
        self._answers: list[Any] = []
        self._wanted = 0

    def ask(self, packed: bytes, answers: int) -> asyncio.Future[list[Any]]:
        """Send packed commands; the answers to them, exceptions among them where they were refused."""
        self._answers, self._wanted = [], answers
        waiting = self._waiting = self._loop.create_future()
        self._asked_at = self._loop.time()
        if self._patience and not self._watched:
            self._watch_until(self._asked_at + self._patience)
        self._transport.write(packed)
        return waiting

    def heard(self) -> asyncio.Future[list[Any]]:
        """Those answers, for whoever was cancelled while they were on their way."""
        waiting: asyncio.Future[list[Any]] = self._loop.create_future()
        if self._waiting is not None:
            self._waiting = waiting
        elif self.broken:
            waiting.set_exception(exceptions.ConnectionError("Connection closed by server."))
        else:
            waiting.set_result(self._answers)
        return waiting

    def _watch_until(self, deadline: float) -> None:
        # One timer for all trips of some seconds: a timer for each costs as much as a parsed answer.
        self._watched = True
        self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._watched = False
        if self._waiting is None or self.broken:
            return
        deadline = self._asked_at + (self._patience or 0)
        if self._loop.time() < deadline:
            self._watch_until(deadline)
        else:
            self.fail(exceptions.TimeoutError("Timeout reading from socket"))

    def fail(self, error: Exception) -> None:
        """Tell whoever waits, and hang up."""
        self.broken = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not _MORE_TO_COME:
                if not isinstance(answer, _hiredis.PushNotification):
                    self._take(answer)
        except exceptions.RedisError as error:  # of the protocol; that of an answer is returned
            self.fail(exceptions.ConnectionError(f"it cannot be understood: {error}"))

    def _take(self, answer: Any) -> None:
        waiting = self._waiting
        if waiting is None:
            self.fail(exceptions.ConnectionError("it answers what nobody asked"))
            return
        self._answers.append(answer)
        if len(self._answers) == self._wanted:
            self._waiting = None
            self.idle_since = self._loop.time()
            if not waiting.done():
                waiting.set_result(self._answers)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.fail(exceptions.ConnectionError("Connection closed by server." if exc is None else str(exc)))
        self._before.connection_lost(exc)


class Lines:
    """Those of one loop. Whoever finds all of them busy waits.

    Attributes:
        held: whether redis-py's connections can be taken as lines; False once one could not.
    """

    def __init__(self, pool: Any) -> None:
        self.held = True
        self._pool = pool
        self._free: list[Line] = []
        self._gone: list[Line] = []  # found broken, not yet given back
        self._room = asyncio.Semaphore(LINES)

    async def ask(self, commands: Sequence[Sequence[Any]]) -> list[Any] | None:
        """Send commands over one line in one trip; None where no line can be had of this redis-py.

        Whoever is cancelled hears the answer first, within the socket's timeout.
        """
        packed = b"".join([_hiredis.pack_command(tuple(command)) for command in commands])
        if self._room.locked() or not self._free:
            with anyio.CancelScope(shield=True):
                await self._room.acquire()
        else:
            await self._room.acquire()  # at once
        try:
            line = self._idle()
            if line is None:
                with anyio.CancelScope(shield=True):
                    line = await self._opened()
            return await self._asked(line, packed, len(commands)) if line is not None else None
        finally:
            self._room.release()

    async def _asked(self, line: Line, packed: bytes, wanted: int) -> list[Any]:
        answers: list[Any] = []
        try:
            try:
                answers = await line.ask(packed, wanted)
            except asyncio.CancelledError:
                if anyio.current_effective_deadline() != -math.inf:
                    raise  # asyncio's own, which comes but once; a scope cancels again at the next wait
                with anyio.CancelScope(shield=True):  # only now: a scope costs a tenth of a trip
                    answers = await line.heard()
        except BaseException:
            await self._drop(line)
            raise
        for answer in answers:
            if isinstance(answer, _AWAY):
                await self._drop(line)
                return answers
        self._free.append(line)
        return answers

    def _idle(self) -> Line | None:
        while self._free:
            line = self._free.pop()
            if not line.broken and not self._stale(line):
                return line
            self._gone.append(line)
        return None

    async def _opened(self) -> Line | None:
        while self._gone:
            await self._drop(self._gone.pop())
        connection = await self._pool.get_connection()
        if getattr(connection, WRITER, None) is not None:
            return Line(connection)
        self.held = False
        await self._pool.release(connection)
        return None

    @staticmethod
    def _stale(line: Line) -> bool:
        """Whether the user wants a connection that was idle for so long looked at first: it is made anew."""
        limit = getattr(line.connection, "health_check_interval", 0)
        return bool(limit) and asyncio.get_running_loop().time() - line.idle_since > limit

    async def _drop(self, line: Line) -> None:
        line.fail(exceptions.ConnectionError("dropped"))
        with anyio.CancelScope(shield=True):
            try:
                await line.connection.disconnect(nowait=True)
            finally:
                await self._pool.release(line.connection)
