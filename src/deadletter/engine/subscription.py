"""What happens, told to whoever asks, with its gaps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import anyio
import attrs
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from ..interfaces.backend import Signals
from ..model.errors import InvalidQuery
from ..model.event import Event, EventKind
from ..model.row import EventRow
from ..model.task import from_ms
from .presence import reserved

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

_OF_PAUSES = {EventKind.PAUSED, EventKind.RESUMED}

_Told: TypeAlias = "tuple[Event | None, Exception | None]"


@asynccontextmanager
async def subscribe(
    queue: DeadLetterQueue, kinds: Sequence[str], after: int | None = None
) -> AsyncIterator[AsyncIterator[Event]]:
    """See DeadLetterQueue.subscribe."""
    try:
        wanted = {EventKind(kind) for kind in kinds} or set(EventKind)
    except ValueError:
        raise InvalidQuery(f"kinds: {list(kinds)!r} are not among {', '.join(EventKind)}") from None
    await queue.open()
    if not wanted & _OF_PAUSES:
        async with _listen(queue, queue.name, wanted, after) as events:
            yield events
        return
    async with _listen(queue, reserved("pauses", queue.name), wanted) as of_pauses:
        pauses = _of_pauses(of_pauses)
        if not wanted - _OF_PAUSES:
            async with aclosing(pauses):
                yield pauses
            return
        async with _listen(queue, queue.name, wanted, after) as of_tasks, _merged(of_tasks, pauses) as events:
            yield events


@asynccontextmanager
async def _listen(
    queue: DeadLetterQueue, name: str, wanted: set[EventKind], after: int | None = None
) -> AsyncIterator[AsyncIterator[Event]]:
    async with queue.backend.listen(name, after) as signals, aclosing(_events(signals, wanted)) as events:
        yield events


async def _of_pauses(events: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
    """Without what belongs to the reserved queue: its own numbers, and its rows' ids."""
    async for event in events:
        yield attrs.evolve(event, seq=0, task_id=None)


@asynccontextmanager
async def _merged(*sources: AsyncIterator[Event]) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of several sources as they come."""
    failed: Exception | None = None
    send, receive = anyio.create_memory_object_stream[_Told](0)
    async with anyio.create_task_group() as group, send, receive, aclosing(_received(receive)) as events:
        for source in sources:
            group.start_soon(_pass_on, source, send)
        try:
            yield events
        except Exception as error:  # of our user: raised outside of the group, which would wrap it
            failed = error
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed


async def _pass_on(source: AsyncIterator[Event], to: ObjectSendStream[_Told]) -> None:
    try:
        async for event in source:
            await to.send((event, None))
    except Exception as error:  # for whoever waits for the next event
        await to.send((None, error))


async def _received(stream: ObjectReceiveStream[_Told]) -> AsyncGenerator[Event, None]:
    last = 0
    async for event, error in stream:
        if error is not None:
            raise error
        if event is not None:
            last = event.seq or last
            yield event if event.seq else attrs.evolve(event, seq=last)


async def _events(signals: Signals, wanted: set[EventKind]) -> AsyncGenerator[Event, None]:
    async for signal in signals:
        if not isinstance(signal, EventRow):
            continue
        if signal.kind == EventKind.GAP:
            yield Event(seq=signal.seq, kind=EventKind.GAP, at=from_ms(signal.at_ms), count=signal.missed)
            continue
        if signal.missed:
            yield Event(seq=signal.seq - 1, kind=EventKind.GAP, at=from_ms(signal.at_ms), count=signal.missed)
        if signal.kind in wanted:
            yield Event(
                seq=signal.seq,
                kind=EventKind(signal.kind),
                at=from_ms(signal.at_ms),
                task_id=signal.task_id,
                type=signal.type,
                count=signal.count,
                detail=signal.detail,
            )
