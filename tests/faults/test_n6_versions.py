"""Fault N6: an older and a newer version on one queue: what the newer one wrote is left alone, whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deadletter import Task
from deadletter.backends.redis.keys import BETWEEN, BODY, RECORD

from .conftest import Child, eventually
from .redis_store import RedisStore

pytestmark = pytest.mark.parametrize("store", ["redis", pytest.param("debian", marks=pytest.mark.full)], indirect=True)

APPENDED = f"{BETWEEN}a field that only the newer version knows".encode()


def renew(store: RedisStore, id_: str) -> bytes:
    """Have a record as the next format writes it; answers it."""
    key = f"{store.prefix}t:{id_}"
    fields, _, body = store.ask("GET", key).partition(BODY)
    _, _, rest = fields.partition(BETWEEN.encode())
    store.ask("SET", key, f"{RECORD + 1}{BETWEEN}".encode() + rest + APPENDED + BODY + body)
    return store.ask("GET", key)  # type: ignore[no-any-return]


def restore(store: RedisStore, id_: str) -> None:
    """The newer version hands it back in the older format."""
    key = f"{store.prefix}t:{id_}"
    record = store.ask("GET", key).replace(APPENDED, b"")
    _, _, rest = record.partition(BETWEEN.encode())
    store.ask("SET", key, f"{RECORD}{BETWEEN}".encode() + rest)


def test_what_waits_is_left_to_the_newer(store: RedisStore, start: Callable[..., Child]) -> None:
    """The older works on its own beside it, in order, and waits without asking on and on."""
    store.enqueue(*(Task(type="work", id=f"t{i}") for i in range(6)))
    newer = {id_: renew(store, id_) for id_ in ("t0", "t3")}
    worker = start("worker", lease=5)
    eventually(lambda: sorted(store.in_state("succeeded")) == ["t1", "t2", "t4", "t5"])
    for id_, record in newer.items():
        assert not store.dlq.sync.cancel(id_)
        assert store.ask("GET", f"{store.prefix}t:{id_}") == record
    assert store.began("t0", "t3") == []
    for id_ in newer:
        restore(store, id_)
    store.enqueue(Task(type="work", id="last"))
    eventually(store.drained)
    assert worker.drain() == 0
    assert store.ledger.effects() == dict.fromkeys(("t0", "t1", "t2", "t3", "t4", "t5", "last"), 1)


def test_what_runs_is_left_to_the_newer(store: RedisStore) -> None:
    """Its lease lapsed: the older's sweep changes nothing of it."""
    from deadletter.engine.sync import wait_for
    from deadletter.model.row import Claim

    store.enqueue(Task(type="work", id="x"))
    wait_for(lambda: store.backend.claim("default", Claim(op="c", types=["work"], lease_ms=1, owner="newer")))
    record = renew(store, "x")
    for _ in range(3):
        store.sweep()
    assert store.ask("GET", f"{store.prefix}t:x") == record
    restore(store, "x")
    eventually(lambda: store.sweep() and store.row("x")["state"] == "pending")
