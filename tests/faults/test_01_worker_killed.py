"""Fault 1: kill -9 a worker, at each point of an attempt."""

from __future__ import annotations

import itertools
import random
import signal
from collections import Counter
from collections.abc import Callable

import pytest

from deadletter import Task

from .conftest import Child, eventually
from .doom import POINTS, TORN
from .invariants import check
from .store import Store

Start = Callable[..., Child]

DELAYS = (0.01, 0.02)  # so that 2 retries are granted
SETTINGS = {"lease": 0.5, "max_lease_losses": 10_000, "retry_delays": DELAYS}
PATIENT = {**SETTINGS, "lease": 5}  # for who is not killed: a loaded machine may stand still for half a second


def some_tasks(numbers: itertools.count[int], n: int) -> list[Task]:
    """Tasks that fail 0 to 3 times, of every priority; some with a key."""
    return [
        Task(
            type="work",
            id=f"t{number}",
            payload={"fails": number % 4},
            priority=("high", "normal", "low")[number % 3],
            idempotency_key=f"k{number}" if number % 5 == 0 else None,
        )
        for number in itertools.islice(numbers, n)
    ]


def points_of(store: Store) -> tuple[str, ...]:
    return (*POINTS, TORN) if store.over_a_wire else POINTS


def kill_loop(store: Store, start: Start, kills: int) -> None:
    """Two workers at a time, each killed at its own point, until so many died; then two that finish."""
    chance, numbers = random.Random(kills), itertools.count()
    points = points_of(store)
    fates = itertools.cycle(points)
    died: Counter[str] = Counter()
    working: list[tuple[str, Child]] = []
    killed: list[str] = []

    def doomed() -> tuple[str, Child]:
        point = next(fates)
        return point, start("worker", kill_at=point, after=chance.randint(1, 4), concurrency=4, **SETTINGS)

    def one_died() -> bool:
        if len(store.in_state("pending")) < 20:
            store.enqueue(*some_tasks(numbers, 20))
        for at, (point, child) in enumerate(working):
            if child.ended():
                assert child.code == -signal.SIGKILL, f"{child.name} should have died at {point}: {child.code}"
                died[point] += 1
                killed.append(child.name)
                working[at] = doomed()
                return True
        return False

    working += [doomed(), doomed()]
    while sum(died.values()) < kills:
        eventually(one_died)
    for _, child in working:
        child.kill()
        killed.append(child.name)
    finishers = [start("worker", **PATIENT) for _ in range(2)]
    eventually(store.drained, within=20)
    assert [child.drain() for child in finishers] == [0, 0]
    assert min(died[point] for point in points) >= kills // len(points) - 1
    check(store, killed=killed)
    check_outcomes(store)


def check_outcomes(store: Store) -> None:
    """However often its workers died, a task has as many attempts as ended, and the end that they lead to."""
    for id_, state, attempts, reason in store.rows("id, state, attempts, reason"):
        fails = int(id_[1:]) % 4
        if fails > len(DELAYS):
            assert (state, attempts, reason) == ("dead", len(DELAYS) + 1, "retries_exhausted"), id_
        else:
            assert (state, attempts) == ("succeeded", fails + 1), id_
    stats = store.dlq.sync.stats()
    assert stats.by_state == {"pending": 0, "running": 0, **Counter(state for _, state in store.rows())}


def test_killed_in_a_loop(store: Store, start: Start) -> None:
    kill_loop(store, start, 35 if store.over_a_wire else 66)


@pytest.mark.full
def test_killed_in_a_long_loop(store: Store, start: Start) -> None:
    kill_loop(store, start, 240)


def survive(store: Store, start: Start, point: str) -> None:
    """One task, one death; a loss is counted unless the outcome was stored before."""
    stored = ("mid_settle", "after_settle") if store.over_a_wire else ("after_settle",)
    store.enqueue(Task(type="work", id="t0", idempotency_key="k"))
    victim = start("worker", kill_at=point, **SETTINGS)
    eventually(victim.ended)
    assert victim.code == -signal.SIGKILL
    start("worker", **PATIENT)
    eventually(store.drained)
    row = store.row("t0")
    assert (row["state"], row["attempts"], row["lease_losses"]) == ("succeeded", 1, int(point not in stored))
    assert store.ledger.effects() == {"t0": 1}
    check(store, killed=[victim.name])


@pytest.mark.parametrize("point", POINTS)
def test_a_task_survives_each_point(store: Store, start: Start, point: str) -> None:
    survive(store, start, point)


@pytest.mark.parametrize("store", ["redis", pytest.param("debian", marks=pytest.mark.full)], indirect=True)
def test_a_task_survives_half_a_request(store: Store, start: Start) -> None:
    survive(store, start, TORN)
