"""Fault N7: workers that know different types, each sweeping all."""

from __future__ import annotations

from collections.abc import Callable

from deadletter import Task

from .conftest import Child, eventually
from .invariants import check
from .store import Store


def test_none_discards_what_another_knows(store: Store, start: Callable[..., Child]) -> None:
    """The one that knows "b" is killed in mid-attempt; who knows only "a" brings it back and leaves it alone."""
    options = {"lease": 0.5, "retry_delays": (0.01,)}
    store.enqueue(Task(type="b", id="b0", payload={"do": "hang", "times": 1}))
    knows_b = start("worker", types=["b"], **options)
    eventually(lambda: store.began("b0"))
    knows_b.kill()
    options["lease"] = 5  # for who is not killed: a loaded machine may stand still for half a second
    start("worker", types=["a"], **options)
    store.enqueue(
        *(Task(type="a", id=f"a{i}", payload={"fails": i % 2}) for i in range(10)),
        *(Task(type="b", id=f"b{i}", expires_in=60) for i in range(1, 10)),
    )
    eventually(lambda: len(store.in_state("succeeded")) == 10 and not store.in_state("running"))
    assert sorted(store.in_state("pending")) == [f"b{i}" for i in range(10)]
    assert store.row("b0")["lease_losses"] == 1
    assert store.began(*(f"b{i}" for i in range(1, 10))) == []
    start("worker", types=["b"], **options)
    eventually(store.drained)
    assert len(store.in_state("succeeded")) == 20
    check(store, killed=[knows_b.name])
