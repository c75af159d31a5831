"""One subscription for all who listen: a hundred open pages must not hold a hundred connections to the store."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
import attrs
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from ..engine.queue import DeadLetterQueue
from ..model.errors import BackendError
from ..model.event import Event, EventKind
from .background import Background

KEPT = 1000  # events that a client who comes back finds here
_WAITING = 1000  # events that a slow client may be behind
_CATCHING_UP = 4  # clients at a time that ask the store for what they missed
_OF_PAUSES = (EventKind.PAUSED, EventKind.RESUMED)  # which have no seq of their own
_QUIET = 1.0  # seconds without an event after which a client has caught up


@attrs.define(eq=False)
class _Listener:
    send: MemoryObjectSendStream[Event]
    missed: int = 0  # since it was last heard of: it reads too slowly

    def tell(self, event: Event) -> None:
        try:
            if self.missed:
                gap = Event(seq=event.seq, kind=EventKind.GAP, at=event.at, count=self.missed)
                self.send.send_nowait(gap)
                self.missed = 0
            self.send.send_nowait(event)
        except anyio.WouldBlock:
            self.missed += 1


class Audience:
    """Who listens to a queue's events.

    It subscribes when the first comes, from the event that this one has seen, and ends with the last.
    """

    def __init__(self, queue: DeadLetterQueue) -> None:
        self._queue = queue
        self._listeners: list[_Listener] = []
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._floor: int | None = None  # everything after this event is in ``_kept``; None: nobody knows
        self._ready = anyio.Event()
        self._error: BackendError | None = None
        self._hearing = Background(self._hear)
        self._catching_up: anyio.CapacityLimiter | None = None

    @asynccontextmanager
    async def listen(self, after: int | None) -> AsyncIterator[AsyncGenerator[Event, None]]:
        """Events from now on, or from after the one with this seq; raises BackendError.

        What a client missed, here or since it was last connected, is told as a gap where the store has it no more.
        """
        send, receive = anyio.create_memory_object_stream[Event](_WAITING)
        listener = _Listener(send)
        with send, receive:
            await self._join(listener, after)
            try:
                missed = self._missed(after)
                async with aclosing(self._events(receive, after, missed)) as events:
                    yield events
            finally:
                await self._leave(listener)

    async def _join(self, listener: _Listener, after: int | None) -> None:
        if not self._listeners:
            await self._hearing.stop()  # the last audience may just be leaving
        first = not self._listeners
        self._listeners.append(listener)
        try:
            if first:
                self._ready, self._error, self._floor = anyio.Event(), None, after
                self._kept.clear()
                self._hearing.start()
            await self._wait()
        except BaseException:
            await self._leave(listener)
            raise

    async def _wait(self) -> None:
        await self._ready.wait()
        if self._error is not None:
            raise self._error

    async def _leave(self, listener: _Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
        if not self._listeners:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await self._hearing.stop()

    def _missed(self, after: int | None) -> list[Event] | None:
        """What is kept here of what came after an event; None where that is perhaps not all."""
        if after is None:
            return []
        known = self._floor if self._floor is not None else (self._kept[0].seq if self._kept else None)
        if known is None or after < known:
            return None
        return [event for event in self._kept if event.seq > after]

    async def _events(
        self, receive: MemoryObjectReceiveStream[Event], after: int | None, missed: list[Event] | None
    ) -> AsyncGenerator[Event, None]:
        told = after or 0
        if missed is None:
            async for event in self._stored(told):
                told = max(told, event.seq)
                yield event
        for event in missed or ():
            told = max(told, event.seq)
            yield event
        known = {id(event) for event in missed or ()}  # what came while it was catching up has been told already
        async for event in receive:
            if id(event) not in known and (event.seq > told or event.kind in _OF_PAUSES):
                yield event

    async def _stored(self, after: int) -> AsyncGenerator[Event, None]:
        """What the store still has of what came after an event."""
        if self._catching_up is None:
            self._catching_up = anyio.CapacityLimiter(_CATCHING_UP)
        kinds = [str(kind) for kind in EventKind if kind not in _OF_PAUSES]
        async with self._catching_up, self._queue.subscribe(*kinds, after=after) as events:
            while True:
                event = None
                with anyio.move_on_after(_QUIET):
                    event = await anext(events, None)
                if event is None:
                    return
                yield event

    async def _hear(self) -> None:
        try:
            async with self._queue.subscribe(after=self._floor) as events:
                self._ready.set()
                async for event in events:
                    self._keep(event)
                    for listener in self._listeners:
                        listener.tell(event)
        except BackendError as error:
            self._error = error
            for listener in self._listeners:
                listener.send.close()
        finally:
            self._ready.set()

    def _keep(self, event: Event) -> None:
        if len(self._kept) == KEPT:
            self._floor = self._kept[0].seq
        self._kept.append(event)
