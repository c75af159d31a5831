"""Who is at work: each worker keeps a leased row in a reserved queue."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import anyio
import attrs
import orjson

from ..model.errors import BackendError
from ..model.record import WorkerInfo
from ..model.row import RUNNING, Change, NewRow, Row, Scan, Verdict
from ..model.task import from_ms
from ..rules import changes

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.presence")

LEASE_MS = 45_000
BEAT = 15.0


RESERVED = ("workers", "effects", "pauses")


def reserved(kind: str, queue: str) -> str:
    """A queue that no user can name (it holds a control character): for rows that are not tasks."""
    return f"\x1f{kind}\x1f{queue}"


class _Named(Protocol):
    name: str

    @property
    def types(self) -> list[str]: ...


class Presence:
    """One worker's sign of life."""

    def __init__(self, queue: DeadLetterQueue, worker: _Named) -> None:
        self._queue = queue
        self._worker = worker
        self._reserved = reserved("workers", queue.name)
        self._row = Row(id=worker.name, type="worker", priority=1, state=RUNNING, token=worker.name)

    async def keep(self) -> None:
        """Give signs of life until cancelled; then leave."""
        known: list[str] | None = None
        beats = 0
        try:
            while True:
                types = sorted(self._worker.types)
                beats += 1
                try:
                    if types != known or not await self._beat(f"{self._row.token}.{beats}"):
                        await self._appear(types)
                        known = types
                except BackendError as error:
                    log.debug("no sign of life yet: %s", error)
                await self._queue.clock.sleep(BEAT)
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(2):
                await self._leave()

    async def _apply(self, change: Change) -> Verdict:
        return (await self._queue.backend.apply(self._reserved, [change]))[0]

    async def _beat(self, op: str) -> bool:
        verdict = await self._apply(changes.extend(self._row, op, LEASE_MS))
        return verdict in (Verdict.DONE, Verdict.REPEATED)

    async def _appear(self, types: Sequence[str]) -> None:
        await self._leave()
        self._row.token = self._queue.chance.name()
        self._row.id = f"{self._worker.name}.{self._row.token[:4]}"
        body = orjson.dumps({"name": self._worker.name, "types": list(types)})
        new = NewRow(
            id=self._row.id,
            type="worker",
            body=body,
            state=RUNNING,
            token=self._row.token,
            lease_ms=LEASE_MS,
            keep_ms=0,
        )
        await self._queue.backend.insert(self._reserved, [new])

    async def _leave(self) -> None:
        try:
            await self._apply(changes.abandon(self._row.id, self._row.token or "", f"{self._row.token}.bye"))
            await self._queue.backend.sweep(self._reserved, 100)
        except BackendError:
            return


async def present(queue: DeadLetterQueue) -> list[WorkerInfo]:
    """The workers that gave a sign of life lately, by name."""
    found = []
    scan = Scan(state=RUNNING, history=0)
    while True:
        page = await queue.backend.scan(reserved("workers", queue.name), scan)
        for row in page.rows:
            if row.lease_ms is None or row.lease_ms <= page.now_ms or row.body is None:
                continue
            said = orjson.loads(row.body)
            found.append(WorkerInfo(name=said["name"], types=said["types"], last_seen=from_ms(row.lease_ms - LEASE_MS)))
        if page.after is None:
            return sorted(found, key=lambda worker: worker.name)
        scan = attrs.evolve(scan, after=page.after)
