"""Fault N8: a worker that is killed and restarts under its old name within the lease."""

from __future__ import annotations

from collections.abc import Callable

from deadletter import Task

from .conftest import Child, eventually
from .invariants import check
from .store import Store


def test_orphans_are_recovered(store: Store, start: Callable[..., Child]) -> None:
    """The newcomer neither takes its namesake's leases for its own nor keeps them alive."""
    store.enqueue(*(Task(type="work", id=f"t{i}", payload={"do": "hang", "times": 1}) for i in range(4)))
    first = start("worker", name="same", lease=1)
    eventually(lambda: len(store.began()) == 4)
    first.kill()
    tokens = {store.row(f"t{i}")["token"] for i in range(4)}
    assert len(store.in_state("running")) == 4
    second = start("worker", name="same", lease=1)
    store.enqueue(Task(type="work", id="fresh"))
    eventually(lambda: store.row("fresh")["state"] == "succeeded")  # it works while the orphans are still leased
    eventually(store.drained)
    for i in range(4):
        row = store.row(f"t{i}")
        assert (row["state"], row["attempts"], row["lease_losses"]) == ("succeeded", 1, 1)
        assert row["token"] not in tokens
    assert store.row("fresh")["lease_losses"] == 0
    assert [worker.name for worker in store.dlq.sync.stats().workers].count("same") >= 1
    assert second.drain() == 0
    check(store, killed=["same"])
