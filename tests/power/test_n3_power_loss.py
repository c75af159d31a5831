"""N3: the power fails at any moment: FULL loses nothing that was acknowledged, NORMAL loses the newest and mixes nothing.

The backend writes through apsw, whose SQLite records each write and sync; what is left of the files is opened by the
backend itself, with Python's own SQLite. What the model of a disk leaves out stands in ``disk.py``.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from deadletter.backends.sqlite import SQLiteBackend
from deadletter.model.row import Row
from deadletter.testing import VirtualClock

from .disk import WAYS, Name, Sync, Write, cut
from .story import NAME, QUEUE, Recording, held, record

SHORT, LONG = 60, 240  # states a way


@attrs.frozen
class Found:
    """What came back after one cut."""

    moment: int
    way: str
    lost: int  # acknowledged steps that are gone


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    """One life on FULL, the same on NORMAL."""
    return {
        synchronous: anyio.run(record, tmp_path_factory.mktemp(synchronous), synchronous, 90, 7)
        for synchronous in ("FULL", "NORMAL")
    }


def test_the_recording_holds_what_can_go_wrong(recordings: dict[str, Recording]) -> None:
    """Commits, write-backs of the log into the file, a log cut short and deleted, and files made anew."""
    for recording in recordings.values():
        kinds = Counter(
            (type(each).__name__, getattr(each, "data", 1) is None or getattr(each, "file", 1) is None)
            for each in recording.disk.happened
        )
        assert kinds[Write.__name__, False] > 500
        assert min(kinds[Write.__name__, True], kinds[Name.__name__, True], kinds[Name.__name__, False]) >= 2
        assert kinds[Sync.__name__, False] > (100 if recording is recordings["FULL"] else 4)


@pytest.mark.parametrize("way", WAYS)
def test_full_loses_nothing_that_was_acknowledged(way: str, recordings: dict[str, Recording], tmp_path: Path) -> None:
    recording = recordings["FULL"]
    for found in states(recording, way, SHORT, tmp_path):
        assert found.lost == 0, f"{found}: {found.lost} acknowledged steps are gone"


def test_normal_loses_the_newest_or_the_test_is_blind(recordings: dict[str, Recording], tmp_path: Path) -> None:
    """And what is left is what some acknowledged step left, nothing in between."""
    lost = [found.lost for found in states(recordings["NORMAL"], "dropped", SHORT, tmp_path)]

    assert max(lost) > 3, lost
    assert sum(map(bool, lost)) > SHORT // 4, lost


@pytest.mark.full
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_full_loses_nothing_in_more_lives(way: str, seed: int, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    recording = anyio.run(record, tmp_path / "disk", "FULL", 150, seed)
    for found in states(recording, way, LONG, tmp_path):
        assert found.lost == 0, f"seed {seed}, {found}"


@pytest.mark.full
@pytest.mark.parametrize("way", WAYS)
def test_normal_mixes_nothing(way: str, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    recording = anyio.run(record, tmp_path / "disk", "NORMAL", 150, 3)
    assert len(states(recording, way, LONG, tmp_path)) == LONG


def states(recording: Recording, way: str, most: int, folder: Path) -> list[Found]:
    """Cut the power at ``most`` moments, and look at what is left each time."""
    chance = random.Random(way)
    moments = sorted(chance.sample(range(len(recording.disk.happened) + 1), most))
    return anyio.run(_look_at_all, recording, way, moments, folder)


async def _look_at_all(recording: Recording, way: str, moments: list[int], folder: Path) -> list[Found]:
    found = []
    for moment in moments:
        at = folder / f"{way.replace(' ', '-')}-{moment}"
        at.mkdir()
        for name, content in cut(recording.disk.happened[:moment], way, random.Random(moment)).items():
            (at / name).write_bytes(content)
        try:
            newest = await _look(recording, moment, at)
            found.append(Found(moment, way, max(0, recording.before(moment) - newest)))  # one more may be there
        except Exception as error:
            error.add_note(f"after {moment} of what happened on the disk, the rest {way}; the files are in {at}")
            raise
        shutil.rmtree(at)
    return found


async def _look(recording: Recording, moment: int, folder: Path) -> int:
    """The newest step whose state is what is there; at most one was under way."""
    backend = SQLiteBackend(folder / NAME, clock=VirtualClock(), inline=True)
    await backend.open()
    try:
        connection = backend._writer.connection
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        there = held(connection)
        await _counts_hold(backend, connection)
    finally:
        await backend.aclose()
    newest = min(recording.before(moment) + 1, len(recording.acknowledged) - 1)
    for n in range(newest, -1, -1):
        if recording.acknowledged[n].held == there:
            return n
    raise AssertionError(f"no step left this behind: {there}")


async def _counts_hold(backend: SQLiteBackend, connection: Any) -> None:
    ids = [id_ for (id_,) in connection.execute("SELECT id FROM dl_rows").fetchall()]
    rows: list[Row | None] = []
    for at in range(0, len(ids), 100):
        rows += await backend.load(QUEUE, ids[at : at + 100])
    recount = Counter(
        (str(row.state), row.priority, row.type, row.reason or "") for row in rows if row and row.state != "gone"
    )
    assert {key: n for key, n in (await backend.counts(QUEUE)).tally.items() if n} == dict(recount)
