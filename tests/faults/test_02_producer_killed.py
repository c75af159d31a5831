"""Fault 2: kill -9 a producer, again and again."""

from __future__ import annotations

import random
from collections.abc import Callable

from .conftest import Child, eventually
from .invariants import check
from .store import Store


def test_nothing_acknowledged_is_lost(store: Store, start: Callable[..., Child]) -> None:
    chance = random.Random(2)
    for _ in range(15):
        before = len(store.ledger.facts("acknowledged"))
        child, more = start("producer"), chance.randint(1, 12)
        eventually(lambda: len(store.ledger.facts("acknowledged")) >= before + more)  # noqa: B023 - called at once
        child.kill()
    stored = {id_ for id_, _ in store.rows()}
    assert set(store.ledger.ids("acknowledged")) <= stored <= set(store.ledger.ids("offered"))
    for said in store.ledger.facts("offered"):  # a batch is whole or not there at all
        assert len(stored & set(map(str, said))) in (0, len(said))
    start("worker")
    eventually(store.drained)
    check(store)
