"""What is written while the disk is recorded: the real backend through a seeded life of some tasks."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from deadletter.backends.sqlite import SQLiteBackend, file
from deadletter.backends.sqlite.lanes import Operation, _Plain
from deadletter.model.record import Reason
from deadletter.model.row import DEAD, PENDING, RUNNING, Change, Claim, FailureRow, NewRow, Row, Scan
from deadletter.rules import changes
from deadletter.testing import VirtualClock

from .disk import Connection, Disk, RecordingVFS

QUEUE = "default"
NAME = "queue.db"
WAL_BYTES = 60_000  # so that the log is written back every few steps
TABLES = ("dl_queues", "dl_rows", "dl_tally", "dl_counters", "dl_events", "dl_failures", "dl_traces", "dl_texts")


@attrs.frozen
class Acknowledged:
    """An answer: how much had happened on the disk by then, and everything that the store then held."""

    happened: int
    held: object


@attrs.frozen
class Recording:
    """One life of a file."""

    disk: Disk
    acknowledged: list[Acknowledged]

    def before(self, moment: int) -> int:
        """The number of the newest answer that was given by a moment (-1: not even the file was opened)."""
        return max((n for n, each in enumerate(self.acknowledged) if each.happened <= moment), default=-1)


async def record(folder: Path, synchronous: str, steps: int, seed: int) -> Recording:
    """Run the story on a recorded disk: three times opened and closed."""
    disk = Disk(folder)
    vfs = RecordingVFS(f"power-{folder.name}", disk)
    acknowledged: list[Acknowledged] = []
    real = file.make_private
    numbers = itertools.count()
    with pytest.MonkeyPatch.context() as patch:

        def make(path: str) -> None:
            disk.made(Path(path).name, by_sqlite=False)
            real(path)

        patch.setattr(file, "make_private", make)
        patch.setattr(file, "WAL_BYTES", WAL_BYTES)
        patch.setattr(sqlite3, "connect", lambda target, **_: Connection(target, f"power-{folder.name}"))
        clock = VirtualClock()
        for life in range(3):
            backend = SQLiteBackend(folder / NAME, clock=clock, synchronous=synchronous, inline=True)

            def note(backend: SQLiteBackend = backend) -> None:
                acknowledged.append(Acknowledged(len(disk.happened), held(backend._writer.connection)))

            teller = _Teller(backend, clock, random.Random(f"{seed} {life}"), numbers, note)
            await backend.open()
            note()
            for _ in range(steps // 3):
                await teller.step()
                note()
            await backend.aclose()
    vfs.unregister()
    return Recording(disk, acknowledged)


def held(connection: Any) -> list[tuple[Any, ...]]:
    """Every stored row of every table but the times of the migrations."""
    return [
        (table, *row)
        for table in TABLES
        for row in sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
    ]


class _Teller:
    def __init__(
        self,
        backend: SQLiteBackend,
        clock: VirtualClock,
        chance: random.Random,
        numbers: itertools.count[int],
        note: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._chance = chance
        self._numbers = numbers
        self._note = note

    async def step(self) -> None:
        """One of the things that producers, workers and operators do."""
        self._clock.advance(self._chance.choice((0.001, 1, 20)))
        told: list[Callable[[], Awaitable[object]]] = [
            self._insert,
            self._insert,
            self._claim,
            self._claim,
            self._settle,
            self._settle,
            self._settle,
            self._operate,
            self._sweep,
            self._together,
        ]
        await self._chance.choice(told)()

    def _op(self) -> str:
        return f"op{next(self._numbers)}"

    def _new(self) -> NewRow:
        n, chance = next(self._numbers), self._chance
        fields: dict[str, Any] = {}
        if chance.random() < 0.2:
            fields = {
                "state": DEAD,
                "reason": "captured",
                "attempts": 1,
                "history": [self._failure()],
                "keep_ms": 30_000,
            }
        body = chance.randbytes(chance.choice((20, 300, 3_000)))
        key = f"k{n}" if chance.random() < 0.3 else None
        return NewRow(id=f"t{n}", type=chance.choice("ab"), digest=f"d{n}", body=body, key=key, **fields)

    def _failure(self) -> FailureRow:
        text = self._chance.choice(("short", "a long one\n" * 60))
        return FailureRow(attempt=1, error_type="ValueError", message="no", traceback=text, fingerprint="f00d")

    async def _insert(self) -> None:
        await self._backend.insert(QUEUE, [self._new() for _ in range(self._chance.choice((1, 1, 3)))])

    async def _claim(self) -> None:
        claim = Claim(op=self._op(), limit=self._chance.choice((1, 3)), types=["a", "b"], lease_ms=30_000, owner="w")
        await self._backend.claim(QUEUE, claim)

    async def _some(self, state: str) -> list[Row]:
        rows = (await self._backend.scan(QUEUE, Scan(state=state, limit=50))).rows
        return self._chance.sample(rows, min(len(rows), self._chance.choice((1, 2))))

    async def _settle(self) -> None:
        made = [self._outcome(row) for row in await self._some(RUNNING)]
        await self._backend.apply(QUEUE, made)

    def _outcome(self, row: Row) -> Change:
        return self._chance.choice(
            (
                lambda: changes.succeed(row, self._op(), 60_000),
                lambda: changes.succeed(row, self._op(), 60_000),
                lambda: changes.try_again(row, self._op(), self._failure(), 500),
                lambda: changes.die(row, self._op(), Reason.PERMANENT, self._failure(), 60_000),
                lambda: changes.extend(row, self._op(), 60_000),
                lambda: changes.release(row, self._op()),
            )
        )()

    async def _operate(self) -> None:
        made = [
            self._chance.choice((changes.replay(row, self._op()), changes.purge(row, self._op(), 30_000)))
            for row in await self._some(DEAD)
        ]
        made += [changes.cancel(row, self._op(), 30_000) for row in (await self._some(PENDING))[:1]]
        await self._backend.apply(QUEUE, made)

    async def _sweep(self) -> None:
        found = [row for row in await self._backend.sweep(QUEUE, 100) if row.state == RUNNING]
        self._note()
        lapses = [changes.lapse(row, self._op(), on_uncertain="retry", max_lease_losses=3) for row in found]
        await self._backend.apply(QUEUE, lapses)

    async def _together(self) -> None:
        """What waits for the writer meanwhile: several steps in one commit."""
        rows = await self._some(RUNNING)
        news, settled = [self._new()], [self._outcome(row) for row in rows]
        works: list[Callable[[Any], Any]] = [
            lambda step: step.insert(QUEUE, news),
            lambda step: step.apply(QUEUE, settled),
        ]
        batch = [Operation(work, _Plain()) for work in works]
        self._backend._writer.perform(batch)
        assert all(operation.reply.error is None for operation in batch)
