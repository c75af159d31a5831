"""Fault 17: a task that takes its worker down each time, among long innocents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from deadletter import Task
from deadletter.engine.sync import wait_for
from deadletter.model.row import Claim

from .conftest import SLOW_ON_REDIS, Child, eventually
from .invariants import check
from .store import Store

Start = Callable[..., Child]


@SLOW_ON_REDIS
def test_only_the_pill_dies(store: Store, start: Start) -> None:
    """Default settings but a short lease. 31 run beside it, 8 more wait: they are never claimed while it runs."""
    store.enqueue(
        Task(type="work", id="pill", payload={"do": "die"}),
        *(Task(type="work", id=f"t{i}", payload={"seconds": 0.2}) for i in range(31)),
        *(Task(type="work", id=f"waits{i}", priority="low") for i in range(8)),
    )
    workers: list[Child] = [start("worker", lease=0.5)]

    def ended() -> bool:
        if workers[-1].ended():
            workers.append(start("worker", lease=0.5))
        return store.drained()

    eventually(ended, within=40)
    workers[-1].drain()
    killed = [child.name for child in workers if child.code != 0]
    pill = store.row("pill")
    assert (pill["state"], pill["reason"], pill["attempts"]) == ("dead", "worker_lost", 0)
    assert pill["lease_losses"] == 3 == len(killed)
    assert Counter(store.ledger.ids("began"))["pill"] == 3
    for id_, state, attempts, losses in store.rows("id, state, attempts, lease_losses"):
        if id_ != "pill":
            assert (state, attempts) == ("succeeded", 1), id_
            assert losses <= (2 if id_.startswith("t") else 0), id_
    letters = store.dlq.sync.list().items
    assert [letter.id for letter in letters] == ["pill"]
    assert letters[0].failure is not None
    assert "while it ran alone" in letters[0].failure.message
    check(store, killed=killed)


def test_what_was_only_claimed_loses_nothing(store: Store) -> None:
    """Of a claim that started two, the worker vanishes: they count a loss, what was held does not."""
    ids = [f"t{i}" for i in range(6)]
    store.enqueue(*(Task(type="work", id=id_) for id_ in ids))
    claim = Claim(op="op", limit=6, types=["work"], lease_ms=50, owner="gone", start=2)

    async def take() -> list[str]:
        return [row.id for row in (await store.backend.claim("default", claim)).rows]

    taken = wait_for(take)
    assert sorted(taken) == ids
    eventually(lambda: store.sweep() == 0 and not store.in_state("running"))
    losses = dict(store.rows("id, lease_losses"))
    assert [losses[id_] for id_ in taken] == [1, 1, 0, 0, 0, 0]
    for id_ in ids:
        assert store.dlq.sync.process_task(id_, lambda task: store.ledger.effect(task.id, None))
    check(store, killed=["gone"])


def test_only_a_loss_while_alone_is_deadly(store: Store) -> None:
    """Four callers that ran it beside others vanish: it stays pending. One that ran it alone vanishes: it is dead."""
    store.enqueue(Task(type="work", id="x"))

    def vanish(*, alone: bool) -> dict[str, Any]:
        async def take() -> None:
            claim = Claim(op=f"op{losses}{alone}", ids=["x"], lease_ms=50, owner="gone", alone=alone)
            await store.backend.claim("default", claim)

        wait_for(take)
        eventually(store.sweep)
        return store.row("x")

    for losses in range(1, 5):
        row = vanish(alone=False)
        assert (row["state"], row["lease_losses"]) == ("pending", losses)
    row = vanish(alone=True)
    assert (row["state"], row["lease_losses"], row["reason"]) == ("dead", 5, "worker_lost")
    check(store, killed=["gone"])


def test_a_pill_that_gets_better_lives(store: Store, start: Start) -> None:
    """It hangs under two workers that are killed, then runs alone and succeeds: what is suspect is not yet dead."""
    store.enqueue(Task(type="work", id="late", payload={"do": "hang", "times": 2}))
    killed = []
    for times in (1, 2):
        child = start("worker", lease=0.5)
        eventually(lambda: len(store.began("late")) == times)  # noqa: B023 - called at once
        child.kill()
        killed.append(child.name)
    start("worker", lease=0.5)
    eventually(store.drained)
    row = store.row("late")
    assert (row["state"], row["attempts"], row["lease_losses"]) == ("succeeded", 1, 2)
    check(store, killed=killed)
