"""Fault N14: an operator's retry-all, purge, erase, import or migration, killed midway."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deadletter import DeadLetterQueue, PermanentError, Task
from deadletter.backends._sql import load_migrations
from deadletter.cli.exits import run

from ..redis_servers import valkey
from .conftest import Child, eventually
from .invariants import counts_hold
from .redis_store import RedisStore
from .sqlite_roles import NEXT_SCHEMA
from .store import SqliteStore, Store

Start = Callable[..., Child]

LETTERS = 250  # three steps: 100, 100, 50
PLACES = [("before_step", 2), ("mid_step", 1), ("mid_step", 3), ("after_step", 1), ("after_step", 3)]


class Reopened(SqliteStore):
    """A file that a ``SqliteStore`` made before; nothing holds it open."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self.path = path
        self.url = f"sqlite:///{path}"

    def close(self) -> None:
        """Nothing was opened."""


def fill(store: Store) -> None:
    """Put letters in, and a task that is no operator's business."""
    for n in range(LETTERS):
        task = Task(type="work", id=f"{n:05}", payload={"n": n, "token": f"secret-{n}"}, idempotency_key=f"k{n}")
        store.dlq.sync.capture(task, ValueError(f"refused {n}"))
    store.dlq.sync.enqueue(Task(type="work", id="waiting", delay=3600))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled file."""
    store = SqliteStore(tmp_path_factory.mktemp("filled"))
    fill(store)
    store.close()
    return store.path


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.full)])
def store(request: pytest.FixtureRequest, tmp_path: Path, filled: Path) -> Iterator[Store]:
    """A filled store."""
    if request.param == "sqlite":
        copy = tmp_path / "queue.db"
        copy.write_bytes(filled.read_bytes())
        yield Reopened(copy)
        return
    store = RedisStore(tmp_path, valkey())
    fill(store)
    yield store
    store.close()


def spelled(place: tuple[str, int]) -> str:
    return f"{place[0]}-{place[1]}"


def ended(child: Child) -> int:
    eventually(child.ended)
    assert child.code is not None
    return child.code


@pytest.mark.parametrize("place", PLACES, ids=spelled)
@pytest.mark.parametrize("do", ["retry_all", "purge", "erase"])
def test_the_same_call_again_finishes_it(store: Store, start: Start, do: str, place: tuple[str, int]) -> None:
    """Each letter is changed once, a step is done or undone as a whole, and every count is closed."""
    became, counter = {"retry_all": ("pending", "replayed"), "purge": ("gone", "purged"), "erase": ("gone", "erased")}[
        do
    ]
    assert ended(start("operator", do=do, kill_at=place[0], after=place[1])) == -9
    left = len(store.in_state("dead"))
    assert left % 100 in (50, 0)
    assert list(counts_hold(store)) == []
    assert ended(start("operator", do=do)) == 0
    assert store.in_state("dead") == []
    assert len([id_ for id_ in store.in_state(became) if id_ != "waiting"]) == LETTERS
    others = int(do == "erase")  # it takes the pending task, too
    assert store.counters()[counter] == store.events()[counter] == LETTERS + others
    assert {replays for (replays,) in store.rows("replays")} <= {0, 1}
    assert list(counts_hold(store)) == []


def test_the_first_cutoff_keeps_out_what_died_again_meanwhile(store: Store, start: Start) -> None:
    cutoff = datetime.now(UTC)
    said = {"do": "retry_all", "cutoff": cutoff.isoformat()}
    assert ended(start("operator", kill_at="after_step", after=1, **said)) == -9
    replayed = [id_ for id_ in store.in_state("pending") if id_ != "waiting"]
    assert len(replayed) == 100
    dlq = DeadLetterQueue(store.url)

    def reject(task: Task) -> None:
        raise PermanentError("no")

    for id_ in replayed[:10]:
        assert not dlq.sync.process_task(id_, reject)
    dlq.sync.aclose()
    assert ended(start("operator", **said)) == 0
    assert sorted(store.in_state("dead")) == sorted(replayed[:10])
    assert store.counters()["replayed"] == LETTERS


def empty_beside(store: Store, tmp_path: Path) -> Store:
    """Another store of the same kind."""
    if isinstance(store, RedisStore):
        return RedisStore(tmp_path, store.server)
    folder = tmp_path / "other"
    folder.mkdir()
    return SqliteStore(folder)


@pytest.mark.parametrize("place", PLACES, ids=spelled)
def test_an_import_goes_on_where_it_was_killed(
    store: Store, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: tuple[str, int]
) -> None:
    lines, back = tmp_path / "letters.ndjson", tmp_path / "back.ndjson"
    assert run(["export", "--reveal", "-o", str(lines), "--url", store.url]) == 0
    copied = empty_beside(store, tmp_path)
    said = {"do": "import", "url": copied.url, "lines": str(lines)}
    assert ended(start("operator", kill_at=place[0], after=place[1], **said)) == -9
    before = len(copied.rows())
    assert before % 100 in (50, 0)
    capsys.readouterr()
    assert run(["import", str(lines), "--json", "--url", copied.url]) == 0
    assert capsys.readouterr().out == f'{{"read":{LETTERS},"stored":{LETTERS - before},"known":{before},"failed":0}}\n'
    assert copied.counters()["imported"] == copied.events()["dead"] == LETTERS
    assert list(counts_hold(copied)) == []
    assert run(["export", "--reveal", "-o", str(back), "--url", copied.url]) == 0
    assert back.read_bytes() == lines.read_bytes()
    copied.close()


def migrations_of(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'dl_migrations'").fetchone()
        return [n for (n,) in connection.execute("SELECT number FROM dl_migrations ORDER BY 1")] if there else []


@pytest.mark.parametrize("upgrade", [False, True], ids=["made", "upgraded"])
@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_migration_is_done_or_not_at_all(tmp_path: Path, filled: Path, start: Start, upgrade: bool) -> None:
    """Killed at its first, second, ... and last statement, the COMMIT among them."""
    path = tmp_path / "migrated.db"
    ours = load_migrations("deadletter.backends.sqlite")
    before = [number for number, _ in ours]
    done = [*before, NEXT_SCHEMA[0]] if upgrade else before
    statements = NEXT_SCHEMA[1] if upgrade else [each for _, part in ours for each in part]
    stamps = 1 if upgrade else len(ours)
    last = len(statements) + stamps + 4  # BEGIN, a look at what is there, and COMMIT among them
    killed = 0
    for after in range(1, last + 3) if upgrade else (1, 2, 3, last // 2, last - 2, last - 1, last, last + 1):
        path.write_bytes(filled.read_bytes() if upgrade else b"")
        code = ended(start("migrator", url=f"sqlite:///{path}", kill_at="statement", after=after, upgrade=upgrade))
        killed += code == -9
        have = migrations_of(path)
        assert have == done if code == 0 else have in ([], before, done)
        assert ended(start("migrator", url=f"sqlite:///{path}", upgrade=upgrade)) == 0
        assert migrations_of(path) == done
    assert killed >= 6
    if upgrade:
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*), sum(next) FROM dl_rows, dl_next USING (n)").fetchone() == (
                LETTERS + 1,
                7 * (LETTERS + 1),
            )
    else:
        dlq = DeadLetterQueue(f"sqlite:///{path}")
        assert dlq.sync.enqueue(Task(type="work", id="x")) == "x"
        dlq.sync.aclose()
