"""Fault N9: the same id or key with another payload; a replay against a key that was taken meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio
import pytest

from deadletter import (
    DeadLetterQueue,
    IdempotencyConflict,
    NotDead,
    PermanentError,
    Query,
    Task,
    TaskConflict,
    TaskNotFound,
)
from deadletter.interfaces import Backend

from .conftest import recount

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sides(make_backend: Callable[..., Backend]) -> AsyncIterator[list[DeadLetterQueue]]:
    """Two queues on one store, as two processes have them."""
    backends = [make_backend(), make_backend()]
    queues = [DeadLetterQueue(backend) for backend in backends]
    yield queues
    for queue in queues:
        await queue.aclose()
    for backend in backends:
        await backend.aclose()


async def die(task: Task) -> None:
    raise PermanentError(f"{task.id} cannot be done")


@pytest.mark.parametrize(("same", "error"), [("id", TaskConflict), ("key", IdempotencyConflict)])
async def test_racing_payloads_have_one_winner(sides: list[DeadLetterQueue], same: str, error: type[Exception]) -> None:
    """Of 40 with one id or key and two payloads, those of one payload get one id; the others are told."""
    answers: dict[int, list[str]] = {0: [], 1: []}
    told: list[int] = []

    async def enqueue(number: int) -> None:
        named = {"id": "x"} if same == "id" else {"idempotency_key": "k"}
        try:
            answers[number % 2].append(
                await sides[number // 2 % 2].enqueue(Task(type="t", payload={"v": number % 2}, **named))
            )
        except error:
            told.append(number % 2)

    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(enqueue, number)
    [row] = await recount(sides[0].backend)
    winner = (await sides[1].get(row.id)).task.payload["v"]
    assert answers == {winner: [row.id] * 20, 1 - winner: []}
    assert told == [1 - winner] * 20
    assert await sides[0].process_task(row.id, lambda task: None)  # nothing is stuck


@pytest.mark.parametrize("at", ["live", "dead", "remembered"])
async def test_a_key_holds_as_long_as_its_task_is_known(sides: list[DeadLetterQueue], at: str) -> None:
    one, other = sides
    await one.enqueue(Task(type="t", id="x", payload={"v": 1}, idempotency_key="k"))
    if at == "dead":
        assert not await one.process_task("x", die)
    if at == "remembered":
        assert await one.process_task("x", lambda task: None)
    with pytest.raises(IdempotencyConflict):
        await other.enqueue(Task(type="t", payload={"v": 2}, idempotency_key="k"))
    with pytest.raises(TaskConflict):
        await other.enqueue(Task(type="t", id="x", payload={"v": 2}))
    assert await other.enqueue(Task(type="t", payload={"v": 1}, idempotency_key="k")) == "x"
    assert await other.enqueue(Task(type="u", id="y", payload={"v": 2}, idempotency_key="k")) == "y"  # keys go by type
    assert len(await recount(one.backend)) == 2


async def test_a_replay_against_a_key_that_was_taken_meanwhile(sides: list[DeadLetterQueue]) -> None:
    """The purged letter does not come back beside the one that has its key now, which works on."""
    one, other = sides
    await one.enqueue(Task(type="t", id="old", payload={"v": 1}, idempotency_key="k"))
    assert not await one.process_task("old", die)
    assert (await other.purge(Query(ids=["old"]))).changed == 1
    assert await other.enqueue(Task(type="t", id="new", payload={"v": 2}, idempotency_key="k")) == "new"
    with pytest.raises(TaskNotFound):
        await one.retry("old")
    assert (await one.retry_all(Query(ids=["old"]))).changed == 0
    assert not await one.process_task("new", die)
    assert (await other.retry("new")).state == "pending"
    with pytest.raises(NotDead):
        await one.retry("new")
    assert await one.process_task("new", lambda task: None)
    assert [row.id for row in await recount(one.backend)] == ["new"]


async def test_an_edit_to_another_type_leaves_the_key_where_it_was_bound(sides: list[DeadLetterQueue]) -> None:
    one, other = sides
    await one.enqueue(Task(type="t", id="old", payload={"v": 1}, idempotency_key="k"))
    await one.enqueue(Task(type="u", id="holder", payload={"v": 9}, idempotency_key="k"))
    assert not await one.process_task("old", die)
    assert (await other.retry("old", type="u")).task.type == "u"  # beside the holder of u's key: no conflict
    assert await one.enqueue(Task(type="t", payload={"v": 1}, idempotency_key="k")) == "old"
    assert await one.enqueue(Task(type="u", payload={"v": 9}, idempotency_key="k")) == "holder"
    for id_ in ("old", "holder"):
        assert await other.process_task(id_, lambda task: None)


async def test_a_batch_with_a_conflict_stores_nothing(sides: list[DeadLetterQueue]) -> None:
    one, other = sides
    await one.enqueue(Task(type="t", id="x", payload={"v": 1}))
    batch = [Task(type="t", id=f"n{i}") for i in range(5)] + [Task(type="t", id="x", payload={"v": 2})]
    with pytest.raises(Exception, match="x") as failed:
        await other.enqueue_many(batch)
    assert isinstance(failed.value.__cause__, TaskConflict)
    assert [row.id for row in await recount(one.backend)] == ["x"]
    assert len(await other.enqueue_many(batch[:-1])) == 5
