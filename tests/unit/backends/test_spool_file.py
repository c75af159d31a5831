"""The spool's file: private, bounded, durable, shared by threads and processes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter import BackendError, BackendUnavailable, InvalidSetting, Reason
from deadletter.backends.sqlite import SpoolFile, spool
from deadletter.model.row import DEAD, FailureRow, NewRow

URL, QUEUE, NOW = "redis://store:6379/0", "default", 1_800_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "captures.spool"


@pytest.fixture
def file(path: Path) -> SpoolFile:
    return SpoolFile(path)


def row(id_: str, **fields: object) -> NewRow:
    return NewRow(**{"id": id_, "type": "t", "digest": f"of {id_}", "body": b'{"p":{}}', **fields})  # type: ignore[arg-type]


def ids(file: SpoolFile, *, after: int = 0, url: str = URL, queue: str = QUEUE, now: int = NOW) -> list[str]:
    return [spooled.row.id for spooled in file.take(url, queue, after, now) if spooled.row is not None]


def place(file: SpoolFile, id_: str) -> int:
    return next(s.n for s in file.take(URL, QUEUE, 0, NOW * 2) if s.row is not None and s.row.id == id_)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
failures = st.builds(
    FailureRow,
    attempt=st.integers(1, 9),
    at_ms=st.integers(0, NOW),
    duration_ms=st.none() | st.integers(0, 9),
    error_type=texts,
    message=texts,
    traceback=texts,
    fingerprint=texts,
    release=st.none() | texts,
)
rows = st.builds(
    NewRow,
    id=st.text("abc-_.:9", min_size=1),
    type=texts,
    priority=st.integers(0, 2),
    key=st.none() | texts,
    digest=texts,
    body=st.binary(),
    state=st.sampled_from(["pending", DEAD]),
    due_ms=st.integers(0, NOW),
    due_at_ms=st.none() | st.integers(0, NOW),
    expires_ms=st.none() | st.integers(0, NOW),
    keep_ms=st.none() | st.integers(0, NOW),
    redact=texts,
    release=st.none() | texts,
    reason=st.none() | st.sampled_from(Reason),
    attempts=st.integers(0, 9),
    history=st.lists(failures, max_size=3),
    created_at_ms=st.integers(0, NOW),
    ended_at_ms=st.none() | st.integers(0, NOW),
    count=st.lists(st.tuples(texts, texts, texts), max_size=3),
)


@given(rows)
def test_what_comes_out_is_what_went_in(new: NewRow) -> None:
    assert spool._read(*spool._written(new)) == new


def test_captures_come_in_order_each_once_and_stay_until_removed(file: SpoolFile) -> None:
    for id_ in "cab":
        file.put(URL, QUEUE, row(id_), NOW)
    file.put(URL, QUEUE, row("a"), NOW)
    assert ids(file) == ["c", "a", "b"] == ids(file)
    assert ids(file, after=place(file, "a")) == ["b"]
    file.remove([place(file, "c")])
    assert (ids(file), file.count(URL, QUEUE)) == (["a", "b"], 2)


def test_two_captures_with_one_id_and_other_contents_are_both_kept(file: SpoolFile) -> None:
    file.put(URL, QUEUE, row("a", digest="1"), NOW)
    file.put(URL, QUEUE, row("a", digest="2"), NOW)
    assert file.count(URL, QUEUE) == 2


def test_other_stores_and_queues_are_left_alone(file: SpoolFile) -> None:
    file.put(URL, QUEUE, row("a"), NOW)
    file.put("redis://other", QUEUE, row("b"), NOW)
    file.put(URL, "other", row("c"), NOW)
    assert (ids(file), ids(file, url="redis://other"), ids(file, queue="other")) == (["a"], ["b"], ["c"])
    assert (file.count(URL, QUEUE), file.due(URL, QUEUE, NOW), file.due(URL, "none", NOW)) == (1, True, False)


def test_nothing_is_made_by_looking(file: SpoolFile, path: Path) -> None:
    assert (file.count(URL, QUEUE), file.due(URL, QUEUE, NOW), file.take(URL, QUEUE, 0, NOW)) == (0, False, [])
    assert "not made yet" in file.findings(URL, QUEUE, NOW)[0].text
    assert not path.exists()


def test_the_file_is_private_from_its_first_moment(
    file: SpoolFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    connect = sqlite3.connect

    def watched(*given: object, **options: object) -> sqlite3.Connection:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        return connect(*given, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(sqlite3, "connect", watched)
    before = os.umask(0)
    try:
        file.put(URL, QUEUE, row("a"), NOW)
    finally:
        os.umask(before)
    assert set(modes) == {0o600}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_commit_is_made_for_power_loss(file: SpoolFile) -> None:
    with file._changing() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_what_was_removed_leaves_no_trace(file: SpoolFile, path: Path) -> None:
    file.put(URL, QUEUE, row("a", body=b"4111-1111"), NOW)
    assert b"4111-1111" in path.read_bytes()
    file.remove([place(file, "a")])
    assert b"4111-1111" not in path.read_bytes()


@pytest.mark.parametrize("limits", [{"most": 2}, {"most_bytes": 900}])
def test_a_full_spool_says_so_with_path_limit_and_way_out(path: Path, limits: dict[str, int]) -> None:
    file = SpoolFile(path, **limits)
    for id_ in "ab":
        file.put(URL, QUEUE, row(id_), NOW)
    with pytest.raises(BackendError, match=rf"{path} is full.*{next(iter(limits.values()))}.*SpoolFile\(path, most="):
        file.put(URL, QUEUE, row("c", body=b"x" * 500), NOW)
    file.put(URL, QUEUE, row("b"), NOW)  # what it has, it has
    assert ids(file) == ["a", "b"]


def test_a_batch_is_bounded_in_number_and_in_bytes(file: SpoolFile, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(105):
        file.put(URL, QUEUE, row(f"{at:03}"), NOW)
    assert len(ids(file)) == 100
    monkeypatch.setattr(spool, "BATCH_BYTES", 1)
    assert ids(file) == ["000"]


def test_one_gives_back_at_a_time_and_a_dead_one_holds_nobody_up_for_long(file: SpoolFile) -> None:
    file.put(URL, QUEUE, row("a"), NOW)
    assert file.lease(URL, QUEUE, "one", NOW, 1000)
    assert file.lease(URL, QUEUE, "one", NOW + 500, 1000)
    assert not file.lease(URL, QUEUE, "two", NOW + 1400, 1000)
    assert file.lease(URL, "other", "two", NOW, 1000)
    assert file.lease(URL, QUEUE, "two", NOW + 1500, 1000)
    file.release(URL, QUEUE, "one")
    assert not file.lease(URL, QUEUE, "one", NOW + 1600, 1000)
    file.release(URL, QUEUE, "two")
    assert file.lease(URL, QUEUE, "one", NOW + 1600, 1000)


def test_a_lease_of_a_clock_that_was_set_back_is_none(file: SpoolFile) -> None:
    assert file.lease(URL, QUEUE, "one", NOW, 1000)
    assert file.lease(URL, QUEUE, "two", NOW - 5000, 1000)


def test_what_was_refused_waits_and_is_told(file: SpoolFile) -> None:
    for id_ in "ab":
        file.put(URL, QUEUE, row(id_), NOW)
    file.refuse(place(file, "a"), "ValueError: too odd", NOW + 10)
    assert (ids(file), file.count(URL, QUEUE), ids(file, now=NOW + 10)) == (["b"], 2, ["a", "b"])
    told = file.findings(URL, QUEUE, NOW + 3000)
    assert "holds 2 captures for this queue, the oldest for 3 s" in told[0].text
    assert (told[1].level, "a from the spool: ValueError: too odd" in told[1].text) == ("warning", True)


def test_findings_tell_of_others_of_an_almost_full_file_and_of_its_mode(path: Path) -> None:
    file = SpoolFile(path, most=2)
    file.put(URL, "other", row("a"), NOW)
    assert [f.level for f in file.findings(URL, QUEUE, NOW)] == ["ok"]
    file.put(URL, QUEUE, row("b"), NOW)
    path.chmod(0o644)
    told = file.findings(URL, QUEUE, NOW)
    assert [f.level for f in told] == ["note", "warning", "warning"]
    assert "and 1 for others" in told[0].text
    assert "almost full: it may hold 2 captures" in told[1].text
    assert "mode 0644" in told[2].text


def test_a_damaged_capture_stays_and_says_so(file: SpoolFile, path: Path) -> None:
    file.put(URL, QUEUE, row("a"), NOW)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE captures SET fields = x'7b'")
    assert [spooled.row for spooled in file.take(URL, QUEUE, 0, NOW)] == [None]


def test_a_relative_path_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = SpoolFile("x.spool")
    monkeypatch.chdir("/")
    assert file.path == str(tmp_path / "x.spool")
    assert str(tmp_path / "x.spool") in repr(file)


def test_a_place_that_cannot_be_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, said in [
        ("", "is empty"),
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "x.spool", f"there is no directory {tmp_path}/no"),
    ]:
        with pytest.raises(InvalidSetting, match=f"^spool: .*{said}"):
            SpoolFile(path)
    (tmp_path / "x.spool").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).is_dir())
    with pytest.raises(InvalidSetting, match="may not read and write it"):
        SpoolFile(tmp_path / "x.spool")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InvalidSetting, match="may not write in"):
        SpoolFile(tmp_path / "x.spool")


def test_a_file_that_another_process_furnishes_meanwhile_is_no_strangers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read in one transaction: its two halves, read apart, looked like a database of something else."""
    refused: list[BackendUnavailable] = []
    connect = sqlite3.connect

    class Slow(sqlite3.Connection):
        """Lets somebody else put something in while it reads what the file is."""

        def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
            if sql == "PRAGMA user_version" and not refused:
                monkeypatch.setattr(sqlite3, "connect", connect)
                monkeypatch.setattr(spool, "LOCK_SECONDS", 0)
                try:
                    SpoolFile(path).put(URL, QUEUE, row("b"), NOW)
                except BackendUnavailable as error:
                    refused.append(error)
                monkeypatch.setattr(spool, "LOCK_SECONDS", 5)
            return super().execute(sql, *parameters)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite3, "connect", lambda *given, **said: connect(*given, **said, factory=Slow))
    SpoolFile(path).put(URL, QUEUE, row("a"), NOW)
    assert ids(SpoolFile(path)) == ["a"]
    assert "was locked" in str(refused)


def test_files_of_others_and_of_newer_versions_are_left_alone(tmp_path: Path, file: SpoolFile, path: Path) -> None:
    other = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(BackendUnavailable, match="other.db is a database of something else; give the spool a file"):
        SpoolFile(other).put(URL, QUEUE, row("a"), NOW)
    file.put(URL, QUEUE, row("a"), NOW)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(BackendUnavailable, match=r"newer version \(format 2, this one knows 1\); upgrade"):
        file.count(URL, QUEUE)


def test_what_is_no_database_or_locked_is_told_with_its_path(
    path: Path, file: SpoolFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.put(URL, QUEUE, row("a"), NOW)
    monkeypatch.setattr(spool, "LOCK_SECONDS", 0)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BackendUnavailable, match=f"{path} was locked for 0 s by another process"):
            file.put(URL, QUEUE, row("b"), NOW)
    path.write_text("no database at all" * 100)
    with pytest.raises(BackendUnavailable, match=f"{path} cannot be used: file is not a database"):
        file.count(URL, QUEUE)


def test_threads_and_processes_share_it(file: SpoolFile, path: Path) -> None:
    code = (
        "import sys; from deadletter.backends.sqlite import SpoolFile; from deadletter.model.row import NewRow\n"
        "file = SpoolFile(sys.argv[1])\n"
        "for at in range(20): file.put('u', 'q', NewRow(id=f'{sys.argv[2]}-{at}', type='t'), 0)"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("x", "y")]

    def some(name: int) -> None:
        for at in range(10):
            file.put("u", "q", row(f"{name}-{at}"), 0)

    threads = [threading.Thread(target=some, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait(60) for child in children] == [0, 0]
    assert file.count("u", "q") == 60


def test_a_forked_child_and_its_parent_both_write(path: Path) -> None:
    """A thread of the parent is at it while it forks: the child waits for nobody, and nothing is lost."""
    code = """
import os, sys, threading, warnings
from deadletter.backends.sqlite import SpoolFile
from deadletter.model.row import NewRow
warnings.simplefilter("ignore")
file = SpoolFile(sys.argv[1])
def some(name, n):
    for at in range(n): file.put("u", "q", NewRow(id=f"{name}-{at}", type="t"), 0)
thread = threading.Thread(target=some, args=("parent", 30))
thread.start()
children = []
for at in range(5):
    pid = os.fork()
    if pid == 0:
        some(f"child{at}", 4)
        os._exit(0)
    children.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in children]
thread.join()
print(codes, file.count("u", "q"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("[0, 0, 0, 0, 0] 50\n", 0), done.stderr
