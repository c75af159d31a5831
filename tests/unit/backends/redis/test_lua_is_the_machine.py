"""Random batches on Redis and on memory, under one clock: Lua says what the pure machine says, verdict by verdict."""

from __future__ import annotations

import copy
import random
from typing import Any

import anyio
import attrs
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from deadletter.backends.memory import MemoryBackend
from deadletter.backends.redis import RedisBackend
from deadletter.backends.redis.keys import prefix
from deadletter.interfaces import Backend
from deadletter.model.record import Reason
from deadletter.model.row import BATCH, DEAD, PENDING, RUNNING, SUCCEEDED, Change, Claim, FailureRow, NewRow, Row, Scan
from deadletter.rules import changes
from deadletter.testing import VirtualClock

from ....faults.redis_store import snapshot_of
from ....redis_servers import valkey

IDS = [f"id{n:02}" for n in range(12)]
TYPES = ["a", "b"]
STEPS = 60
LONG = b"l" * 600  # which Redis keeps beside the record


class Pair:
    """Memory and Redis, asked the same."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.clock = VirtualClock()
        self.stores: list[Backend] = [
            MemoryBackend(clock=self.clock),
            RedisBackend(valkey().emptied(), clock=self.clock),
        ]
        self.seen: list[Row] = []
        self.claims: list[Claim] = []
        self.ops = 0

    def one(self, *choices: Any) -> Any:
        return self.dice.choice(choices)

    def op(self) -> str:
        self.ops += 1
        return f"op{self.ops - self.one(0, 0, 0, 0, 0, 0, 0, 3)}"

    def failure(self, **fields: Any) -> FailureRow:
        told = {"traceback": self.one("", "one", "two"), "fingerprint": self.one("f1", "f2"), "worker": "w"}
        return FailureRow(attempt=1, error_type=self.one("E", "F"), message="Größe", release="1", **(told | fields))

    async def both(self, method: str, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        memory, lua = [await getattr(store, method)("q", *copy.deepcopy(arguments), **options) for store in self.stores]
        return memory, lua

    async def same(self, method: str, *arguments: Any, **options: Any) -> Any:
        memory, lua = await self.both(method, *arguments, **options)
        assert plain(memory) == plain(lua), (method, arguments)
        return memory

    async def insert(self) -> None:
        await self.same("insert", [self.new() for _ in range(self.one(1, 1, 3))])

    def new(self) -> NewRow:
        one = self.one
        state = one(PENDING, PENDING, PENDING, DEAD, RUNNING)
        return NewRow(
            id=one(*IDS),
            type=one(*TYPES),
            priority=one(0, 1, 2),
            key=one(None, None, "k1", "k2"),
            digest=one("x", "x", "x", "y"),
            body=one(b"one", b"two", LONG),
            state=state,
            due_ms=one(0, 0, 500),
            due_at_ms=one(None, None, 300_000_000_000_000),
            expires_ms=one(None, 2000) if state == PENDING else None,
            keep_ms=one(None, 1, 3000),
            token="guard" if state == RUNNING else None,
            lease_ms=500 if state == RUNNING else None,
            redact=one("", "card\npin"),
            release=one(None, "2"),
            reason=Reason.CAPTURED if state == DEAD else None,
            attempts=1 if state == DEAD else 0,
            lease_losses=one(0, 2) if state == DEAD else 0,
            postpones=one(0, 1) if state == DEAD else 0,
            history=[self.failure(at_ms=one(0, 5)) for _ in range(one(1, 3))] if state == DEAD else (),
            count=[("enqueued", "a", ""), ("said", 'a "b"\n/', "")],
        )

    async def claim(self) -> None:
        one = self.one
        alone = one(False, False, False, True)
        ids = one(None, None, None, IDS[:1], IDS[2:3], IDS[:3])
        self.ops += 1
        claim = Claim(
            op=f"claim{self.ops}",
            limit=len(ids) if ids else 1 if alone else one(1, 3, BATCH),
            types=one(["a"], ["a", "b"], ["b", "nobody"]),
            ids=ids,
            order=one((0, 1, 2), (2, 1, 0), (1,)),
            lease_ms=one(100, 1000),
            owner="w",
            start=one(0, 1, BATCH),
            max_losses=1 if alone else one(None, 1, 2),
            alone=alone,
            keep_ms=one(None, 2000),
        )
        if self.claims and one(False, False, False, False, True):  # sent again, perhaps late
            claim = one(*self.claims)
        elif claim.ids is None:
            self.claims.append(claim)
        memory, lua = await self.both("claim", claim)
        assert plain((memory.rows, memory.words, memory.now_ms)) == plain((lua.rows, lua.words, lua.now_ms))
        if not claim.alone:
            assert (memory.suspects, memory.next_due_ms) == (lua.suspects, lua.next_due_ms)
        self.seen += copy.deepcopy(memory.rows)

    async def apply(self) -> None:
        rows = [row for row in await self.same("load", IDS) if row is not None]
        old = self.dice.sample(self.seen, min(len(self.seen), self.one(0, 3)))
        chosen = [one_row for one_row in [*rows, *old] if self.dice.random() < 0.5]
        await self.same("apply", [self.change(row) for row in copy.deepcopy(chosen)])
        self.seen += copy.deepcopy(rows[:2])

    def change(self, row: Row) -> Change:
        one, op = self.one, self.op()
        keep_ms = one(None, 0, 2000)
        if row.state == PENDING:
            return one(changes.cancel(row, op, 1000), changes.expire(row, op), changes.erase(row, op, 1000))
        if row.state == DEAD:
            note = one(None, None, self.failure())
            body, type_ = one(None, b"new", LONG), one(None, "b")
            replay = changes.replay(row, op, reset=one(True, False), body=body, type=type_, note=note, why="fixed")
            return one(replay, replay, changes.purge(row, op, 1000, "old"), changes.erase(row, op, 500))
        if row.state != RUNNING:
            return changes.erase(row, op, 1000)
        return one(
            changes.start(row, op),
            changes.extend(row, op, 700),
            changes.succeed(row, op, keep_ms),
            changes.try_again(row, op, self.failure(), one(0, 300)),
            changes.die(row, op, Reason.PERMANENT, self.failure(), keep_ms),
            changes.outlive(row, op, self.failure()),
            changes.shelve(row, op),
            changes.postpone(row, op, 50),
            changes.release(row, op),
            changes.discard(row, op, 800, "why"),
            changes.lapse(row, op, on_uncertain=one("retry", "retry", "dead"), max_lease_losses=2),
            changes.quarantine(row, op, "bad", keep_ms),
            changes.take_over(row, op, f"guard{op}", 400, "v"),
            changes.complete(row.id, row.token or "", op, b"result", 900),
            changes.abandon(row.id, row.token or "", op),
        )

    async def sweep(self) -> None:
        memory, lua = await self.both("sweep", 100)
        assert plain(sorted(memory, key=lambda row: row.id)) == plain(sorted(lua, key=lambda row: row.id))

    async def look(self) -> None:
        await self.same("load", IDS, history=20)
        one = self.one
        scan = Scan(
            state=one(DEAD, DEAD, PENDING, RUNNING, SUCCEEDED),
            newest_first=one(True, False),
            limit=one(2, 100),
            history=one(0, 1, 20),
            body=one(True, False),
            type=one(None, None, "a"),
            fingerprint=one(None, None, "f1"),
            reason=one(None, None, "permanent"),
            priority=one(None, None, 1),
        )
        found = []
        for store in self.stores:
            rows, step = [], scan
            while True:
                page = await store.scan("q", step)
                rows += page.rows
                if page.after is None:
                    break
                step = attrs.evolve(step, after=page.after)
            found.append(rows)
        assert plain(found[0]) == plain(found[1]), scan
        memory, lua = await self.both("counts")
        assert memory == lua


def plain(value: Any) -> Any:
    """None and the empty text are one in Redis; memory shows both."""
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, Row):
        told = {field.name: getattr(value, field.name) for field in attrs.fields(Row)}
        return {name: None if part == "" else part for name, part in told.items()}
    return value


def agree(seed: int) -> None:
    """Take random steps on both, and hold all that can be seen against each other after each."""

    async def run() -> None:
        pair = Pair(seed)
        try:
            for _ in range(STEPS):
                step = pair.one(pair.insert, pair.insert, pair.claim, pair.claim, pair.apply, pair.apply, pair.sweep)
                await step()
                await pair.look()
                pair.clock.advance(pair.one(0, 0.001, 0.1, 0.6))
            await events_agree(pair)
            assert leftovers(pair.stores[1]) == []
        finally:
            await pair.stores[1].aclose()

    anyio.run(run)


def leftovers(store: Backend) -> list[str]:
    """What indexes, counts, bodies and texts say that the records do not, or the other way round."""
    with redis.Redis.from_url(store.url) as client:
        return list(snapshot_of(client, prefix("q")).differences())


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=12)
def test_random_batches_agree(seed: int) -> None:
    agree(seed)


async def events_agree(pair: Pair) -> None:
    memory, lua = [await events_of(store) for store in pair.stores]
    assert memory == lua


async def events_of(store: Backend) -> list[Any]:
    last = NewRow(id="last", type="last", state=DEAD, history=[FailureRow(attempt=1, error_type="E")])
    await store.insert("q", [last])
    found: list[Any] = []
    async with store.listen("q", 0) as signals:
        while not found or found[-1][3] != "last":
            signal = await anext(signals)
            if hasattr(signal, "seq"):
                found.append(attrs.astuple(signal))
    return found
