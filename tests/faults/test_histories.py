"""The logs of real runs are judged: what nobody can explain is told, and a proxy knows what never reached the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deadletter import BackendUnavailable, Task
from deadletter.backends.redis import RedisBackend
from deadletter.engine.sync import wait_for
from deadletter.model.row import NewRow, Row
from deadletter.rules import changes

from ..redis_servers import valkey
from .calls import CallLog, history_of, log_backend
from .conftest import Child, eventually
from .proxy import Fault, Proxy
from .redis_store import RedisStore
from .store import SqliteStore, Store

CANCEL = changes.cancel(Row("x", "t", 1, "pending"), "a-name-of-its-own", 1_000)


def worked(store: Store, start: Callable[..., Child]) -> None:
    """Ten tasks, each done by a process of its own."""
    store.enqueue(*(Task(type="work", id=f"t{n}", payload={"fails": n % 2}) for n in range(10)))
    worker = start("worker", retry_delays=(0.01,))
    eventually(store.drained)
    assert worker.drain() == 0


def test_what_was_changed_by_hand_cannot_be_explained(store: Store, start: Callable[..., Child]) -> None:
    """Neither an answer in the log, nor a row in the store."""
    worked(store, start)
    assert store.unexplained() == []
    log = CallLog(store.folder)
    truth = log.path.read_text()
    log.path.write_text(truth.replace('"done"', '"stale"', 1))
    assert store.unexplained() != []
    log.path.write_text(truth)
    if isinstance(store, SqliteStore):
        store.ask("UPDATE dl_rows SET attempts = attempts + 1 WHERE id = 't3'")
    elif isinstance(store, RedisStore):
        store.ask("SET", f"{store.prefix}t:t3", store.ask("GET", f"{store.prefix}t:t4"))
    [found] = store.unexplained()
    assert "t3" in found


@pytest.mark.parametrize(
    ("fault", "runs"),
    [("drop_reply", 5), *(pytest.param(fault, 0, marks=pytest.mark.full) for fault in ("reset_before", "reset_mid"))],
)
def test_a_proxy_tells_which_requests_may_have_run(tmp_path: Path, fault: Fault, runs: int) -> None:
    server = valkey()
    database = server.emptied().rpartition("=")[2]
    proxy = Proxy(server.socket)
    proxy.log = CallLog(tmp_path)
    backend = RedisBackend(f"{proxy.url}/{database}?socket_timeout=0.3")
    log_backend(backend, tmp_path, "test")
    try:
        wait_for(lambda: backend.insert("default", [NewRow(id="x", type="t")]))
        proxy.faults(fault, 100)
        with pytest.raises(BackendUnavailable):
            wait_for(lambda: backend.apply("default", [CANCEL]))
        calls = [call.name for call in history_of(CallLog(tmp_path)).calls]
    finally:
        wait_for(backend.aclose)
        proxy.close()
    assert calls == ["insert", *["apply"] * runs]
