"""Fault N12: captures while the store is away: spooled, given back once, none lost by kill -9 at any point."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from deadletter.backends.sqlite import SpoolFile

from .conftest import Child, eventually
from .sqlite_roles import SPOOL_POINTS
from .store import SqliteStore

pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)

Start = Callable[..., Child]
IN, OUT = SPOOL_POINTS[:3], SPOOL_POINTS[3:]


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """While this file is there, no child reaches the store."""
    path = tmp_path / "away"
    path.touch()
    return path


def spooled(store: SqliteStore) -> list[str]:
    """The ids that wait."""
    path = store.folder / "captures.spool"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return []
        return [id_ for (id_,) in connection.execute("SELECT id FROM captures ORDER BY n").fetchall()]


def died_at(child: Child, point: str) -> None:
    eventually(child.ended)
    assert child.code == -signal.SIGKILL, f"should have died at {point}: {child.code}"


def nothing_is_lost_or_doubled(store: SqliteStore) -> None:
    """What was acknowledged is there once, and what is there was called; a call may be there of which nobody knows."""
    acknowledged = set(store.ledger.ids("acknowledged"))
    stored = [id_ for id_, _ in store.rows()]
    assert acknowledged
    assert acknowledged <= set(stored)
    payloads = Counter(bytes(body) for (body,) in store.rows("body"))
    assert set(payloads.values()) == {1}
    assert len(stored) <= len(store.ledger.facts("called"))
    inserted = Counter(id_ for (id_,) in store.ask("SELECT id FROM audit WHERE was IS NULL"))
    assert set(inserted.values()) == {1}


def test_no_capture_is_lost_by_a_kill_on_its_way_in(store: SqliteStore, start: Start, away: Path) -> None:
    for round_ in range(3):
        for point in IN:
            died_at(start("capturer", kill_at=point, after=2 + round_), point)
    waiting = spooled(store)
    assert set(store.ledger.ids("acknowledged")) <= set(waiting)
    assert store.rows() == []
    away.unlink()
    drainer = start("drainer")
    eventually(lambda: not spooled(store))
    assert drainer.drain() == 0
    nothing_is_lost_or_doubled(store)
    order = [id_ for (id_,) in store.ask("SELECT id FROM audit WHERE was IS NULL ORDER BY n")]
    assert order == waiting


def test_a_drainer_that_dies_anywhere_loses_and_doubles_nothing(store: SqliteStore, start: Start, away: Path) -> None:
    for point in OUT:
        away.touch()
        start("capturer", most=120)
        eventually(lambda: len(spooled(store)) >= 120)
        away.unlink()
        died_at(start("drainer", kill_at=point), point)
        survivor = start("drainer")
        eventually(lambda: not spooled(store))
        assert survivor.drain() == 0
    nothing_is_lost_or_doubled(store)


def test_processes_that_capture_and_give_back_at_the_same_time(store: SqliteStore, start: Start, away: Path) -> None:
    """The store comes and goes, and everybody who shares the file brings what waits; some die of it."""
    children = [start("capturer") for _ in range(2)] + [start("drainer", lease_ms=2_000) for _ in range(2)]
    for at in range(3):
        before = len(store.ledger.ids("acknowledged"))
        eventually(lambda: len(store.ledger.ids("acknowledged")) > before + 10)  # noqa: B023 - called before it changes
        away.unlink()
        doomed = start("drainer", kill_at=OUT[at])
        stored = len(store.rows())
        eventually(lambda: len(store.rows()) > stored + 5)  # noqa: B023
        away.touch()
        doomed.kill()
    for child in children[:2]:
        child.kill()
    away.unlink()
    eventually(lambda: not spooled(store), within=30)
    for child in children[2:]:
        assert child.drain() == 0
    nothing_is_lost_or_doubled(store)


def test_a_spool_left_by_the_dead_is_whole(store: SqliteStore, start: Start, away: Path) -> None:
    """A process that died inside of a transaction leaves a journal: the next one rolls it back."""
    died_at(start("capturer", kill_at="in_spooling", after=3), "in_spooling")
    file = SpoolFile(store.folder / "captures.spool")
    assert file.count(store.url, "default") == 2
    with closing(sqlite3.connect(file.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
