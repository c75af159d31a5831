"""One monitor's reign: from what happens to what is owed, step by step, each stored before anything is sent."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from ..interfaces.alerter import Alert
from ..model.errors import BackendUnavailable
from ..model.row import Counts, EventRow
from ..model.task import from_ms
from ..runtime.chance import new_id
from ..runtime.loops import Bell
from . import drafts, facts
from .book import Notes
from .calendar import Daily, QuietHours
from .deaths import Reader
from .delivery import Owed
from .drafts import Desk, Draft
from .grouping import OTHER, Timing
from .levels import Limits
from .routes import Routing
from .seat import Seat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..engine.queue import DeadLetterQueue

log = logging.getLogger("deadletter.monitor")

_SPACING = 0.2  # seconds between two steps: what happens meanwhile is read in one
_LONGEST = 5.0  # seconds without a step
_STORED_EVERY = 2.0  # seconds after which what was read is stored though nothing is owed
_BUFFER = 5_000  # events that wait for a step
_LOOKS = 50  # causes that a step looks after

_CALM = ("daily_summary", "purge_summary", "threshold_exceeded", "threshold_resolved", "task_dead", "overdue")


@attrs.frozen(kw_only=True)
class Plan:
    """What a monitor was asked to do."""

    timing: Timing
    limits: Limits
    daily: Daily | None
    quiet: QuietHours | None
    routing: Routing
    desk: Desk


class Watch:
    """Reads, counts and tells, as long as we are the elected monitor.

    Args:
        owe: stores deliveries.
    """

    def __init__(
        self,
        queue: DeadLetterQueue,
        plan: Plan,
        seat: Seat,
        notes: Notes,
        owe: Callable[[Sequence[Owed]], Awaitable[object]],
    ) -> None:
        self._queue = queue
        self._plan = plan
        self._seat = seat
        self._notes = notes
        self._owe = owe
        self._reader = Reader(queue, plan.routing, notes)
        self._events: list[EventRow] = []
        self._stored = 0.0
        self._failed: Exception | None = None

    async def run(self, after_step: Callable[[], object] = lambda: None) -> None:
        """Watch until cancelled; raises Deposed, and whatever a store that is away raises."""
        bell, room = Bell(), Bell()
        if not self._notes.looked_around:
            await self._reader.look_around(self._seat.keep)
        await self._store()  # what was begun now, such as the day of the last summary, is gone on with by the next one
        await self._settle_debts()
        async with self._listening(bell, room):
            while True:
                wait = await self._step(room)
                after_step()
                await self._queue.clock.sleep(_SPACING)
                if wait > _SPACING and not self._events:
                    await self._queue.wait_for(bell, wait - _SPACING)

    @asynccontextmanager
    async def _listening(self, bell: Bell, room: Bell) -> AsyncIterator[None]:
        async def listen() -> None:
            try:
                async with self._queue.backend.listen(self._queue.name, after=self._notes.seq) as signals:
                    async for signal in signals:
                        if not isinstance(signal, EventRow):  # work came: what happens to it is read in one look
                            await self._queue.clock.sleep(_SPACING)
                            continue
                        self._events.append(signal)
                        bell.ring()
                        while len(self._events) >= _BUFFER:
                            await room.wait()
                self._failed = BackendUnavailable("it told no more events")
            except Exception as error:  # raised by the next step, outside of the group, which would wrap it
                self._failed = error
                bell.ring()

        failed: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            try:
                yield
            except Exception as error:
                failed = error
            group.cancel_scope.cancel()
        if failed is not None:
            raise failed

    async def _step(self, room: Bell) -> float:
        """Read what there is and tell what is due; answer the seconds until something may be due."""
        if self._failed is not None:
            raise self._failed
        events, self._events = self._events, []
        room.ring()
        await self._reader.read(events)
        counts = await self._queue.backend.counts(self._queue.name)
        told = [draft async for draft in self._due(counts)]
        if told:
            await self._tell(told, counts.now_ms)
        elif events and self._queue.clock.monotonic() - self._stored > _STORED_EVERY:
            await self._store()
        else:
            await self._seat.keep()
        next_ms = self._next_ms(counts.now_ms)
        return _LONGEST if next_ms is None else min(_LONGEST, max(0.0, (next_ms - counts.now_ms) / 1000))

    async def _due(self, counts: Counts) -> AsyncIterator[Draft]:
        now_ms, notes, plan = counts.now_ms, self._notes, self._plan
        left = {}
        for cause in notes.causes.to_look_at(now_ms)[:_LOOKS]:
            left[cause.key] = 0 if cause.key == OTHER else await facts.any_left(self._queue, cause)
        for telling in notes.causes.tell(now_ms, left, self._hold(now_ms)):
            found = await facts.causes(self._queue, notes.causes, telling.said, drafts.SHOWN)
            yield drafts.died(plan.desk, found, telling.route)
        async for draft in self._due_of_the_queue(counts):
            yield draft

    async def _due_of_the_queue(self, counts: Counts) -> AsyncIterator[Draft]:
        now_ms, notes, plan = counts.now_ms, self._notes, self._plan
        total, by_type, by_priority, _ = facts.letters(counts)
        if not self._held("threshold_exceeded", now_ms) or total > plan.limits.critical:
            kind = notes.gauge.see(total, plan.limits, plan.timing.wait_ms, plan.timing.repeat_ms, now_ms)
            if kind is not None:
                yield drafts.threshold(
                    plan.desk,
                    kind,
                    letters=total,
                    limits=(plan.limits.threshold, plan.limits.critical),
                    since_ms=notes.gauge.since_ms,
                    peak=notes.gauge.peak,
                    by_type=by_type,
                    by_priority=by_priority,
                )
        if not self._held("overdue", now_ms):
            waiting = await facts.unattended(self._queue, counts)
            status = notes.waiting.see(waiting, plan.timing, now_ms)
            if status is not None:
                yield drafts.overdue(plan.desk, status, waiting)
        due_ms = notes.purges.due_ms(plan.timing)
        if due_ms is not None and due_ms <= now_ms and not self._held("purge_summary", now_ms):
            purges = notes.purges
            first_ms = purges.first_ms or now_ms
            yield drafts.purged(
                plan.desk, by_type=purges.by_type, why=purges.why, first_ms=first_ms, last_ms=purges.last_ms
            )
            purges.told(now_ms)
        day = plan.daily.due(notes.day, now_ms) if plan.daily is not None else None
        if day is not None and not self._held("daily_summary", now_ms):
            found = await facts.reckoning(self._queue, counts, notes.reckoned, self._seat.keep)
            yield drafts.summary(plan.desk, day, found)
            notes.day, notes.reckoned = day, facts.lifetime(counts)

    async def tell(self, draft: Draft, now_ms: int) -> None:
        """Owe one alert more."""
        await self._tell([draft], now_ms)

    async def _tell(self, told: Sequence[Draft], now_ms: int) -> None:
        routing = self._plan.routing
        for draft in told:
            alert = Alert(
                id=new_id(),
                kind=draft.kind,
                at=from_ms(now_ms),
                queue=self._queue.name,
                title=draft.title,
                data=draft.data,
            )
            key = draft.route if draft.kind == "task_dead" else routing.of_kind(draft.kind)
            self._notes.owed.append(Owed(alert, routing.channels(key)))
        await self._store()
        await self._settle_debts()

    async def _settle_debts(self) -> None:
        """Store deliveries of what is owed, then that it is owed no more: whoever dies in between, nothing is lost."""
        if self._notes.owed:
            await self._owe(self._notes.owed)
            self._notes.owed = []
            await self._store()

    async def _store(self) -> None:
        await self._seat.write(self._notes.dump())
        self._stored = self._queue.clock.monotonic()

    def _hold(self, now_ms: int) -> Callable[[str], int | None]:
        """Until when a route of deaths is quiet."""
        quiet_ms = self._plan.quiet.until_ms(now_ms) if self._plan.quiet is not None else None

        def until(route: str) -> int | None:
            return None if quiet_ms is None or self._plan.routing.urgent(route) else quiet_ms

        return until

    def _held(self, kind: str, now_ms: int) -> bool:
        return kind in _CALM and self._hold(now_ms)(self._plan.routing.of_kind(kind)) is not None

    def _next_ms(self, now_ms: int) -> int | None:
        plan, notes = self._plan, self._notes
        found: list[Any] = [
            notes.causes.next_ms(self._hold(now_ms)),
            notes.gauge.next_ms(plan.timing.wait_ms, plan.timing.repeat_ms),
            notes.purges.due_ms(plan.timing),
            plan.daily.next_ms(now_ms) if plan.daily is not None else None,
        ]
        return min((due for due in found if due is not None and due > now_ms), default=None)
