"""The elected monitor's place: one leased row in a reserved queue, which holds what must outlive any monitor."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..engine.alerting import LEASE_MS, SEAT, seats
from ..model.row import RUNNING, Inserted, NewRow, Row, Verdict
from ..rules import changes

if TYPE_CHECKING:
    from ..engine.queue import DeadLetterQueue

log = logging.getLogger("deadletter.monitor")


class Deposed(Exception):
    """Somebody else is the elected monitor by now."""


class Seat:
    """One monitor's try at being elected. Every write is fenced by a token of its own, so that two never rule at once."""

    def __init__(self, queue: DeadLetterQueue, owner: str) -> None:
        self._queue = queue
        self._owner = owner
        self._name = seats(queue.name)
        self._token = queue.chance.name()
        self._row = Row(id=SEAT, type="monitor", priority=1, state=RUNNING, token=self._token)
        self._written = 0.0

    async def take(self) -> Row | None:
        """The stored row, with its body, where we are elected; its ``lease_ms`` is what it was before that."""
        backend = self._queue.backend
        new = NewRow(
            id=SEAT,
            type="monitor",
            body=b"",
            state=RUNNING,
            token=self._token,
            lease_ms=LEASE_MS,
            owner=self._owner,
            keep_ms=None,
        )
        bound = (await backend.insert(self._name, [new]))[0]
        if bound.verdict is not Inserted.STORED and bound.token != self._token:
            if bound.state != RUNNING or (bound.lease_ms or 0) > bound.now_ms:
                return None
            stale = Row(id=SEAT, type="monitor", priority=1, state=RUNNING, token=bound.token)
            change = changes.take_over(stale, self._queue.chance.name(), self._token, LEASE_MS, self._owner)
            if (await backend.apply(self._name, [change]))[0] is not Verdict.DONE:
                return None
        row = (await backend.load(self._name, [SEAT], history=0))[0]
        if row is None or row.token != self._token:
            return None
        self._written = self._queue.clock.monotonic()
        if bound.verdict is not Inserted.STORED and bound.token != self._token:
            row.lease_ms = bound.lease_ms
        return row

    async def write(self, body: bytes) -> None:
        """Store what must outlive us, and stay elected; raises Deposed."""
        change = changes.note(self._row, self._queue.chance.name(), body, LEASE_MS)
        self._judge((await self._queue.backend.apply(self._name, [change]))[0])

    async def keep(self) -> None:
        """Stay elected, where the lease is a third over; raises Deposed."""
        if self._queue.clock.monotonic() - self._written > LEASE_MS / 3000:
            change = changes.extend(self._row, self._queue.chance.name(), LEASE_MS)
            self._judge((await self._queue.backend.apply(self._name, [change]))[0])

    async def leave(self) -> None:
        """Let the next monitor be elected at once."""
        await self._queue.backend.apply(self._name, [changes.extend(self._row, self._queue.chance.name(), 0)])

    def _judge(self, verdict: Verdict) -> None:
        if verdict not in (Verdict.DONE, Verdict.REPEATED):
            raise Deposed
        self._written = self._queue.clock.monotonic()
