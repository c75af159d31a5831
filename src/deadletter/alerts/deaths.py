"""From a queue's stored events to what a monitor counts; where events are gone, from the letters themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from ..model.row import BATCH, DEAD, EventRow, Row, Scan
from .book import Notes
from .grouping import Death
from .routes import Routing

if TYPE_CHECKING:
    from ..engine.queue import DeadLetterQueue

_PRIORITIES = ("high", "normal", "low")
_BATCH = 500
_EDGE = 1_000  # tasks that are remembered of one millisecond


class Reader:
    """Reads events into a monitor's notes: each death once, whatever was missed."""

    def __init__(self, queue: DeadLetterQueue, routing: Routing, notes: Notes) -> None:
        self._queue = queue
        self._routing = routing
        self._notes = notes
        self._recounted: tuple[int, set[str]] = (
            0,
            set(),
        )  # when a gap ended, and which deaths of that time are counted

    async def read(self, events: Sequence[EventRow]) -> None:
        """Note what happened; the notes are as of the last event then."""
        deaths: list[Death] = []
        for event in events:
            if event.missed:
                deaths += await self._recount(event)
            if event.kind == "dead" and event.task_id is not None and self._is_new(event):
                deaths.append(Death(event.task_id, event.type or "", event.detail.get("fingerprint", ""), event.at_ms))
            elif event.kind == "purged" and event.at_ms >= self._notes.since_ms:
                why = event.detail.get("why", "")
                self._notes.purges.see(event.type or "", why, event.count, event.at_ms)
            self._pass(event)
        self._notes.causes.absorb(await self._routed(deaths))

    async def look_around(self, keep: Callable[[], Awaitable[object]]) -> None:
        """Note the letters that were there before anybody monitored the queue; ``keep`` is awaited now and then."""
        batch: list[Death] = []
        async for row in self._letters(None, self._notes.since_ms - 1):
            batch.append(_death(row))
            if len(batch) >= _BATCH:
                self._notes.causes.absorb(await self._routed(batch))
                batch = []
                await keep()
        self._notes.causes.absorb(await self._routed(batch))
        self._notes.looked_around = True

    def _is_new(self, event: EventRow) -> bool:
        at_ms, counted = self._recounted
        return event.at_ms >= self._notes.since_ms and not (event.at_ms == at_ms and event.task_id in counted)

    def _pass(self, event: EventRow) -> None:
        notes = self._notes
        notes.seq = event.seq
        if event.at_ms != notes.edge_ms:
            notes.edge_ms, notes.edge = event.at_ms, []
        if event.kind == "dead" and event.task_id is not None and len(notes.edge) < _EDGE:
            notes.edge.append(event.task_id)

    async def _recount(self, event: EventRow) -> list[Death]:
        """The deaths whose events are gone: letters that died since the last event that was read, and before this one."""
        notes = self._notes
        since_ms = max(notes.edge_ms, notes.since_ms)
        found: list[Death] = []
        if event.at_ms < since_ms:
            return found
        known = set(notes.edge)
        found += [
            _death(row)
            async for row in self._letters(since_ms, event.at_ms)
            if not (row.time_ms == notes.edge_ms and row.id in known)
        ]
        self._recounted = event.at_ms, {death.id for death in found if death.at_ms == event.at_ms}
        return found

    async def _letters(self, since_ms: int | None, until_ms: int) -> AsyncIterator[Row]:
        """The letters that died then, oldest death first."""
        scan = Scan(
            state=DEAD,
            newest_first=False,
            since_ms=since_ms,
            until_ms=until_ms,
            history=0,
            body=False,
            lean=True,
            limit=min(self._queue.backend.scan_limit, 500),
        )
        while True:
            page = await self._queue.backend.scan(self._queue.name, scan)
            for row in page.rows:
                yield row
            if page.after is None:
                return
            scan = attrs.evolve(scan, after=page.after)

    async def _routed(self, deaths: Sequence[Death]) -> list[Death]:
        priorities: dict[str, str] = {}
        if self._routing.by_priority:
            ids = list(dict.fromkeys(death.id for death in deaths))
            for at in range(0, len(ids), BATCH):
                for row in await self._queue.backend.load(self._queue.name, ids[at : at + BATCH], history=0):
                    if row is not None:
                        priorities[row.id] = _PRIORITIES[row.priority]
        return [
            attrs.evolve(death, route=self._routing.of_death(death.type, priorities.get(death.id))) for death in deaths
        ]


def _death(row: Row) -> Death:
    return Death(row.id, row.type, row.fingerprint or "", row.time_ms)
