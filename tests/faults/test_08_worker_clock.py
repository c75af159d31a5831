"""Fault 8: workers whose clocks are an hour off, either way."""

from __future__ import annotations

import time
from collections.abc import Callable

from deadletter import Task

from .conftest import Child, eventually
from .invariants import check
from .store import Store

HOUR = 3600.0


def test_a_wrong_clock_changes_nothing(store: Store, start: Callable[..., Child]) -> None:
    """One is ahead, one behind, and one that was killed leaves its leases to them."""
    began = time.time()
    options = {"lease": 0.5, "retry_delays": (0.05, 0.1)}
    victim = start("worker", skew=HOUR, kill_at="mid_processor", after=3, concurrency=4, **options)
    store.enqueue(*(Task(type="work", id=f"t{i}", payload={"fails": i % 4}, expires_in=60) for i in range(20)))
    later = Task(type="work", id="later", delay=HOUR / 2)
    store.enqueue(later)
    eventually(victim.ended)
    for skew in (HOUR, -HOUR):
        start("worker", skew=skew, concurrency=4, **{**options, "lease": 5})
    eventually(lambda: set(store.in_state("pending", "running")) == {"later"})
    assert store.row("later")["state"] == "pending"  # not due by the store's clock, whatever a worker's says
    for id_, attempts, created_ms, ended_ms in store.rows("id, attempts, created_ms, ended_ms"):
        if id_ != "later":
            assert attempts == min(int(id_[1:]) % 4 + 1, 3)
            assert began * 1000 - 1 <= created_ms <= ended_ms <= time.time() * 1000
    assert all(lost in (0, 1) for (lost,) in store.rows("lease_losses"))
    assert store.dlq.sync.cancel("later")
    check(store, killed=[victim.name])
