"""What is SQLite's own; what it promises as a backend is in tests/conformance."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from deadletter.backends import backend_from_url
from deadletter.backends._sql import COLUMNS
from deadletter.backends.sqlite import SQLiteBackend, bells, file, reads, step
from deadletter.backends.sqlite.inspection import resets_badly
from deadletter.model.errors import BackendUnavailable, InvalidSetting
from deadletter.model.record import Reason
from deadletter.model.row import Claim, EventRow, FailureRow, Inserted, NewRow, Row, Scan
from deadletter.rules import changes
from deadletter.testing import VirtualClock

pytestmark = pytest.mark.anyio

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def backend(path: Path, clock: VirtualClock) -> AsyncIterator[SQLiteBackend]:
    made = SQLiteBackend(path, clock=clock)
    yield made
    await made.aclose()


def new(id_: str, type_: str = "t", **options: Any) -> NewRow:
    return NewRow(**{"id": id_, "type": type_, "digest": "d", "body": b"{}"} | options)


def letter(id_: str, traceback: str = "Traceback", message: str = "no", **options: Any) -> NewRow:
    told = FailureRow(attempt=1, error_type="E", message=message, traceback=traceback, fingerprint="f")
    return new(id_, **{"state": "dead", "reason": "captured", "history": [told]} | options)


async def claimed(backend: SQLiteBackend, op: str = "c", **options: Any) -> list[Row]:
    wish = Claim(**{"op": op, "limit": 100, "types": ("t",)} | options)
    return (await backend.claim("q", wish)).rows


def count(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# The file


async def test_a_url_names_the_file_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert backend_from_url("sqlite:///a b.db").url == f"sqlite:///{tmp_path}/a%20b.db"
    assert backend_from_url("sqlite:////x/y.db").url == "sqlite:////x/y.db"
    assert backend_from_url("sqlite:///:memory:").url == "sqlite:///:memory:"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///x.db?mode=ro&cache=1", "unknown option cache, mode"),
        ("sqlite:///x.db?create=maybe", "create=maybe means nothing"),
        ("sqlite:///x.db?synchronous=off", "'off' is none of FULL, NORMAL, EXTRA"),
    ],
)
async def test_a_url_that_means_nothing_is_refused(url: str, told: str) -> None:
    with pytest.raises(InvalidSetting, match=told):
        backend_from_url(url)


async def test_nobody_else_can_read_the_file(backend: SQLiteBackend, path: Path) -> None:
    await backend.insert("q", [new("a")])
    modes = {name.name: stat.S_IMODE(name.stat().st_mode) for name in path.parent.glob("store.db*")}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


async def test_what_only_reads_makes_no_file(path: Path) -> None:
    backend = SQLiteBackend.from_url(f"sqlite:///{path}?create=0")
    with pytest.raises(BackendUnavailable, match=f"{path} does not exist"):
        await backend.counts("q")
    with pytest.raises(BackendUnavailable, match="does not exist"):
        await backend.open()
    assert not path.exists()
    await backend.aclose()


async def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    backend = SQLiteBackend(tmp_path / "no" / "x.db")
    with pytest.raises(BackendUnavailable, match=f"make its directory {tmp_path}/no first"):
        await backend.open()
    await backend.aclose()


async def test_another_kind_of_file_is_told_and_left_alone(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)
    backend = SQLiteBackend(path)
    with pytest.raises(BackendUnavailable, match="is not an SQLite database"):
        await backend.open()
    await backend.aclose()
    assert path.read_bytes() == b"not a database at all" * 100


async def test_a_newer_schema_is_left_alone(backend: SQLiteBackend, path: Path) -> None:
    await backend.open()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO dl_migrations VALUES (9999, 0)")
    later = SQLiteBackend(path)
    with pytest.raises(BackendUnavailable, match=r"newer version \(schema 9999, .* upgrade deadletter"):
        await later.open()
    await later.aclose()


async def test_an_application_may_keep_its_tables_in_the_same_file(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE rows (x)")
        connection.execute("PRAGMA user_version = 7")
    backend = SQLiteBackend(path)
    await backend.insert("q", [new("a")])
    await backend.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)


async def test_openings_may_race(path: Path) -> None:
    backends = [SQLiteBackend(path) for _ in range(8)]
    async with anyio.create_task_group() as group:
        for backend in backends:
            group.start_soon(backend.open)
    assert count(path, "dl_migrations") == len(list((Path(file.__file__).parent / "migrations").glob("*.sql")))
    for backend in backends:
        await backend.aclose()


async def test_a_full_disk_fails_the_step_whole_and_what_frees_room_works(backend: SQLiteBackend) -> None:
    await backend.insert("q", [new("a")])
    connection = backend._writer.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(BackendUnavailable, match="the disk is full; nothing of this step was stored"):
        await backend.insert("q", [new(f"b{n}", body=b"x" * 4000) for n in range(50)])
    [row] = await claimed(backend)
    await backend.apply("q", [changes.succeed(row, "s", None)])
    connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    assert [row and row.state for row in await backend.load("q", ["a", "b0"])] == ["succeeded", None]


async def test_a_lock_that_stays_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "LOCK_SECONDS", 0.2)
    backend = SQLiteBackend(path)
    await backend.open()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailable, match=r"was locked for .* by another process"):
            await backend.insert("q", [new("a")])
        assert (await backend.counts("q")).tally == {}  # a reader waits for nobody
        other.execute("ROLLBACK")
    assert (await backend.insert("q", [new("a")]))[0].verdict is Inserted.STORED
    await backend.aclose()


async def test_the_log_stays_bounded(backend: SQLiteBackend, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "WAL_BYTES", 200_000)
    for n in range(60):
        await backend.insert("q", [new(f"{n}-{m}", body=b"x" * 500) for m in range(50)])
        assert Path(f"{path}-wal").stat().st_size < 200_000 + 300_000


async def test_one_process_at_a_time_writes_the_log_back(
    backend: SQLiteBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "WAL_BYTES", 1)
    await backend.insert("q", [new("a")])
    assert Path(f"{path}-wal").stat().st_size == 0
    with open(f"{path}-checkpoint", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        await backend.insert("q", [new("b")])
        assert Path(f"{path}-wal").stat().st_size > 0
    await backend.insert("q", [new("c")])
    assert Path(f"{path}-wal").stat().st_size == 0


@pytest.mark.parametrize(
    ("version", "bad"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
    ],
)
async def test_versions_that_reset_the_log_badly_are_known(version: tuple[int, ...], bad: bool) -> None:
    assert resets_badly(version) is bad


async def test_doctor_is_told_what_an_operator_should_know(path: Path) -> None:
    backend = SQLiteBackend(path, synchronous="normal")
    await backend.open()
    path.chmod(0o644)
    inspection = await backend.inspect()
    told = " ".join(finding.text for finding in inspection.findings)
    assert inspection.version == sqlite3.sqlite_version
    assert "power loss may take the last commits" in inspection.durability
    assert "mode 0644" in told
    assert inspection.queues == []
    await backend.insert("q", [NewRow(id="a", type="t")])
    assert (await backend.inspect()).queues == ["q"]
    await backend.aclose()


# Threads


async def test_one_bad_operation_fails_no_stranger(backend: SQLiteBackend) -> None:
    """What waits together is committed together; an error in one is its own."""
    await backend.open()
    release = threading.Event()
    begun = threading.Event()

    def hold(_: object) -> None:
        begun.set()
        release.wait(10)

    failed: list[str] = []

    async def insert(id_: str, due_ms: int) -> None:
        try:
            await backend.insert("q", [new(id_, due_ms=due_ms)])
        except OverflowError:
            failed.append(id_)

    async with anyio.create_task_group() as group:
        group.start_soon(backend._write.call, hold)
        await anyio.to_thread.run_sync(begun.wait)
        for n in range(10):
            group.start_soon(insert, f"{n}", 1 << 70 if n == 4 else 0)
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert failed == ["4"]
    assert (await backend.counts("q")).tally == {("pending", 1, "t", ""): 9}


async def test_what_waits_together_is_one_commit(backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    await backend.open()
    sizes: list[int] = []
    perform = backend._writer.perform
    monkeypatch.setattr(backend._writer, "perform", lambda batch: (sizes.append(len(batch)), perform(batch)))
    async with anyio.create_task_group() as group:
        for n in range(200):
            group.start_soon(backend.insert, "q", [new(f"{n}")])
    assert len(sizes) < 60
    assert max(sizes) <= 64


async def test_a_closed_backend_says_so(backend: SQLiteBackend) -> None:
    await backend.open()
    thread = backend._write._thread  # type: ignore[union-attr]
    assert thread is not None
    assert thread.name == "deadletter-write"
    await backend.aclose()
    await backend.aclose()
    assert not thread.is_alive()
    with pytest.raises(BackendUnavailable, match="is closed"):
        await backend.load("q", ["a"])
    with pytest.raises(BackendUnavailable, match="is closed"):
        await backend.insert("q", [new("a")])


FORKING = """
import os, sys, warnings
import anyio
from deadletter.backends.sqlite import SQLiteBackend
from deadletter.model.row import NewRow
warnings.simplefilter("ignore")
backend = SQLiteBackend(sys.argv[1])

async def put(id_):
    await backend.insert("q", [NewRow(id=id_, type="t", digest="d")])
    return await backend.counts("q")

anyio.run(put, "parent")
child = os.fork()
if child == 0:
    anyio.run(put, "child")
    os._exit(0)
status = os.waitpid(child, 0)[1]
counts = anyio.run(put, "after")
print(status, sum(counts.tally.values()))
"""


async def test_a_forked_child_opens_the_file_anew(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("0 3\n", 0), done.stderr


async def test_inline_needs_no_threads(clock: VirtualClock) -> None:
    before = threading.active_count()
    backend = SQLiteBackend(":memory:", clock=clock, inline=True)
    await backend.insert("q", [new("a")])
    [row] = await claimed(backend)
    assert (row.id, threading.active_count()) == ("a", before)
    await backend.aclose()


# Rows


async def test_queues_in_one_file_never_mix(backend: SQLiteBackend) -> None:
    for queue in ("q", "other"):
        await backend.insert(queue, [new("a", key="k"), letter("b")])
    [row] = await claimed(backend)
    await backend.apply("q", [changes.succeed(row, "s", 0), changes.erase(row, "e", 0)])
    await backend.sweep("q", 100)
    assert await backend.load("q", ["a"]) == [None]
    other = await backend.load("other", ["a", "b"])
    assert [row and row.state for row in other] == ["pending", "dead"]
    assert other[1] is not None
    assert other[1].history[0].traceback == "Traceback"
    assert (await backend.counts("other")).tally == {("pending", 1, "t", ""): 1, ("dead", 1, "t", "captured"): 1}


async def test_a_traceback_is_kept_once_as_long_as_it_is_used(
    backend: SQLiteBackend, path: Path, clock: VirtualClock
) -> None:
    await backend.insert("q", [letter(f"{n}", "one" if n else "two", keep_ms=1000 * n) for n in range(30)])
    assert (count(path, "dl_texts"), count(path, "dl_failures")) == (2, 30)
    clock.advance(20)
    await backend.sweep("q", 100)
    assert (count(path, "dl_texts"), count(path, "dl_failures")) == (1, 9)
    await backend.insert("other", [letter("x", "one")])
    assert count(path, "dl_texts") == 2
    clock.advance(20)
    await backend.sweep("q", 100)
    assert (count(path, "dl_texts"), count(path, "dl_failures")) == (1, 1)


async def test_texts_beyond_the_history_go(backend: SQLiteBackend, path: Path, clock: VirtualClock) -> None:
    await backend.insert("q", [new("a")])
    for n in range(30):
        [row] = await claimed(backend, f"c{n}")
        told = FailureRow(attempt=n, error_type="E", message=f"{n}", traceback=f"text {n}")
        await backend.apply("q", [changes.try_again(row, f"f{n}", told, 0)])
    [loaded] = await backend.load("q", ["a"], history=20)
    assert loaded is not None
    assert [failure.message for failure in loaded.history] == [f"{n}" for n in range(10, 30)]
    assert count(path, "dl_texts") == 20
    [row] = await claimed(backend, "last")
    assert row.history[0].traceback == "text 29"
    await backend.apply("q", [changes.succeed(row, "s", 1000)])
    assert (count(path, "dl_texts"), count(path, "dl_traces"), count(path, "dl_failures")) == (0, 0, 0)


async def test_a_search_reads_each_text_once(backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    await backend.insert("q", [letter(f"{n:03}", "deep in Straße.py") for n in range(100)])
    await backend.insert("q", [letter(f"x{n:03}", "elsewhere") for n in range(100)])
    found: list[str] = []
    after = None
    while True:
        page = await backend.scan("q", Scan(limit=7, after=after, text="STRASSE"))
        found += [row.id for row in page.rows]
        after = page.after
        if after is None:
            break
    assert sorted(found) == [f"{n:03}" for n in range(100)]
    assert backend._found.traces == [1]


async def test_a_scan_that_nothing_narrows_goes_in_bounded_steps(
    backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deadletter.backends.sqlite.reads.WALK", 10)
    await backend.insert("q", [letter(f"{n:02}", release="2" if n == 3 else "1", history=()) for n in range(50)])
    steps = 0
    found: list[str] = []
    after = None
    while steps == 0 or after is not None:
        page = await backend.scan("q", Scan(limit=5, after=after, release="2"))
        found += [row.id for row in page.rows]
        after, steps = page.after, steps + 1
    assert (found, steps) == (["03"], 6)


async def test_more_types_than_one_statement_takes(backend: SQLiteBackend, clock: VirtualClock) -> None:
    """Over all parts, first come first served."""
    types = [f"t{n}" for n in range(step.TYPES * 2 + 5)]
    for n, type_ in enumerate(reversed(types)):
        await backend.insert("q", [new(f"{n:03}", type_)])
        clock.advance(0.001)
    rows = await claimed(backend, types=types, limit=100)
    assert [row.id for row in rows] == [f"{n:03}" for n in range(100)]


async def test_innocents_behind_more_suspects_than_a_claim_may_take_are_found(backend: SQLiteBackend) -> None:
    """A claim first reads as many entries as it can want; with suspects among them it reads on."""
    await backend.insert("q", [new(f"s{n}", lease_losses=2) for n in range(5)])
    await backend.insert("q", [new(f"z{n}") for n in range(3)])
    found = await backend.claim("q", Claim(op="c", limit=2, types=("t",), max_losses=2))
    assert ([row.id for row in found.rows], found.suspects) == (["z0", "z1"], True)
    assert found.next_due_ms is not None


async def test_bodies_of_every_length_arrive_whole(backend: SQLiteBackend) -> None:
    """Empty, short, and longer than a page of the file."""
    lengths = (0, 1, 4095, 4096, 4097, 100_000)
    bodies = {f"b{length}": bytes(at * 7 % 256 for at in range(length)) for length in lengths}
    await backend.insert("q", [new(id_, body=body) for id_, body in bodies.items()])
    assert {row.id: row.body for row in await claimed(backend)} == bodies
    assert {row.id: row.body for row in await claimed(backend)} == bodies, "and the same when asked again"


async def test_a_suspect_is_found_without_reading_the_innocent(backend: SQLiteBackend) -> None:
    await backend.insert("q", [new("pill")])
    await claimed(backend)
    connection = backend._writer.connection
    await backend._write.call(lambda _: connection.execute("UPDATE dl_rows SET state='pending', lease_losses=3"))
    backend._writer._step._leased.clear()  # type: ignore[union-attr]
    for n in range(20):
        await backend.insert("q", [new(f"{n}-{m}", due_ms=-10) for m in range(100)])
    seen = 0

    def watch() -> int:
        nonlocal seen
        seen += 1
        return 0

    connection.set_progress_handler(watch, 100)
    answer = await backend.claim("q", Claim(op="x", types=("t",), limit=1, max_losses=2, alone=True))
    connection.set_progress_handler(None, 0)
    assert [row.id for row in answer.rows] == ["pill"]
    assert seen < 50  # 5,000 instructions; the innocent alone would take more than 20,000


async def test_columns_are_those_of_a_row(backend: SQLiteBackend, path: Path) -> None:
    """A row is made from a tuple by position, so the table must have the fields of Row in their order."""
    await backend.open()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [name for _, name, *_ in connection.execute("PRAGMA table_info(dl_rows)")]
    assert tuple(names[2:]) == COLUMNS


async def test_events_are_kept_in_bounded_number(
    backend: SQLiteBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deadletter.backends.sqlite.journal.EVENTS", 100)
    for n in range(20):
        await backend.insert("q", [letter(f"{n}-{m}") for m in range(100)])
    assert count(path, "dl_events") <= 100 + 500
    async with backend.listen("q", 0) as signals:
        first = await anext(signals)
    assert isinstance(first, EventRow)
    assert first.seq > 1


# Between processes

PUT = """
import sys
import anyio
from deadletter.backends.sqlite import SQLiteBackend
from deadletter.model.row import NewRow

async def main():
    backend = SQLiteBackend(sys.argv[1])
    await backend.open()
    for line in sys.stdin:
        await backend.insert("q", [NewRow(id=line.strip(), type="t", digest="d")])
        print("done", flush=True)
    await backend.aclose()

anyio.run(main)
"""


@contextlib.contextmanager
def another_process(path: Path) -> Any:
    with subprocess.Popen(
        [sys.executable, "-c", PUT, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("deep", [False, True], ids=["short path", "long path"])
async def test_work_of_another_process_rings_the_bell(tmp_path: Path, deep: bool) -> None:
    """Sooner than the safety poll would find it."""
    folder = tmp_path / ("x" * 120) if deep else tmp_path
    folder.mkdir(exist_ok=True)
    path = folder / "store.db"
    backend = SQLiteBackend(path)
    beside = Path(f"{path}-bells")
    with another_process(path) as process:
        async with backend.listen("q") as signals:
            assert stat.S_IMODE(beside.stat().st_mode) == 0o700
            process.stdin.write("warm\n")
            process.stdin.flush()
            await anyio.to_thread.run_sync(process.stdout.readline)
            await anext(signals)
            took: list[float] = []
            for n in range(5):
                began = time.monotonic()
                process.stdin.write(f"{n}\n")
                process.stdin.flush()
                await anext(signals)
                took.append(time.monotonic() - began)
        assert sorted(took)[2] < 0.5
    await backend.aclose()
    with anyio.fail_after(10):
        while beside.exists():
            await anyio.sleep(0.01)


async def test_what_is_committed_elsewhere_wakes_only_who_has_work(backend: SQLiteBackend, path: Path) -> None:
    """A claim locks the whole file: an idle queue that claims at each commit of a busy one slows it."""
    hints: list[object] = []

    async def listen() -> None:
        async with backend.listen("q") as signals:
            async for signal in signals:
                hints.append(signal)  # noqa: PERF401 - the other end looks at it meanwhile

    async def until(true: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not true():
                await anyio.sleep(0.001)

    other = SQLiteBackend(path)
    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await until(lambda: bool(backend._ears) and not backend._ears[0].told)
        for n in range(20):
            await other.insert("busy", [new(f"b{n}")])
            backend._heard()  # as its doorbell does, at the latest a second after the commit
            await until(lambda: not backend._ears[0].rumour and not backend._ears[0].told)
        await backend.counts("q")  # behind whatever the listener has asked
        assert hints == []
        await other.insert("q", [new("mine")])
        backend._heard()
        await until(lambda: bool(hints))
        group.cancel_scope.cancel()
    await other.aclose()


async def test_a_dead_listener_is_forgotten(backend: SQLiteBackend, path: Path) -> None:
    """A socket whose process was killed refuses; whoever rings takes it away."""
    await backend.open()
    beside = Path(f"{path}-bells")
    beside.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(beside / "1-dead"))
    await backend.insert("q", [new("a")])
    await backend.open()
    assert list(beside.iterdir()) == []


async def test_without_sockets_it_looks_at_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bells, "SOCKETS", False)
    backend, other = SQLiteBackend(path), SQLiteBackend(path)
    with anyio.fail_after(20):
        async with backend.listen("q") as signals:
            for n in range(3):
                await other.insert("q", [letter(f"{n}")])
                while not isinstance(signal := await anext(signals), EventRow):
                    pass
                assert signal.task_id == f"{n}"
    await other.aclose()
    await backend.aclose()


async def test_four_processes_claim_each_row_once(path: Path) -> None:
    backends = [SQLiteBackend(path) for _ in range(4)]
    await backends[0].insert("q", [new(f"{n}") for n in range(100)])
    got: list[str] = []

    async def drain(at: int) -> None:
        n = 0
        while rows := await claimed(backends[at], f"{at}-{n}", limit=3):
            n += 1
            got.extend(row.id for row in rows)
            told = FailureRow(attempt=1)
            await backends[at].apply(
                "q", [changes.die(row, f"{row.token}!", Reason.PERMANENT, told, None) for row in rows]
            )

    async with anyio.create_task_group() as group:
        for at in range(4):
            group.start_soon(drain, at)
    assert sorted(got, key=int) == [f"{n}" for n in range(100)]
    for backend in backends:
        await backend.aclose()


async def test_a_search_finds_texts_beyond_those_that_it_reads_ahead(
    backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is read with its letter: no step reads all texts of a queue in which each letter has one of its own."""
    monkeypatch.setattr(reads, "TEXTS", 2)
    for n in range(8):
        await backend.insert("q", [letter(f"{n}", f"Traceback {n}", ended_at_ms=n)])
    for wanted, found in (("traceback 1", ["1"]), ("traceback 6", ["6"]), ("traceback", [*"76543210"]), ("none", [])):
        for _ in range(2):  # what is remembered answers the same
            page = await backend.scan("q", Scan(text=wanted))
            assert [row.id for row in page.rows] == found
    await backend.insert("q", [letter("8", "Traceback 1")])
    assert [row.id for row in (await backend.scan("q", Scan(text="traceback 1"))).rows] == ["8", "1"]
