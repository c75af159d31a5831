"""Fault 9: somebody flushes the server's scripts, again and again, under load."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Child, eventually
from .invariants import check
from .redis_store import RedisStore


@pytest.mark.parametrize("store", ["redis", pytest.param("debian", marks=pytest.mark.full)], indirect=True)
def test_nobody_notices(store: RedisStore, start: Callable[..., Child]) -> None:
    worker = start("worker", lease=5)
    producer = start("producer", most=60)

    def flushed() -> bool:
        store.ask("SCRIPT", "FLUSH")
        return producer.ended()

    eventually(flushed)
    assert producer.code == 0
    assert store.ledger.facts("refused") == []
    eventually(lambda: store.ask("SCRIPT", "FLUSH") and store.drained())
    assert worker.drain() == 0
    assert len(store.in_state("succeeded")) == 30 * 5 + 30
    assert set(store.ledger.effects().values()) == {1}
    check(store)
