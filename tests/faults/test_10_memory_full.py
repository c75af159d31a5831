"""Fault 10: the server reaches its maxmemory: who enqueues is told, all that ends tasks goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deadletter import BackendError, Task

from ..redis_servers import Server, debian_program, valkey_program
from .conftest import Child, eventually
from .invariants import check
from .redis_store import RedisStore

PROGRAMS = [
    pytest.param(valkey_program, id="valkey"),
    pytest.param(debian_program, id="debian", marks=pytest.mark.full),
]


@pytest.fixture(params=PROGRAMS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisStore]:
    server = Server(request.param())
    store = RedisStore(tmp_path, server)
    yield store
    store.close()
    server.end()


def enqueue_until_refused(store: RedisStore) -> None:
    for n in range(1_000):
        enqueue(store, Task(type="work", id=f"t{n}", payload={"fill": "x" * 1_000}))


def enqueue(store: RedisStore, task: Task) -> None:
    store.ledger.note("offered", task.id)
    store.ledger.acknowledge(store.dlq.sync.enqueue(task))


def test_who_enqueues_is_told_and_the_rest_goes_on(store: RedisStore, start: Callable[..., Child]) -> None:
    for n in range(20):
        enqueue(store, Task(type="work", id=f"letter{n}"))
        assert not store.dlq.sync.process_task(f"letter{n}", lambda task: False)
    letters = len(store.in_state("dead"))
    used = int(store.ask("INFO", "memory")["used_memory"])
    store.ask("CONFIG", "SET", "maxmemory", used + 300_000)
    with pytest.raises(BackendError, match="no memory left: nothing was stored"):
        enqueue_until_refused(store)
    stored = {id_ for id_, _ in store.rows() if id_.startswith("t")}
    assert stored == {id_ for id_ in store.ledger.ids("acknowledged") if id_.startswith("t")}
    store.ask("CONFIG", "SET", "maxmemory", 1)  # for good: nothing that workers free lets anybody in
    assert store.dlq.sync.purge(everything=True).changed == letters == 20
    worker = start("worker", lease=5)
    eventually(lambda: len(store.in_state("succeeded")) == len(stored))
    assert worker.drain() == 0
    with pytest.raises(BackendError, match="no memory left"):
        enqueue(store, Task(type="work", id="refused"))
    store.ask("CONFIG", "SET", "maxmemory", 0)
    enqueue(store, Task(type="work", id="refused"))
    assert store.dlq.sync.process_task("refused", lambda task: store.ledger.effect(task.id, None))
    check(store)
