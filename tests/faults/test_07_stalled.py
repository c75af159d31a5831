"""Fault 7: a server, or a worker, that stands still for longer than a lease."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from deadletter import Task

from .conftest import Child, eventually
from .invariants import check
from .redis_store import RedisStore

Start = Callable[..., Child]

SETTINGS = {"lease": 0.4, "max_lease_losses": 10_000, "retry_delays": (0.01, 0.02)}
PAUSE_MS = 1_000


# Not on SQLite: who is stopped within a transaction keeps the file locked for all.
pytestmark = pytest.mark.parametrize("store", ["redis", pytest.param("debian", marks=pytest.mark.full)], indirect=True)


def test_a_server_that_pauses_past_the_leases(store: RedisStore, start: Start) -> None:
    """Duplicates are allowed; tokens, counters and events add up."""
    store.enqueue(*(Task(type="work", id=f"t{i}", payload={"seconds": 0.1, "fails": i % 2}) for i in range(30)))
    workers = [start("worker", concurrency=8, **SETTINGS) for _ in range(2)]
    eventually(lambda: len(store.began()) >= 4)
    store.ask("CLIENT", "PAUSE", PAUSE_MS, "ALL")
    eventually(store.drained)
    assert [worker.drain() for worker in workers] == [0, 0]
    assert len(store.in_state("succeeded")) == 30
    check(store, killed=[worker.name for worker in workers])


def test_a_worker_that_is_stopped_past_its_lease(store: RedisStore, start: Start) -> None:
    """Another does its task meanwhile; going on, it may have its effect a second time, but can change no row."""
    store.enqueue(Task(type="work", id="x", payload={"do": "hang", "times": 1}))
    first = start("worker", **SETTINGS)
    eventually(lambda: store.began("x"))
    os.kill(first.pid, signal.SIGSTOP)
    second = start("worker", **SETTINGS)
    eventually(store.drained)
    before = store.row("x")
    os.kill(first.pid, signal.SIGCONT)
    store.enqueue(Task(type="work", id="y"))
    eventually(store.drained)
    assert [first.drain(), second.drain()] == [0, 0]
    assert store.row("x") == before
    assert (before["state"], before["attempts"], before["lease_losses"]) == ("succeeded", 1, 1)
    assert store.ledger.effects()["y"] == 1
    check(store, killed=[first.name])
