"""Rows, failures and short ways through a task's life, for the conformance suite."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import attrs
import pytest

from ..interfaces.backend import Backend
from ..model.record import Reason
from ..model.row import (
    GONE,
    Change,
    Claim,
    Claimed,
    Counts,
    FailureRow,
    Inserted,
    Insertion,
    NewRow,
    Row,
    Scan,
    Verdict,
)
from ..rules import changes
from .virtual_clock import VirtualClock

T = TypeVar("T")

QUEUE = "conformance"
KEEP_MS = 60_000
LEASE_MS = 30_000
DONE, REPEATED, STALE, MISSING = Verdict.DONE, Verdict.REPEATED, Verdict.STALE, Verdict.MISSING

_numbers = itertools.count()


def op() -> str:
    """A name that no step has had before."""
    return f"op{next(_numbers):06}"


def new(id: str = "a", **fields: Any) -> NewRow:
    """A row to insert: of type ``t``, with a body and a digest of its own unless told otherwise."""
    return NewRow(id=id, **{"type": "t", "digest": f"digest of {id}", "body": f"body of {id}".encode(), **fields})


def failure(attempt: int = 1, **fields: Any) -> FailureRow:
    """A failure with every field set."""
    told: dict[str, Any] = {
        "duration_ms": 7,
        "error_type": "builtins.ValueError",
        "message": f"no {attempt}",
        "traceback": "Traceback: the same each time",
        "fingerprint": "f00d",
        "worker": "w1",
        "release": "1.0",
        "traceparent": f"00-{attempt:032x}-{attempt:016x}-01",
    }
    return FailureRow(attempt=attempt, **(told | fields))


def letter(id: str = "a", **fields: Any) -> NewRow:
    """A captured letter to insert."""
    return new(id, **{"state": "dead", "reason": "captured", "attempts": 1, "history": [failure()], **fields})


@attrs.frozen
class Store:
    """One queue of a backend, with the steps that most promises need."""

    backend: Backend
    clock: VirtualClock
    queue: str = QUEUE

    def pass_ms(self, ms: int) -> None:
        """Let time pass."""
        self.clock.advance(ms / 1000)

    async def insert(self, *rows: NewRow) -> list[Insertion]:
        """Insert in one call."""
        return await self.backend.insert(self.queue, rows)

    async def put(self, *rows: NewRow) -> None:
        """Insert what must be new."""
        verdicts = [insertion.verdict for insertion in await self.insert(*rows)]
        assert verdicts == [Inserted.STORED] * len(rows)

    async def claim(self, **fields: Any) -> Claimed:
        """Claim: 100 rows of type ``t`` unless told otherwise."""
        told = {"op": op(), "limit": 100, "types": ["t"], "lease_ms": LEASE_MS, "owner": "w1", **fields}
        return await self.backend.claim(self.queue, Claim(**told))

    async def claimed(self, **fields: Any) -> list[str]:
        """The ids that a claim gets."""
        return [row.id for row in (await self.claim(**fields)).rows]

    async def apply(self, *made: Change) -> list[Verdict]:
        """Apply in one call."""
        return await self.backend.apply(self.queue, made)

    async def must(self, *made: Change) -> None:
        """Apply what nobody contests."""
        assert await self.apply(*made) == [DONE] * len(made)

    async def row(self, id: str = "a", *, history: int = 20) -> Row:
        """A row that exists."""
        [row] = await self.backend.load(self.queue, [id], history=history)
        assert row is not None, f"{id} is not there"
        return row

    async def state(self, id: str = "a") -> str | None:
        """The row's state; None where there is none, or only a tombstone."""
        [row] = await self.backend.load(self.queue, [id], history=0)
        return None if row is None or row.state == GONE else str(row.state)

    async def sweep(self, limit: int = 100) -> list[str]:
        """The ids that a sweep answers."""
        return [row.id for row in await self.backend.sweep(self.queue, limit)]

    async def counts(self) -> Counts:
        """The counts."""
        return await self.backend.counts(self.queue)

    async def running(self, id: str = "a", **fields: Any) -> Row:
        """Insert and claim."""
        claim = {name: fields.pop(name) for name in ("keep_ms", "lease_ms", "owner", "alone") if name in fields}
        await self.put(new(id, **fields))
        [row] = (await self.claim(ids=[id], **claim)).rows
        return row

    async def dead(self, id: str = "a", *, keep_ms: int | None = KEEP_MS, **fields: Any) -> Row:
        """Insert, claim and fail for good."""
        row = await self.running(id, **fields)
        await self.must(changes.die(row, op(), Reason.PERMANENT, failure(), keep_ms))
        return await self.row(id)

    async def gone(self, id: str = "a", *, keep_ms: int = KEEP_MS, **fields: Any) -> Row:
        """Insert and cancel: a tombstone."""
        await self.put(new(id, **fields))
        await self.must(changes.cancel(await self.row(id), op(), keep_ms))
        return await self.row(id)

    async def scanned(self, **fields: Any) -> list[Row]:
        """Everything that a scan finds, page after page, narrowed as ``Query.matches`` would."""
        found: list[Row] = []
        scan = Scan(**fields)
        while True:
            page = await self.backend.scan(self.queue, scan)
            assert len(page.rows) <= scan.limit
            found += page.rows
            if page.after is None:
                return [row for row in found if _meant(scan, row)]
            scan = attrs.evolve(scan, after=page.after)


def _meant(scan: Scan, row: Row) -> bool:
    names = ("type", "priority", "fingerprint", "reason", "error_type", "release")
    return all(getattr(scan, name) in (None, getattr(row, name)) for name in names)


def tally(rows: Sequence[Row]) -> dict[tuple[str, int, str, str], int]:
    """A recount of what ``Counts.tally`` says; zeros left out."""
    found: dict[tuple[str, int, str, str], int] = {}
    for row in rows:
        if row.state != GONE:
            key = (str(row.state), row.priority, row.type, row.reason or "")
            found[key] = found.get(key, 0) + 1
    return found


def nonzero(counted: Counts) -> dict[tuple[str, int, str, str], int]:
    """The tally without zeros."""
    return {key: n for key, n in counted.tally.items() if n}


@pytest.mark.anyio
class Promises:
    """Where the fixtures of the suite live; each test's docstring is a promise, printed where it is broken."""

    ordered = True  # see BackendConformance

    def as_ordered(self, found: Iterable[T]) -> list[T]:
        """What was found, in the order that is promised: where none is, in any that two sides can be compared by."""
        return list(found) if self.ordered else sorted(found, key=str)

    @pytest.fixture
    def make_backend(self) -> Callable[[VirtualClock], Backend]:
        """Override me: a function that takes a clock and makes a backend on a fresh, empty store."""
        raise NotImplementedError(
            "override the fixture make_backend: it returns a function from a clock to a fresh backend"
        )

    @pytest.fixture
    def reopen(self) -> Callable[[Backend, VirtualClock], Backend]:
        """Override me where a store outlives its backend: a second backend on the same store."""
        return lambda backend, _: backend

    @pytest.fixture
    def clock(self) -> VirtualClock:
        """The only clock that a step may read."""
        return VirtualClock()

    @pytest.fixture
    async def store(
        self, anyio_backend: object, make_backend: Callable[[VirtualClock], Backend], clock: VirtualClock
    ) -> Any:
        """A fresh store, opened."""
        del anyio_backend
        backend = make_backend(clock)
        await backend.open()
        yield Store(backend, clock)
        await backend.aclose()

    @pytest.fixture(autouse=True)
    def _say_promise(self, request: pytest.FixtureRequest) -> None:
        print("promise:", " ".join((request.function.__doc__ or "").split()))  # noqa: T201 - pytest shows it where it breaks
