"""Fault N15: a process forks after it has connected (gunicorn --preload, multiprocessing): all is made anew."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ..redis_servers import valkey

ROOT = Path(__file__).parents[2]

HEAD = """
import multiprocessing, os, sys, threading, time, warnings
import logging
logging.disable(logging.WARNING)
from pathlib import Path
warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
import anyio
from deadletter import BackendUnavailable, Captured, DeadLetterQueue, Query, Task, dead_lettered
from tests.faults.ledger import Ledger

folder = Path(sys.argv[1])
ledger = Ledger(folder)
url = sys.argv[2]
forking = multiprocessing.get_context("fork")

def join(children):
    for child in children:
        child.join(60)
    return [child.exitcode for child in children]
"""


def run(folder: Path, code: str, url: str) -> str:
    """Run a program that forks; it must end by itself, quietly."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code, str(folder), url],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return valkey().emptied() if request.param == "redis" else f"sqlite:///{tmp_path}/queue.db"


SQLITE_ALONE = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


def whole(url: str) -> None:
    if not url.startswith("sqlite:"):
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_parent_and_children_work_on_one_file_and_nothing_is_doubled(tmp_path: Path, url: str) -> None:
    """Connected by the blocking calls and by a worker, whose threads (writer, reader, keeper, listener) stay behind."""
    told = run(
        tmp_path,
        """
dlq = DeadLetterQueue(url)

@dlq.processor("work")
def work(task):
    assert ledger.effect(task.id, task.id), f"{task.id} ran twice"

def share(name):
    dlq.sync.enqueue_many([Task(type="work", id=f"{name}-{at}") for at in range(30)])
    anyio.run(dlq.worker().run_until_idle)
    for at in range(30):
        assert dlq.sync.get(f"{name}-{at}").state in ("succeeded", "running"), dlq.sync.get(f"{name}-{at}")

share("before")
children = [forking.Process(target=share, args=(f"child{n}",)) for n in range(3)]
for child in children:
    child.start()
share("parent")
print(join(children))
anyio.run(dlq.worker().run_until_idle)
print(sum(ledger.effects().values()), dict(dlq.sync.stats().by_state)["succeeded"])
dlq.sync.aclose()
""",
        url,
    )
    assert told == "[0, 0, 0]\n150 150\n"
    whole(url)


@SQLITE_ALONE
def test_what_a_child_stored_survives_that_its_parent_leaves(tmp_path: Path, url: str) -> None:
    """A parent that closes the last connection that it knows of takes the log away: not from under its child."""
    told = run(
        tmp_path,
        """
dlq = DeadLetterQueue(url)
dlq.sync.enqueue(Task(type="work", id="parent"))
dlq.sync.get("parent")  # the reader is open, too
ready, gone = forking.Event(), forking.Event()

def stay():
    dlq.sync.enqueue(Task(type="work", id="child-0"))
    ready.set()
    assert gone.wait(30)
    for at in range(1, 20):
        dlq.sync.enqueue(Task(type="work", id=f"child-{at}"))
    dlq.sync.get("child-19")

child = forking.Process(target=stay)
child.start()
assert ready.wait(30)
dlq.sync.aclose()

def stranger():
    other = DeadLetterQueue(url)
    other.sync.enqueue(Task(type="work", id="stranger"))
    other.sync.aclose()

strangers = forking.Process(target=stranger)
strangers.start()
strangers.join(30)
gone.set()
child.join(30)
print(child.exitcode, strangers.exitcode)
""",
        url,
    )
    assert told == "0 0\n"
    whole(url)
    with closing(sqlite3.connect(tmp_path / "queue.db")) as connection:
        ids = {id_ for (id_,) in connection.execute("SELECT id FROM dl_rows").fetchall()}
    assert {"parent", "stranger", *(f"child-{at}" for at in range(20))} <= ids


def test_forks_in_the_middle_of_the_parents_writing(tmp_path: Path, url: str) -> None:
    told = run(
        tmp_path,
        """
dlq = DeadLetterQueue(url)
dlq.sync.open()
over = threading.Event()

def write(name):
    at = 0
    while not over.is_set():
        dlq.sync.enqueue(Task(type="work", id=f"{name}-{at}"))
        ledger.acknowledge(f"{name}-{at}")
        at += 1

def some(name):
    for at in range(10):
        dlq.sync.enqueue(Task(type="work", id=f"{name}-{at}"))
        ledger.acknowledge(f"{name}-{at}")

threads = [threading.Thread(target=write, args=(f"thread{n}",)) for n in range(2)]
for thread in threads:
    thread.start()
children = []
for n in range(8):
    children.append(forking.Process(target=some, args=(f"child{n}",)))
    children[-1].start()
codes = join(children)
over.set()
for thread in threads:
    thread.join()
found = {row.id for row in dlq.sync.scan(Query(state="pending"))}
print(codes, set(ledger.ids("acknowledged")) <= found, len([i for i in found if i.startswith("child")]))
""",
        url,
    )
    assert told == f"{[0] * 8} True 80\n"
    whole(url)


@SQLITE_ALONE
def test_a_preloaded_application_captures_in_each_of_its_workers(tmp_path: Path, url: str) -> None:
    """Spool included: parent and children wait for the same store, and what waits is brought once."""
    told = run(
        tmp_path,
        """
from deadletter.backends.sqlite import SQLiteBackend
from deadletter.engine import spooling

spooling.LEASE_MS = 1_000  # a child of multiprocessing leaves by os._exit, whatever it is at

class Line(SQLiteBackend):
    async def insert(self, queue, rows):
        if (folder / "away").exists():
            raise BackendUnavailable("the line is cut")
        return await super().insert(queue, rows)

backend = Line(folder / "queue.db")
dlq = DeadLetterQueue(backend, spool=folder / "captures.spool", retry=[3600])

@dead_lettered(dlq, name="work", on_failure="suppress")
def work(who, at):
    raise ValueError("told to fail")

def serve(name):
    for at in range(10):
        answer = work(name, at)
        assert isinstance(answer, Captured)
        ledger.acknowledge(answer.task_id)

import logging
logging.disable(logging.CRITICAL)
serve("loaded")
(folder / "away").touch()
serve("parent")  # its background run is at it when it forks
children = [forking.Process(target=serve, args=(f"child{n}",)) for n in range(4)]
for child in children:
    child.start()
codes = join(children)
(folder / "away").unlink()
until = time.monotonic() + 30
while dlq.sync.stats().spooled and time.monotonic() < until:
    time.sleep(0.01)
found = [row.id for row in dlq.sync.scan(Query(state="pending"))]
print(codes, sorted(found) == sorted(ledger.ids("acknowledged")), len(found), dlq.sync.stats().spooled)
dlq.sync.aclose()
""",
        url,
    )
    assert told == "[0, 0, 0, 0] True 60 0\n"


def test_a_raw_fork_ends_without_a_crash(tmp_path: Path, url: str) -> None:
    """The child leaves the interpreter in the ordinary way, atexit and all, and so does its parent after it."""
    told = run(
        tmp_path,
        """
dlq = DeadLetterQueue(url, spool=folder / "captures.spool")

with dlq.sync.subscribe() as events:  # its listener and the loop of all blocking calls are at work
    dlq.sync.enqueue(Task(type="work"))
    pid = os.fork()
    if pid == 0:
        dlq.sync.enqueue(Task(type="work"))
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    dlq.sync.enqueue(Task(type="work"))

print(dlq.sync.stats().by_state["pending"])
""",
        url,
    )
    assert told == "3\n"
