"""Fault N16: no descriptors, and no room for the server's log: enqueue fails loudly, nothing is half done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from deadletter import BackendUnavailable, BatchFailed, DeadLetterQueue, Task

from ..redis_servers import Server, debian_program, valkey_program
from .conftest import eventually
from .invariants import counts_hold
from .redis_store import RedisStore

PROGRAMS = [
    pytest.param(valkey_program, id="valkey"),
    pytest.param(debian_program, id="debian", marks=pytest.mark.full),
]
LIMITED = """#!/bin/sh
trap '' XFSZ
ulimit -f "$(cat '{limit}')"
exec '{program}' "$@"
"""


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server that flushes its log always, and whose files may not grow beyond what ``limit`` says."""
    limit, program = tmp_path / "limit", tmp_path / "limited"
    limit.write_text("64")
    program.write_text(LIMITED.format(limit=limit, program=request.param()))
    program.chmod(0o700)
    server = Server(str(program), "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.end()


def enqueue_until_refused(store: RedisStore) -> None:
    for n in range(1_000):
        tasks = [Task(type="work", id=f"t{n}-{i}", payload={"fill": "x" * 500}) for i in range(3)]
        store.ledger.note("offered", *(task.id for task in tasks))
        store.ledger.acknowledge(*store.dlq.sync.enqueue_many(tasks))


def test_no_room_for_the_log(server: Server, tmp_path: Path) -> None:
    """The server gives up rather than acknowledge what it cannot write; with more room it is as it said."""
    store = RedisStore(tmp_path, server)
    with pytest.raises(BatchFailed) as failed:
        enqueue_until_refused(store)
    assert isinstance(failed.value.__cause__, BackendUnavailable)
    eventually(lambda: server.process is not None and server.process.poll() is not None)
    (tmp_path / "limit").write_text("unlimited")
    server.start()
    stored = set(store.in_state("pending"))
    assert set(store.ledger.ids("acknowledged")) <= stored <= set(store.ledger.ids("offered"))
    for said in store.ledger.facts("offered"):
        assert len(stored & set(map(str, said))) in (0, len(said))
    assert list(counts_hold(store)) == []
    assert store.dlq.sync.enqueue(Task(type="work", id="after")) == "after"
    store.close()


@pytest.mark.full
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_connection_is_left(program: object, tmp_path: Path) -> None:
    """The server takes no more clients: whoever wants to enqueue is told, and served once there is one."""
    server = Server(program())  # type: ignore[operator]
    store = RedisStore(tmp_path, server)
    with server.client() as admin:
        admin.config_set("maxclients", 2 + len(admin.client_list()))
    others = [server.client(single_connection_client=True) for _ in range(2)]
    try:
        while True:
            others.append(server.client(single_connection_client=True))
    except redis.ConnectionError:
        pass
    late = DeadLetterQueue(store.url)

    def refusal() -> str:
        with pytest.raises(BackendUnavailable) as refused:
            late.sync.enqueue(Task(type="work", id="late"))
        return str(refused.value)

    # The server says why and hangs up; who is still writing by then hears the latter alone.
    eventually(lambda: "max number of clients" in refusal())
    for other in others:
        other.close()
    assert late.sync.enqueue(Task(type="work", id="late")) == "late"
    assert store.in_state("pending") == ["late"]
    assert list(counts_hold(store)) == []
    late.sync.aclose()
    store.close()
    server.end()
