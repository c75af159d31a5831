"""Random batches on SQLite and on memory, under one clock: the same answers, rows and counts."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

import anyio
import attrs
import pytest

from deadletter.backends.memory import MemoryBackend
from deadletter.backends.sqlite import SQLiteBackend
from deadletter.interfaces import Backend
from deadletter.model.record import EDITED, Reason
from deadletter.model.row import BATCH, DEAD, PENDING, RUNNING, Change, Claim, EventRow, FailureRow, NewRow, Row, Scan
from deadletter.rules import changes
from deadletter.testing import VirtualClock

IDS = [f"id{n:02}" for n in range(30)]
KEYS = [None, None, None, "k1", "k2", "k3"]
TYPES = ["a", "b", "c"]
STEPS = 120


@attrs.define
class Pair:
    """Two stores that are asked the same."""

    clock: VirtualClock
    stores: Sequence[Backend]
    dice: random.Random
    seen: list[Row] = attrs.field(factory=list)  # rows as they once were: what a stale caller holds
    ops: int = 0

    async def same(self, method: str, *arguments: Any, **options: Any) -> Any:
        answers = [await getattr(store, method)("q", *copy.deepcopy(arguments), **options) for store in self.stores]
        assert answers[0] == answers[1], (method, arguments)
        return answers[0]

    def op(self) -> str:
        self.ops += 1
        return f"op{self.ops if self.dice.random() > 0.03 else max(1, self.ops - self.dice.randrange(30))}"

    def failure(self) -> FailureRow:
        return FailureRow(
            attempt=1,
            error_type=self.dice.choice(["E", "F"]),
            message="Größe",
            traceback=self.dice.choice(["", "one", "two"]),
            fingerprint=self.dice.choice(["f1", "f2"]),
            worker="w",
        )

    async def insert(self) -> None:
        dice = self.dice
        rows: list[NewRow] = []
        for _ in range(dice.choice([1, 1, 1, 5])):
            state = dice.choice([PENDING, PENDING, PENDING, DEAD, RUNNING])
            rows.append(
                NewRow(
                    id=dice.choice(IDS),
                    type=dice.choice(TYPES),
                    priority=dice.randrange(3),
                    key=dice.choice(KEYS),
                    digest=dice.choice("xxxxy"),
                    body=dice.randbytes(3),
                    state=state,
                    due_ms=dice.choice([0, 0, 500]),
                    expires_ms=dice.choice([None, None, 2000]) if state == PENDING else None,
                    keep_ms=dice.choice([None, 1, 3000]),
                    token="guard" if state == RUNNING else None,
                    lease_ms=500 if state == RUNNING else None,
                    reason=Reason.CAPTURED if state == DEAD else None,
                    history=[self.failure() for _ in range(dice.choice([0, 1, 3]))] if state == DEAD else (),
                    count=[("enqueued", "a", "")],
                )
            )
        await self.same("insert", rows)

    async def claim(self) -> None:
        dice = self.dice
        alone = dice.random() < 0.15
        limit = 1 if alone else dice.choice([1, 3, BATCH])
        claim = Claim(
            op=self.op(),
            limit=limit,
            types=dice.sample(TYPES, dice.choice([1, 2, 3])),
            ids=dice.sample(IDS, min(4, limit)) if dice.random() < 0.2 else None,
            order=dice.choice([(0, 1, 2), (2, 1, 0), (1,)]),
            lease_ms=dice.choice([100, 1000]),
            owner="w",
            start=dice.choice([0, 1, BATCH]),
            max_losses=dice.choice([None, 1, 2]) if not alone else 1,
            alone=alone,
            keep_ms=dice.choice([None, 2000]),
        )
        memory, sqlite = [await store.claim("q", claim) for store in self.stores]
        assert (memory.rows, memory.words, memory.now_ms) == (sqlite.rows, sqlite.words, sqlite.now_ms)
        assert memory.suspects == sqlite.suspects
        if not alone:  # while one looks for a suspect, it does not ask what else is due
            assert memory.next_due_ms == sqlite.next_due_ms
        self.seen += copy.deepcopy(memory.rows)

    async def apply(self) -> None:
        loaded = [row for row in await self.same("load", self.dice.sample(IDS, 8)) if row is not None]
        old = self.dice.sample(self.seen, min(len(self.seen), 3))
        await self.same("apply", [self.change(row) for row in [*loaded, *copy.deepcopy(old)]])
        self.seen += copy.deepcopy(loaded)

    def change(self, row: Row) -> Change:
        dice, op = self.dice, self.op()
        keep_ms = dice.choice([None, 0, 2000])
        if row.state == PENDING:
            return dice.choice([changes.cancel(row, op, 1000), changes.expire(row, op), changes.erase(row, op, 1000)])
        if row.state == DEAD:
            note = attrs.evolve(self.failure(), error_type=EDITED) if dice.random() < 0.3 else None
            replay = changes.replay(row, op, reset=dice.random() < 0.5, body=dice.choice([None, b"new"]), note=note)
            return dice.choice([replay, replay, changes.purge(row, op, 1000), changes.erase(row, op, 500)])
        if row.state != RUNNING:
            return changes.erase(row, op, 1000)
        return dice.choice(
            [
                changes.start(row, op),
                changes.extend(row, op, 700),
                changes.succeed(row, op, keep_ms),
                changes.try_again(row, op, self.failure(), dice.choice([0, 300])),
                changes.die(row, op, Reason.PERMANENT, self.failure(), keep_ms),
                changes.outlive(row, op, self.failure()),
                changes.postpone(row, op, 50),
                changes.release(row, op),
                changes.discard(row, op, 800, "why"),
                changes.lapse(row, op, on_uncertain=dice.choice(["retry", "retry", "dead"]), max_lease_losses=2),
                changes.quarantine(row, op, "bad", keep_ms),
                changes.take_over(row, op, f"guard{op}", 400, "v"),
                changes.complete(row.id, row.token or "", op, b"result", 900),
                changes.abandon(row.id, row.token or "", op),
            ]
        )

    async def sweep(self) -> None:
        memory, sqlite = [await store.sweep("q", 100) for store in self.stores]
        assert sorted(memory, key=lambda row: row.id) == sorted(sqlite, key=lambda row: row.id)
        late = [
            changes.lapse(row, self.op(), on_uncertain="retry", max_lease_losses=2)
            if row.state == RUNNING
            else changes.expire(row, self.op())
            for row in memory
        ]
        await self.same("apply", late)

    async def look(self) -> None:
        await self.same("load", IDS, history=20)
        dice = self.dice
        scan = Scan(
            state=dice.choice([DEAD, DEAD, PENDING, RUNNING]),
            newest_first=dice.random() < 0.5,
            limit=dice.choice([2, 100]),
            history=dice.choice([0, 1, 20]),
            body=dice.random() < 0.5,
            type=dice.choice([None, None, "a"]),
            fingerprint=dice.choice([None, None, "f1"]),
        )
        while True:
            memory, sqlite = [await store.scan("q", scan) for store in self.stores]
            assert memory.rows == sqlite.rows
            if sqlite.after is None:
                break
            scan = attrs.evolve(scan, after=sqlite.after)
        memory, sqlite = [await store.counts("q") for store in self.stores]
        assert {key: n for key, n in memory.tally.items() if n} == sqlite.tally
        assert (memory.lifetime, memory.overdue) == (sqlite.lifetime, sqlite.overdue)
        assert memory.oldest_pending_ms == sqlite.oldest_pending_ms
        assert memory.oldest_dead_ms == sqlite.oldest_dead_ms


def agree(seed: int) -> None:
    """Take random steps on both, and hold all that can be seen against each other after each."""
    dice = random.Random(seed)
    clock = VirtualClock()

    async def run() -> None:
        sqlite = SQLiteBackend(":memory:", clock=clock, inline=True)
        pair = Pair(clock, (MemoryBackend(clock=clock), sqlite), dice)
        try:
            for _ in range(STEPS):
                await dice.choice([pair.insert, pair.claim, pair.claim, pair.apply, pair.apply, pair.sweep])()
                await pair.look()
                clock.advance(dice.choice([0, 0.001, 0.1, 0.6]))
            assert await events_of(pair.stores[0]) == await events_of(sqlite)
            await sqlite._reading(nothing_left_over)
        finally:
            await sqlite.aclose()

    anyio.run(run)


async def events_of(store: Backend) -> list[Any]:
    """All stored events."""
    found: list[Any] = []
    with anyio.move_on_after(5):
        await store.insert("q", [NewRow(id="last", type="last", state=DEAD)])
        async with store.listen("q", 0) as signals:
            async for signal in signals:
                if isinstance(signal, EventRow):
                    found.append(attrs.astuple(signal))
                    if signal.task_id == "last":
                        break
    return found


def nothing_left_over(connection: Connection) -> None:
    """Failures belong to rows, and texts are kept as long as a failure uses them."""
    ask = connection.execute
    assert ask("SELECT count(*) FROM dl_failures WHERE task NOT IN (SELECT n FROM dl_rows)").fetchall() == [(0,)]
    uses = ask("SELECT trace, count(*) FROM dl_failures WHERE trace IS NOT NULL GROUP BY trace").fetchall()
    assert sorted(ask("SELECT n, uses FROM dl_traces").fetchall()) == sorted(uses)
    assert sorted(ask("SELECT n FROM dl_texts").fetchall()) == sorted((trace,) for trace, _ in uses)


@pytest.mark.parametrize("seed", range(10))
def test_random_batches_agree(seed: int) -> None:
    agree(seed)
