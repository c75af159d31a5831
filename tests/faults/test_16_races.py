"""Fault 16: a reaper against a late outcome; replay, purge, cancel and enqueue against each other."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest

from deadletter import DeadLetterQueue, NotDead, Query, Task, TaskNotFound
from deadletter.engine.sweeper import change_for
from deadletter.interfaces import Backend
from deadletter.model.record import Reason
from deadletter.model.row import Change, Claim, FailureRow, NewRow, Row, Verdict
from deadletter.rules import changes
from deadletter.testing import VirtualClock

from .conftest import recount

pytestmark = pytest.mark.anyio

QUEUE = "default"
CLAIM = {"types": ["t"], "lease_ms": 1_000, "owner": "w"}


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def backend(make_backend: Callable[..., Backend], clock: VirtualClock) -> AsyncIterator[Backend]:
    backend = make_backend(clock)
    yield backend
    await backend.aclose()


@pytest.fixture
async def lapsed(backend: Backend, clock: VirtualClock) -> Row:
    """A row whose lease has run out, as its worker knows it."""
    await backend.insert(QUEUE, [NewRow(id="x", type="t")])
    [row] = (await backend.claim(QUEUE, Claim(op="first", **CLAIM))).rows
    clock.advance(2)
    return row


async def reap(backend: Backend) -> Change:
    """What a reaper makes of what it read."""
    [read] = await backend.sweep(QUEUE, 10)
    return change_for(DeadLetterQueue(backend), read)


async def apply(backend: Backend, change: Change) -> Verdict:
    return (await backend.apply(QUEUE, [change]))[0]


async def test_the_outcome_comes_between_the_reapers_read_and_its_write(backend: Backend, lapsed: Row) -> None:
    lapse = await reap(backend)
    assert await apply(backend, changes.succeed(lapsed, "s", 1_000_000)) is Verdict.DONE
    assert await apply(backend, lapse) is Verdict.STALE
    [row] = await recount(backend)
    assert (row.state, row.attempts, row.lease_losses) == ("succeeded", 1, 0)


async def test_the_outcome_comes_after_the_reaper(backend: Backend, lapsed: Row) -> None:
    """Nobody has claimed it since, so that what was done is not done twice."""
    assert await apply(backend, await reap(backend)) is Verdict.DONE
    assert await apply(backend, changes.succeed(lapsed, "s", 1_000_000)) is Verdict.DONE
    assert (await backend.claim(QUEUE, Claim(op="second", **CLAIM))).rows == []
    [row] = await recount(backend)
    assert (row.state, row.attempts, row.lease_losses) == ("succeeded", 1, 1)


async def test_the_outcome_comes_after_the_next_claim(backend: Backend, lapsed: Row) -> None:
    assert await apply(backend, await reap(backend)) is Verdict.DONE
    [other] = (await backend.claim(QUEUE, Claim(op="second", **CLAIM))).rows
    assert await apply(backend, changes.succeed(lapsed, "s", 1_000_000)) is Verdict.STALE
    assert await apply(backend, changes.succeed(other, "s2", 1_000_000)) is Verdict.DONE
    [row] = await recount(backend)
    assert (row.state, row.attempts) == ("succeeded", 1)


async def test_two_reapers_read_the_same(backend: Backend, lapsed: Row) -> None:
    """One of them writes; the other's write counts no second loss, not even after a new claim has lapsed in turn."""
    first, second = await reap(backend), await reap(backend)
    assert await apply(backend, first) is Verdict.DONE
    assert await apply(backend, second) is Verdict.STALE
    await backend.claim(QUEUE, Claim(op="second", **CLAIM))
    assert await apply(backend, second) is Verdict.STALE
    [row] = await recount(backend)
    assert (row.state, row.lease_losses) == ("running", 1)


async def test_an_extension_saves_a_lease_from_a_reaper_that_has_read_it(backend: Backend, lapsed: Row) -> None:
    lapse = await reap(backend)
    assert await apply(backend, changes.extend(lapsed, "x", 1_000)) is Verdict.DONE
    assert await apply(backend, lapse) is Verdict.STALE
    [row] = await recount(backend)
    assert (row.state, row.lease_losses) == ("running", 0)


async def test_replay_purge_and_enqueue_have_one_winner(make_backend: Callable[..., Backend]) -> None:
    """From two sides at once, 40 times over; a late outcome of the attempt that died changes nothing."""
    sides = [make_backend(), make_backend()]
    queues = [DeadLetterQueue(side) for side in sides]
    won = {"replay": 0, "purge": 0}
    for number in range(40):
        id_ = f"x{number}"
        task = Task(type="t", id=id_, payload={"n": number}, idempotency_key=f"k{number}")
        await queues[0].enqueue(task)
        [row] = (await sides[0].claim(QUEUE, Claim(op=f"op{number}", ids=[id_]))).rows
        late = changes.succeed(row, f"late{number}", 1_000_000)
        failure = FailureRow(attempt=1, error_type="E", fingerprint="f")
        assert await apply(sides[0], changes.die(row, f"die{number}", Reason.PERMANENT, failure, None)) is Verdict.DONE
        told: dict[str, object] = {}
        races: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("replay", lambda id_=id_: queues[0].retry(id_)),  # type: ignore[misc]
            ("replay2", lambda id_=id_: queues[1].retry(id_)),  # type: ignore[misc]
            ("purge", lambda id_=id_: queues[1].purge(Query(ids=[id_]))),  # type: ignore[misc]
            ("late", lambda late=late: apply(sides[0], late)),  # type: ignore[misc]
            ("again", lambda task=task: queues[1].enqueue(task)),  # type: ignore[misc]
        ]

        async def race(name: str, call: Callable[[], Awaitable[object]], told: dict[str, object] = told) -> None:
            with contextlib.suppress(NotDead, TaskNotFound):
                told[name] = await call()

        async with anyio.create_task_group() as group:
            for name, call in races if number % 2 else reversed(races):
                group.start_soon(race, name, call)
        purged = getattr(told["purge"], "changed")  # noqa: B009
        replayed = ("replay" in told) + ("replay2" in told)
        assert purged + replayed == 1, f"{id_}: {told}"
        assert told["late"] in (Verdict.STALE, Verdict.MISSING)
        assert told["again"] == id_
        won["purge" if purged else "replay"] += 1
        stored = (await sides[1].load(QUEUE, [id_]))[0]
        assert stored is not None
        assert (stored.state, stored.generation, stored.attempts) == (("gone", 0, 1) if purged else ("pending", 1, 0))
    assert sum(won.values()) == 40
    await recount(sides[0])
    for queue in queues:
        await queue.aclose()
    for side in sides:
        await side.aclose()


async def test_fifty_racing_enqueues_with_one_key_are_one_task(make_backend: Callable[..., Backend]) -> None:
    sides = [make_backend(), make_backend()]
    queues = [DeadLetterQueue(side) for side in sides]
    answers: list[str] = []

    async def enqueue(number: int) -> None:
        answers.append(await queues[number % 2].enqueue(Task(type="t", payload={"a": 1}, idempotency_key="k")))

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(enqueue, number)
    assert len(answers) == 50
    [row] = await recount(sides[0])
    assert set(answers) == {row.id}
    for queue in queues:
        await queue.aclose()
    for side in sides:
        await side.aclose()


async def test_two_claims_never_get_the_same_row(make_backend: Callable[..., Backend]) -> None:
    sides = [make_backend(), make_backend()]
    await sides[0].insert(QUEUE, [NewRow(id=f"x{i}", type="t") for i in range(100)])
    got: list[str] = []

    async def take(number: int) -> None:
        claimed = await sides[number % 2].claim(QUEUE, Claim(op=f"op{number}", limit=7, **CLAIM))
        got.extend(row.id for row in claimed.rows)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(take, number)
    assert sorted(got) == sorted(f"x{i}" for i in range(100))
    for side in sides:
        await side.aclose()
