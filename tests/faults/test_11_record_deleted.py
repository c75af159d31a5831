"""Fault 11: somebody deletes a record behind our back: what points to it is taken away and told; the others go on."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from deadletter import Task

from .conftest import Child, eventually
from .redis_store import RedisStore

pytestmark = pytest.mark.parametrize("store", ["redis", pytest.param("debian", marks=pytest.mark.full)], indirect=True)


LONG = {"text": "x" * 2_000}  # kept beside the record


def places(store: RedisStore, id_: str) -> list[str]:
    """The indexes that hold an id."""
    sets = store.snapshot().values["zset"]
    return sorted(name for name, flat in sets.items() if id_.encode() in flat[::2])


def test_of_one_that_waited(store: RedisStore, start: Callable[..., Child]) -> None:
    store.enqueue(*(Task(type="work", id=f"t{i}", expires_in=60, payload=LONG) for i in range(5)))
    store.ask("DEL", f"{store.prefix}t:t2")
    start("worker", lease=5)
    eventually(lambda: sorted(store.in_state("succeeded")) == ["t0", "t1", "t3", "t4"])
    assert store.counters()["orphans"] == store.events()["lost"] == 1
    assert places(store, "t2") == []
    assert list(store.differences()) == []
    assert store.began("t2") == []


def test_of_one_that_ran(store: RedisStore, start: Callable[..., Child]) -> None:
    """Its outcome finds no record, which its worker survives; its lease, once over, is taken away."""
    store.enqueue(Task(type="work", id="x", payload={"do": "hang", "times": 1, **LONG}))
    worker = start("worker", lease=0.4)
    eventually(lambda: store.began("x"))
    store.ask("DEL", f"{store.prefix}t:x")
    store.enqueue(Task(type="work", id="y"))
    eventually(lambda: store.in_state("succeeded") == ["y"])
    eventually(lambda: store.counters().get("orphans") == 1)
    assert store.events()["lost"] == 1
    assert places(store, "x") == []
    assert list(store.differences()) == []
    assert not worker.ended()


def test_of_dead_letters(store: RedisStore) -> None:
    """A sweep meets them, counts them out and tells them; no index and no count holds on to them."""
    errors = [ValueError("a"), ValueError("b"), KeyError("c")]
    for n, error in enumerate(errors * 2):
        store.dlq.sync.capture(Task(type=f"type{n % 2}", id=f"x{n}", payload=LONG), error)
    store.dlq.sync.capture(Task(type="type0", id="unexplained"), errors[0], reason="rejected")
    for id_ in ("x0", "x4", "unexplained"):
        store.ask("DEL", f"{store.prefix}t:{id_}")
    anyio.run(store.dlq.sweep)
    assert store.counters()["orphans"] == store.events()["lost"] == 3
    assert [places(store, id_) for id_ in ("x0", "x4", "unexplained")] == [[], [], []]
    assert list(store.differences()) == []
    assert store.dlq.sync.stats().by_state["dead"] == 4


def test_of_one_of_many_letters(store: RedisStore) -> None:
    """A sweep looks at some of them, from another place each time: in the end it meets the one."""
    for n in range(150):
        store.dlq.sync.capture(Task(type="work", id=f"x{n}"), ValueError("no"))
    store.ask("DEL", f"{store.prefix}t:x0")
    eventually(lambda: anyio.run(store.dlq.sweep) or store.counters().get("orphans") == 1)
    assert places(store, "x0") == []
    assert list(store.differences()) == []
