"""Fault N1: a processor that blocks its worker's event loop for three leases."""

from __future__ import annotations

from collections.abc import Callable

from deadletter import Task

from .conftest import SLOW_ON_REDIS, Child, eventually
from .invariants import check
from .store import Store


@SLOW_ON_REDIS
def test_no_lease_is_lost(store: Store, start: Callable[..., Child]) -> None:
    """Its thread of its own keeps the leases, that of a neighbour in the same loop too, while others sweep."""
    store.enqueue(
        Task(type="work", id="blocks", payload={"do": "block", "seconds": 3}),
        Task(type="work", id="beside", payload={"seconds": 0.01}),
    )
    worker = start("worker", lease=1)
    eventually(lambda: len(store.began()) == 2)
    start("worker", lease=1)
    eventually(lambda: store.sweep() or store.drained())
    eventually(store.drained)
    assert worker.drain() == 0
    for id_ in ("blocks", "beside"):
        row = store.row(id_)
        assert (row["state"], row["attempts"], row["lease_losses"]) == ("succeeded", 1, 0)
    assert store.ledger.effects() == {"blocks": 1, "beside": 1}
    check(store)
