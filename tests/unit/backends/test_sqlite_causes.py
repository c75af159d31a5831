"""Groups from what SQLite counts, beside groups from every letter: the same, or none at all."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deadletter import DeadLetterQueue, Query
from deadletter.backends.sqlite import SQLiteBackend, causes
from deadletter.interfaces import Backend
from deadletter.model.row import FailureRow, NewRow, Scan
from deadletter.rules import changes
from deadletter.testing import VirtualClock

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]  # which a file does not notice

QUERIES = (
    Query(),
    Query(type="t1"),
    Query(reason="rejected"),
    Query(fingerprint="f1"),
    Query(type="nowhere"),
    Query(type="t*"),
    Query(priority="high"),
    Query(error_type="E1"),
    Query(newer_than=3600),
    Query(error_contains="1"),
)
BY = ("fingerprint", "type", "reason", "error_type", "release")


def letter(n: int, dice: random.Random) -> NewRow:
    failure = FailureRow(
        attempt=1,
        at_ms=dice.randrange(50),
        error_type=dice.choice(["E1", "E2"]),
        message=f"message {n}",
        fingerprint=dice.choice(["f1", "f2", "f3", ""]),
        release=dice.choice([None, "1", "2"]),
    )
    return NewRow(
        id=f"{n:03}",
        type=dice.choice(["t1", "t2"]),
        priority=dice.choice([0, 1]),
        state="dead",
        reason=dice.choice(["rejected", "expired"]),
        keep_ms=dice.choice([None, 60_000]),
        history=dice.choice([[failure], [failure], []]),  # what expired may never have failed
        ended_at_ms=dice.randrange(50),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def dlq(path: Path) -> AsyncIterator[DeadLetterQueue]:
    clock = VirtualClock()
    backend = SQLiteBackend(path, clock=clock)
    async with DeadLetterQueue(backend, name="q", clock=clock) as made:
        yield made
    await backend.aclose()


async def letters(dlq: DeadLetterQueue, dice: random.Random) -> None:
    """Some that died, of which some are replayed, purged, forgotten and met again."""
    await dlq.backend.insert("q", [letter(n, dice) for n in range(60)])
    rows = [row for row in await dlq.backend.load("q", [f"{n:03}" for n in range(30)]) if row is not None]
    made = [
        dice.choice([changes.replay(row, f"r{row.id}"), changes.purge(row, f"p{row.id}", 1000)]) for row in rows[:20]
    ]
    assert set(await dlq.backend.apply("q", made)) == {"done"}


def rows_of(path: Path, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.full) for n in range(1, 20))])
async def test_they_are_those_of_a_scan(dlq: DeadLetterQueue, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    await letters(dlq, random.Random(seed))
    asked = [(query, by) for query in QUERIES for by in BY]
    told = [await dlq.groups(query, by=by) for query, by in asked]
    assert await dlq.backend.groups("q", Scan(), "fingerprint") is not None
    monkeypatch.setattr(SQLiteBackend, "groups", Backend.groups)
    for (query, by), groups in zip(asked, told, strict=True):
        assert groups == await dlq.groups(query, by=by), (query, by)


async def test_what_is_forgotten_is_no_longer_counted(dlq: DeadLetterQueue, path: Path) -> None:
    await letters(dlq, random.Random(3))
    dlq.clock.advance(3600)  # type: ignore[attr-defined]
    while await dlq.sweep():
        continue
    await dlq.purge(everything=True)
    assert await dlq.backend.groups("q", Scan(), "fingerprint") == []
    assert rows_of(path, "SELECT * FROM dl_causes WHERE count <> 0") == []


async def test_none_is_told_of_half_a_group_or_by_what_is_not_counted(dlq: DeadLetterQueue) -> None:
    """A scan would have to look at each letter; then it does."""
    await letters(dlq, random.Random(7))
    for scan, by in (
        (Scan(type="t1"), "fingerprint"),  # f1 is of t2, too
        (Scan(priority=1), "type"),
        (Scan(since_ms=1), "type"),
        (Scan(), "error_type"),
    ):
        assert await dlq.backend.groups("q", scan, by) is None, (scan, by)
    assert await dlq.backend.groups("q", Scan(type="t1"), "type")


async def test_letters_that_an_older_process_moved_are_read_one_by_one_until_the_next_start(
    dlq: DeadLetterQueue, path: Path
) -> None:
    """N6: it did not count them; whoever opens the file next does."""
    await letters(dlq, random.Random(5))
    expected = await dlq.groups()
    rows_of(path, "UPDATE dl_causes SET count = count - 1 WHERE fingerprint = 'f1'")
    assert await dlq.backend.groups("q", Scan(), "fingerprint") is None
    assert await dlq.groups() == expected
    await dlq.backend.aclose()
    later = SQLiteBackend(path, clock=dlq.clock)
    async with DeadLetterQueue(later, name="q", clock=dlq.clock) as again:
        assert await later.groups("q", Scan(), "fingerprint") is not None
        assert await again.groups() == expected
    await later.aclose()


async def test_a_file_of_the_version_before_is_counted_when_it_is_opened(dlq: DeadLetterQueue, path: Path) -> None:
    await letters(dlq, random.Random(6))
    expected = await dlq.groups()
    await dlq.backend.aclose()
    rows_of(path, "DROP TABLE dl_causes")
    rows_of(path, "DELETE FROM dl_migrations WHERE number >= 3")
    later = SQLiteBackend(path, clock=dlq.clock)
    async with DeadLetterQueue(later, name="q", clock=dlq.clock) as again:
        assert await later.groups("q", Scan(), "fingerprint") is not None
        assert await again.groups() == expected
    await later.aclose()


async def test_too_many_causes_are_left_to_a_scan(dlq: DeadLetterQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causes, "MOST", 1)
    await letters(dlq, random.Random(1))
    assert await dlq.backend.groups("q", Scan(), "type") is None
    assert sum(group.count for group in await dlq.groups(by="type")) == 40
