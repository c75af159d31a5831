"""Fault 3: kill -9 the server under load; with its log flushed always nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..redis_servers import Server, debian_program, valkey_program
from .conftest import Child, eventually
from .invariants import check
from .redis_store import RedisStore

Start = Callable[..., Child]

PROGRAMS = [
    pytest.param(valkey_program, id="valkey"),
    pytest.param(debian_program, id="debian", marks=pytest.mark.full),
]
SETTINGS = {"lease": 1, "max_lease_losses": 10_000, "retry_delays": (0.01, 0.02)}


@pytest.fixture(params=PROGRAMS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisStore]:
    server = Server(request.param(), "--appendonly", "yes", "--appendfsync", "always")
    store = RedisStore(tmp_path, server)
    yield store
    store.close()
    server.end()


def kill_server(store: RedisStore, start: Start, kills: int, *, seed: int = 0) -> None:
    """Two workers and a producer at a time; the server dies when so many more were stored."""
    chance = random.Random(seed)
    workers = [start("worker", **SETTINGS) for _ in range(2)]
    producer = start("producer", patient=True)
    for _ in range(kills):
        many = len(store.ledger.facts("acknowledged")) + chance.randint(3, 25)
        eventually(lambda: len(store.ledger.facts("acknowledged")) >= many)  # noqa: B023 - called at once
        store.server.kill()
        store.server.start()
    (store.folder / "enough").touch()
    eventually(producer.ended)
    assert producer.code == 0
    eventually(store.drained, within=30)
    assert [worker.drain() for worker in workers] == [0, 0]
    assert set(store.ledger.ids("acknowledged")) == set(store.in_state("succeeded"))
    check(store, killed=[worker.name for worker in workers])  # a server that is away keeps no lease


def test_nothing_acknowledged_is_lost(store: RedisStore, start: Start) -> None:
    kill_server(store, start, 5)


@pytest.mark.full
def test_nothing_acknowledged_is_lost_in_many_kills(store: RedisStore, start: Start) -> None:
    kill_server(store, start, 40)
