"""Fault 6: a proxy loses replies after execution, resets before and in mid-request, swallows, and holds up."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deadletter import BackendUnavailable
from deadletter.engine.sync import wait_for
from deadletter.model.record import Reason
from deadletter.model.row import Claim, Claimed, FailureRow, Inserted, Insertion, NewRow, Row, Verdict
from deadletter.rules import changes

from ..redis_servers import valkey
from .calls import CallLog
from .conftest import Child, eventually
from .invariants import check, counts_hold
from .proxy import Fault, Proxy
from .redis_store import RedisStore

QUEUE = "default"


class Behind(RedisStore):
    """A store that is reached through a proxy, but looked at past it."""

    def __init__(self, folder: Path) -> None:
        server = valkey()
        self.proxy = Proxy(server.socket)
        database = server.emptied().rpartition("=")[2]
        self.proxy.log = CallLog(folder)
        super().__init__(folder, server, url=f"{self.proxy.url}/{database}?socket_timeout=0.3", database=database)

    def close(self) -> None:
        super().close()
        self.proxy.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Behind]:
    store = Behind(tmp_path)
    yield store
    store.close()


def insisted(call: Callable[[], Awaitable[Any]]) -> Any:
    """The answer to a call that is made again, just as it was, until there is one."""
    for _ in range(4):
        try:
            return wait_for(call)
        except BackendUnavailable:
            continue
    raise AssertionError("no answer to four calls")


def claimed(store: Behind) -> Row:
    claim = Claim(op="c", types=["t"], lease_ms=60_000, owner="w")
    answer: Claimed = insisted(lambda: store.backend.claim(QUEUE, claim))
    [row] = answer.rows
    return row


def put(store: Behind) -> Inserted:
    answer: list[Insertion] = insisted(
        lambda: store.backend.insert(QUEUE, [NewRow(id="x", type="t", key="k", body=b"{}", count=COUNT)])
    )
    return answer[0].verdict


COUNT = (("enqueued", "t", ""),)
FAILURE = FailureRow(attempt=1, error_type="E", message="no", fingerprint="f", traceback="Traceback")
CHANGES: dict[str, Callable[[Row], Any]] = {
    "succeed": lambda row: changes.succeed(row, "op", 1_000_000),
    "die": lambda row: changes.die(row, "op", Reason.PERMANENT, FAILURE, None),
    "try_again": lambda row: changes.try_again(row, "op", FAILURE, 60_000),
    "release": lambda row: changes.release(row, "op"),
}
BROKEN: list[Any] = [("drop_reply", 1), ("drop_reply", 6), ("reset_before", 2), ("reset_mid", 2)]
BROKEN += [
    pytest.param(("drop_reply", n), marks=pytest.mark.full, id=f"drop_reply-{n}") for n in (2, 3, 4, 5, *range(7, 12))
]


@pytest.fixture(params=BROKEN, ids=lambda broken: f"{broken[0]}-{broken[1]}")
def broken(request: pytest.FixtureRequest) -> tuple[Fault, int]:
    return request.param  # type: ignore[no-any-return]


def transitions(store: Behind) -> list[str]:
    return [step["became"] for step in store.audit()["x"]]


def test_an_insert_stores_once(store: Behind, broken: tuple[Fault, int]) -> None:
    store.proxy.faults(*broken)
    assert put(store) in (Inserted.STORED, Inserted.EXISTS)
    assert transitions(store) == ["pending"]
    assert store.counters()["enqueued"] == 1
    assert list(counts_hold(store)) == []


def test_a_claim_gives_one_lease(store: Behind, broken: tuple[Fault, int]) -> None:
    put(store)
    store.proxy.faults(*broken)
    assert claimed(store).token == store.row("x")["token"]
    assert transitions(store) == ["pending", "running"]
    assert list(counts_hold(store)) == []


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_made_once(store: Behind, broken: tuple[Fault, int], name: str) -> None:
    put(store)
    change = CHANGES[name](claimed(store))
    store.proxy.faults(*broken)
    [verdict] = insisted(lambda: store.backend.apply(QUEUE, [change]))
    assert verdict in (Verdict.DONE, Verdict.REPEATED)
    assert len(transitions(store)) == 3
    assert store.events().get("dead", 0) == store.counters().get("dead", 0) == int(name == "die")
    assert list(counts_hold(store)) == []


def test_silence_ends_in_an_error_and_then_all_goes_on(store: Behind) -> None:
    """A line that swallows everything: the error comes in bounded time, and no connection is left behind."""
    put(store)
    before = store.proxy.open
    store.proxy.plan = lambda: "black_hole"
    began = time.monotonic()
    with pytest.raises(BackendUnavailable):
        wait_for(lambda: store.backend.claim(QUEUE, Claim(op="c", types=["t"], lease_ms=60_000, owner="w")))
    assert time.monotonic() - began < 15
    store.proxy.heal()
    assert claimed(store).id == "x"
    eventually(lambda: store.proxy.open <= before + 1)


def run_on_a_bad_line(store: Behind, start: Callable[..., Child], faults: int, most_delay: float) -> None:
    """Delays, and a fifth of all scripts reset, one way or another; then it heals, and all is done (I8)."""
    options = {"lease": 2, "retry_delays": (0.01, 0.02), "max_lease_losses": 10_000}
    workers = [start("worker", concurrency=8, **options) for _ in range(2)]
    producer = start("producer", patient=True)
    # All have connected: whoever cannot connect at its start fails, as it should.
    names = {worker.name for worker in workers}
    eventually(lambda: names <= {worker.name for worker in store.dlq.sync.stats().workers})
    eventually(lambda: store.ledger.facts("acknowledged"))
    chance = random.Random(6)
    kinds: list[Fault] = ["drop_reply", "reset_before", "reset_mid"]
    store.proxy.delay = lambda: chance.random() * most_delay if chance.random() < 0.3 else 0.0
    store.proxy.plan = lambda: chance.choice(kinds) if chance.random() < 0.2 else "none"
    eventually(lambda: store.proxy.met >= faults, within=100)
    store.proxy.plan, store.proxy.delay = (lambda: "none"), (lambda: 0.0)
    (store.folder / "enough").touch()
    eventually(producer.ended, within=20)
    assert producer.code == 0
    eventually(store.drained, within=30)
    assert [worker.drain() for worker in workers] == [0, 0]
    assert set(store.ledger.ids("acknowledged")) == set(store.in_state("succeeded")) != set()
    eventually(lambda: store.proxy.open <= 4)  # ours: none of the dead is left
    check(store, killed=[worker.name for worker in workers])


def test_work_goes_on_over_a_bad_line(store: Behind, start: Callable[..., Child]) -> None:
    run_on_a_bad_line(store, start, 40, 0.1)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_work_goes_on_over_a_bad_line_for_longer(store: Behind, start: Callable[..., Child]) -> None:
    run_on_a_bad_line(store, start, 60, 2.0)
