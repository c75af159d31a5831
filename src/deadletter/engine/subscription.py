"""What happens, told to whoever asks, with its gaps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from ..interfaces.backend import Signals
from ..model.errors import InvalidQuery
from ..model.event import Event, EventKind
from ..model.row import EventRow
from ..model.task import from_ms

if TYPE_CHECKING:
    from .queue import DeadLetterQueue


@asynccontextmanager
async def subscribe(queue: DeadLetterQueue, kinds: Sequence[str]) -> AsyncIterator[AsyncIterator[Event]]:
    """See DeadLetterQueue.subscribe."""
    try:
        wanted = {EventKind(kind) for kind in kinds} or set(EventKind)
    except ValueError:
        raise InvalidQuery(f"kinds: {list(kinds)!r} are not among {', '.join(EventKind)}") from None
    await queue.open()
    async with queue.backend.listen(queue.name) as signals, aclosing(_events(signals, wanted)) as events:
        yield events


async def _events(signals: Signals, wanted: set[EventKind]) -> AsyncGenerator[Event, None]:
    last: int | None = None
    async for signal in signals:
        if not isinstance(signal, EventRow):
            continue
        if last is not None and signal.seq > last + 1:
            missed = signal.seq - last - 1
            yield Event(seq=signal.seq - 1, kind=EventKind.GAP, at=from_ms(signal.at_ms), count=missed)
        last = signal.seq
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
