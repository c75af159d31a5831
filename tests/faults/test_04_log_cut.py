"""Fault 4: the server's log ends at any byte of its last transaction; loaded, that is done or not at all."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deadletter import PermanentError, Query, Task

from ..redis_servers import Server, debian_program, valkey_program
from .redis_store import RedisStore


def die(task: Task) -> None:
    raise PermanentError(f"{task.id} cannot be done")


STEPS: dict[str, Callable[[RedisStore], Any]] = {
    "enqueue": lambda store: store.dlq.sync.enqueue(Task(type="work", id="new", idempotency_key="k")),
    "enqueue_many": lambda store: store.dlq.sync.enqueue_many([Task(type="work", id=f"n{i}") for i in range(3)]),
    "die": lambda store: store.dlq.sync.process_task("waits", die),
    "retry": lambda store: store.dlq.sync.retry("letter"),
    "purge": lambda store: store.dlq.sync.purge(Query(ids=["letter"])),
}


@pytest.fixture(
    params=[
        pytest.param(valkey_program, id="valkey"),
        pytest.param(debian_program, id="debian", marks=pytest.mark.full),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisStore]:
    options = ("--appendonly", "yes", "--appendfsync", "always", "--aof-load-truncated", "yes")
    server = Server(request.param(), *options)
    store = RedisStore(tmp_path, server)
    store.enqueue(Task(type="work", id="waits", idempotency_key="w"))
    store.dlq.sync.capture(Task(type="work", id="letter", idempotency_key="l"), ValueError("no"))
    yield store
    store.close()
    server.end()


def state(store: RedisStore) -> dict[str, Any]:
    """All that is stored, in an order of its own."""
    found = store.snapshot().values
    return {
        f"{kind} {name}": sorted(map(repr, value)) if kind in ("hash", "zset") else value
        for kind, named in found.items()
        for name, value in named.items()
    }


def cut_everywhere(store: RedisStore, step: str, cuts: Callable[[int, int], list[int]]) -> None:
    """Cut the log of the step's last transaction at those bytes, and load each."""
    [log] = (store.server.folder / "appendonlydir").glob("*.incr.aof")
    known, ends = [state(store)], [log.stat().st_size]
    apply = store.backend.apply

    async def watched(*given: Any) -> Any:  # a step of two transactions is cut in its second
        known.append(state(store))
        ends.append(log.stat().st_size)
        return await apply(*given)

    store.backend.apply = watched  # type: ignore[method-assign]
    STEPS[step](store)
    before, after = known[-1], state(store)
    begins, whole = ends[-1], log.read_bytes()
    assert before != after
    kept = store.server.folder / "kept"
    store.server.kill()
    shutil.copytree(log.parent, kept)
    for at in cuts(begins, len(whole)):
        shutil.rmtree(log.parent)
        shutil.copytree(kept, log.parent)
        log.write_bytes(whole[:at])
        store.server.start()
        found = state(store)
        assert found == (after if at == len(whole) else before), f"{step} cut at {at} of {begins} to {len(whole)}"
        assert list(store.differences()) == []
        store.server.kill()
    store.server.start()


@pytest.mark.parametrize("step", STEPS)
def test_done_or_not_at_all(store: RedisStore, step: str) -> None:
    """Cut at both ends of it, just beside them, and at some bytes in between."""
    chance = random.Random(step)
    cut_everywhere(store, step, lambda a, b: [a, a + 1, b - 1, b, *chance.sample(range(a + 2, b - 1), 3)])


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", [valkey_program], indirect=True, ids=["valkey"])
@pytest.mark.parametrize(("step", "stride"), [("enqueue", 1), ("die", 5)])
def test_done_or_not_at_all_at_each_byte(store: RedisStore, step: str, stride: int) -> None:
    cut_everywhere(store, step, lambda a, b: list(range(b, a - 1, -stride)))
