"""Pauses between processes: there within a second, and still there after a kill."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from deadletter import Task
from deadletter.engine.sync import wait_for

from .conftest import SLOW_ON_REDIS, Child, eventually
from .store import Store

pytestmark = SLOW_ON_REDIS

Start = Callable[..., Child]

WITHIN = 1.0  # seconds, as promised
SLOWER = 0.5  # a loaded machine may be late by so much more

numbers = itertools.count()


def put(store: Store, type_: str) -> str:
    """Enqueue one; answers its id."""
    task = Task(type=type_, id=f"{type_}-{next(numbers)}")
    store.enqueue(task)
    return task.id


def ran(store: Store, task_id: str) -> bool:
    """Whether a processor took it; fails where it takes longer than a worker that may."""
    return bool(eventually(lambda: store.began(task_id), within=5))


def reached(store: Store, *types: str) -> float:
    """How many seconds until tasks of these types are no longer taken, while others are."""
    began = time.monotonic()

    def held() -> bool:
        # The witness is put in last and has to run: so the worker had its chance with each of the others.
        ids = [put(store, type_) for type_ in types]
        ran(store, put(store, "witness"))
        return not store.began(*ids)

    eventually(held, within=5)
    return time.monotonic() - began


def test_it_reaches_another_process_within_a_second_and_so_does_its_end(store: Store, start: Start) -> None:
    start("worker", types=["mail", "mail.slow", "witness"])
    for glob in ("mail*", "mail"):
        assert ran(store, put(store, "mail"))
        store.dlq.sync.pause(glob, why="the mail server is down")
        assert reached(store, "mail") <= WITHIN + SLOWER
        held = put(store, "mail")
        began = time.monotonic()
        assert store.dlq.sync.resume(glob)
        assert ran(store, held)
        assert time.monotonic() - began <= WITHIN + SLOWER


def test_it_holds_for_who_starts_later_and_survives_kills(store: Store, start: Start) -> None:
    """Who paused is gone, the worker is killed in mid-attempt and started anew: what is paused stays so."""
    options = {"types": ["mail", "witness"], "lease": 0.5, "retry_delays": (0.01,)}
    store.enqueue(Task(type="mail", id="first", payload={"do": "hang", "times": 1}))
    first = start("worker", **options)
    eventually(lambda: store.began("first"))
    store.dlq.sync.pause("mail", why="the mail server is down")
    reached(store, "mail")
    assert store.row("first")["state"] == "running", "what runs goes on"
    first.kill()
    start("worker", **options)
    eventually(lambda: store.row("first")["state"] == "pending")
    assert reached(store, "mail") <= 5
    assert len(store.began("first")) == 1
    assert store.dlq.sync.resume()
    eventually(store.drained)
    assert len(store.began("first")) == 2


def test_processes_that_pause_at_once_make_one(store: Store, start: Start) -> None:
    """Five processes pause and resume a glob without end and are killed: each time there is one pause or none."""
    children = [start("pauser", glob="mail.*") for _ in range(5)]
    seen = set()

    def both_seen() -> bool:
        found = [pause.types for pause in store.dlq.sync.paused()]
        assert found in ([], ["mail.*"])
        seen.add(len(found))
        return len(seen) == 2

    eventually(both_seen)
    for child in children:
        assert not child.ended()
        child.kill()
    for _ in range(3):
        assert store.dlq.sync.pause("mail.*", why="me").types == "mail.*"
        assert len(store.dlq.sync.paused()) == 1
        assert len(store.dlq.sync.resume()) == 1
        assert store.dlq.sync.paused() == []
    rows = wait_for(lambda: store.backend.counts("\x1fpauses\x1fdefault")).tally
    assert not any(rows.values()), "nothing of them is left"
