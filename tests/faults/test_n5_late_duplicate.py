"""Fault N5: each request arrives a second time, ten minutes late."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import attrs
import pytest

from deadletter import DeadLetterQueue, Task
from deadletter.interfaces import Backend
from deadletter.model.record import Reason
from deadletter.model.row import Change, Claim, FailureRow, NewRow, Row, Verdict
from deadletter.rules import changes
from deadletter.testing import VirtualClock

from .conftest import recount

pytestmark = pytest.mark.anyio

QUEUE = "default"
LATE = 600
KEEP_MS = 3_600_000


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def backend(make_backend: Callable[..., Backend], clock: VirtualClock) -> AsyncIterator[Backend]:
    backend = make_backend(clock)
    yield backend
    await backend.aclose()


async def claimed(backend: Backend, op: str) -> Row:
    [row] = (await backend.claim(QUEUE, Claim(op=op, types=["t"], lease_ms=LATE * 2_000, owner="w"))).rows
    return row


async def fate(backend: Backend) -> dict[str, object]:
    """What would tell that something happened twice."""
    [row] = await recount(backend)
    lifetime = (await backend.counts(QUEUE)).lifetime
    return {**attrs.asdict(row, recurse=False), "lifetime": dict(lifetime)}


def failure() -> FailureRow:
    return FailureRow(attempt=1, error_type="E", message="no", fingerprint="f")


OUTCOMES: dict[str, Callable[[Row], Change]] = {
    "succeed": lambda row: changes.succeed(row, "late", KEEP_MS),
    "try_again": lambda row: changes.try_again(row, "late", failure(), 0),
    "die": lambda row: changes.die(row, "late", Reason.PERMANENT, failure(), None),
    "release": lambda row: changes.release(row, "late"),
    "extend": lambda row: changes.extend(row, "late", LATE * 2_000),
}


@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("next_step", ["nothing", "claimed again"])
async def test_a_late_outcome_changes_nothing(backend: Backend, clock: VirtualClock, name: str, next_step: str) -> None:
    await backend.insert(QUEUE, [NewRow(id="x", type="t")])
    change = OUTCOMES[name](await claimed(backend, "first"))
    assert await backend.apply(QUEUE, [change]) == [Verdict.DONE]
    if next_step == "claimed again" and name in ("try_again", "release"):
        await claimed(backend, "second")
    before = await fate(backend)
    clock.advance(LATE)
    assert (await backend.apply(QUEUE, [change]))[0] in (Verdict.REPEATED, Verdict.STALE)
    assert await fate(backend) == before


async def test_a_late_replay_makes_no_second_one(backend: Backend, clock: VirtualClock) -> None:
    """Neither while the first is pending nor after the letter died again: another generation."""
    await backend.insert(QUEUE, [NewRow(id="x", type="t")])
    await backend.apply(QUEUE, [changes.die(await claimed(backend, "a"), "d1", Reason.PERMANENT, failure(), None)])
    [letter] = await recount(backend)
    replay = changes.replay(letter, "replay")
    assert await backend.apply(QUEUE, [replay]) == [Verdict.DONE]
    clock.advance(LATE)
    assert await backend.apply(QUEUE, [replay]) == [Verdict.REPEATED]
    await backend.apply(QUEUE, [changes.die(await claimed(backend, "b"), "d2", Reason.PERMANENT, failure(), None)])
    before = await fate(backend)
    clock.advance(LATE)
    assert await backend.apply(QUEUE, [replay]) == [Verdict.STALE]
    assert await backend.apply(QUEUE, [changes.purge(letter, "purge", KEEP_MS)]) == [Verdict.STALE]
    assert await fate(backend) == before


async def test_a_late_enqueue_stores_nothing(backend: Backend, clock: VirtualClock) -> None:
    """While its task lives, after it succeeded, and after it was purged."""
    dlq = DeadLetterQueue(backend, clock=clock)
    tasks = {id_: Task(type="t", id=id_, idempotency_key=f"k-{id_}") for id_ in ("done", "dead", "lives")}
    await dlq.enqueue_many(list(tasks.values()))
    assert await dlq.process_task("done", lambda task: None)
    assert not await dlq.process_task("dead", lambda task: False)
    await dlq.purge(everything=True)
    clock.advance(LATE)
    for id_, task in tasks.items():
        assert await dlq.enqueue(task) == id_
    states = {row.id: row.state for row in await recount(backend)}
    assert states == {"done": "succeeded", "lives": "pending"}
    await dlq.aclose()


async def test_a_late_claim_costs_a_lease_and_no_effect(backend: Backend, clock: VirtualClock) -> None:
    """What it takes goes to nobody: its lease lapses, and the task is then done, once."""
    dlq = DeadLetterQueue(backend, clock=clock)
    await dlq.enqueue(Task(type="t", id="first"))
    claim = Claim(op="once", types=["t"], lease_ms=60_000, owner="w")
    [row] = (await backend.claim(QUEUE, claim)).rows
    await backend.apply(QUEUE, [changes.succeed(row, "s", KEEP_MS)])
    await dlq.enqueue(Task(type="t", id="second"))
    clock.advance(LATE)
    await backend.claim(QUEUE, claim)
    clock.advance(61)
    await dlq.sweep()
    effects: list[str] = []

    @dlq.processor("t")
    async def work(task: Task) -> None:
        effects.append(task.id)

    await dlq.worker().run_until_idle()
    assert effects == ["second"]
    assert {(row.id, row.state, row.attempts) for row in await recount(backend)} == {
        ("first", "succeeded", 1),
        ("second", "succeeded", 1),
    }
    await dlq.aclose()


async def test_a_late_lapse_does_not_rob_the_next_holder(backend: Backend, clock: VirtualClock) -> None:
    await backend.insert(QUEUE, [NewRow(id="x", type="t")])
    row = await claimed(backend, "a")
    clock.advance(LATE * 3)
    lapse = changes.lapse(row, "lapse", on_uncertain="retry", max_lease_losses=3)
    assert await backend.apply(QUEUE, [lapse]) == [Verdict.DONE]
    await claimed(backend, "b")
    before = await fate(backend)
    clock.advance(LATE * 3)  # the second lease is over, too, and the request is of the first
    assert await backend.apply(QUEUE, [lapse]) == [Verdict.STALE]
    assert await fate(backend) == before
