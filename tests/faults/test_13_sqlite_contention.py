"""Fault 13: many processes on one file, a lock that is held, a disk that is full."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from deadletter import BatchFailed, Task
from deadletter.backends.sqlite import file

from .conftest import Child, eventually
from .invariants import check
from .store import SqliteStore

pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)

Start = Callable[..., Child]


def test_four_processes_share_a_file(store: SqliteStore, start: Start) -> None:
    """Two enqueue while two work, and each task is done once."""
    producers = [start("producer", most=60) for _ in range(2)]
    workers = [start("worker") for _ in range(2)]
    eventually(lambda: all(child.ended() for child in producers))
    eventually(store.drained)
    assert [child.code for child in producers] == [0, 0]
    assert [child.drain() for child in workers] == [0, 0]
    assert len(store.in_state("succeeded")) == 2 * (30 * 5 + 30)
    assert set(store.ledger.effects().values()) == {1}
    check(store)


@pytest.mark.parametrize("held", [1.5, pytest.param(10.0, marks=pytest.mark.full)])
def test_a_held_lock_is_waited_for(store: SqliteStore, start: Start, held: float) -> None:
    """Another program's transaction delays an enqueue and a worker's outcomes, and nothing else."""
    store.enqueue(Task(type="work", id="first", payload={"seconds": 0.2}))
    worker = start("worker", lease=60)
    eventually(lambda: store.began("first"))
    with closing(store.connect()) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("BEGIN IMMEDIATE")
        answer = pool.submit(store.enqueue, Task(type="work", id="second"))
        until = time.monotonic() + held
        eventually(lambda: time.monotonic() > until, within=held + 1)
        assert not answer.done()
        connection.execute("COMMIT")
        answer.result(10)
    eventually(store.drained)
    assert worker.drain() == 0
    assert store.ledger.effects() == {"first": 1, "second": 1}
    check(store)


def test_a_lock_that_is_never_let_go_fails_whole(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "LOCK_SECONDS", 0.2)
    store.backend._writer.connection.execute("PRAGMA busy_timeout = 100")
    with closing(store.connect()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(BatchFailed, match=r"queue\.db was locked for 0\.2 s by another process"):
            store.dlq.sync.enqueue_many([Task(type="work", id=f"no{i}") for i in range(3)])
        assert store.dlq.sync.stats().by_state["pending"] == 0  # who only reads is not in the way
        connection.execute("ROLLBACK")
    assert store.rows() == []
    store.ledger.note("offered", "yes")
    assert store.dlq.sync.enqueue(Task(type="work", id="yes")) == "yes"
    assert store.dlq.sync.cancel("yes")
    check(store)


def test_a_full_disk_refuses_whole(store: SqliteStore, start: Start) -> None:
    """No byte fits any more in the middle of a producer's work: what was refused is not there, the rest is intact."""
    child = start("producer", size=20_000, file_limit=3_000_000)
    eventually(child.ended)
    assert child.code == 0
    [refused] = store.ledger.facts("refused")
    *ids, is_unavailable, told = refused
    assert is_unavailable, told
    stored = {id_ for id_, _ in store.rows()}
    assert not stored & set(map(str, ids)), told
    assert stored == set(store.ledger.ids("acknowledged"))
    assert len(stored) > 10
    start("worker")
    eventually(store.drained)
    check(store)


def test_a_store_at_its_page_limit_refuses_whole_and_recovers(store: SqliteStore) -> None:
    """SQLite's own "database or disk is full", on the connection that writes; room again, and it goes on."""
    store.enqueue(Task(type="work", id="before"))
    writer = store.backend._writer.connection
    pages = store.ask("PRAGMA page_count")[0][0]
    writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    many = [Task(type="work", id=f"big{i}", payload={"fill": "x" * 5_000}) for i in range(50)]
    with pytest.raises(BatchFailed, match=r"queue\.db has no room: the disk is full"):
        store.dlq.sync.enqueue_many(many)
    assert store.rows() == [("before", "pending")]
    assert store.dlq.sync.cancel("before")
    writer.execute("PRAGMA max_page_count = 1000000")
    store.enqueue(*many)
    assert len(store.in_state("pending")) == 50
    for task in many:
        assert store.dlq.sync.process_task(task.id, lambda task: store.ledger.effect(task.id, None))
    check(store)
