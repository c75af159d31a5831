"""The effect guard: at most one owner of a key at a time, and none after a recorded result."""

from __future__ import annotations

import anyio
import pytest

from deadletter import LeaseLost

pytestmark = pytest.mark.anyio


@pytest.fixture
def guard(dlq):
    return dlq.idempotency


async def test_the_first_begins_and_the_second_waits(guard, clock):
    first = await guard.begin("k", "d", 10)
    assert first.word == "started"
    clock.advance(4)
    second = await guard.begin("k", "d", 10)
    assert (second.word, second.token, second.remaining) == ("in_progress", None, 6)
    assert (await guard.begin("other", "d", 10)).word == "started"


async def test_a_completed_effect_answers_its_result_until_its_ttl_has_passed(guard, clock):
    first = await guard.begin("k", "d", 10)
    await guard.complete(first.token, b"42", 1000)
    await guard.complete(first.token, b"42", 1000)
    clock.advance(999)
    again = await guard.begin("k", "d", 10)
    assert (again.word, again.result) == ("completed", b"42")
    clock.advance(1)
    assert (await guard.begin("k", "d", 10)).word == "started"


async def test_an_empty_result_is_a_result(guard):
    first = await guard.begin("k", "d", 10)
    await guard.complete(first.token, b"", 1000)
    assert (await guard.begin("k", "d", 10)).result == b""


async def test_another_digest_is_a_conflict(guard):
    first = await guard.begin("k", "d", 10)
    assert (await guard.begin("k", "e", 10)).word == "conflict"
    await guard.complete(first.token, b"", 1000)
    assert (await guard.begin("k", "e", 10)).word == "conflict"


async def test_an_abandoned_key_is_free_at_once(guard):
    first = await guard.begin("k", "d", 10)
    await guard.abandon(first.token)
    await guard.abandon(first.token)
    assert (await guard.begin("k", "e", 10)).word == "started"
    with pytest.raises(LeaseLost):
        await guard.complete(first.token, b"", 1000)


async def test_a_lapsed_guard_is_taken_over_by_one(guard, clock):
    first = await guard.begin("k", "d", 10)
    clock.advance(10)
    answers = []

    async def begin():
        answers.append(await guard.begin("k", "d", 10))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(begin)
    assert sorted(answer.word for answer in answers) == ["in_progress"] * 4 + ["started"]
    with pytest.raises(LeaseLost):
        await guard.complete(first.token, b"late", 1000)
    await guard.abandon(first.token)
    (owner,) = [answer for answer in answers if answer.word == "started"]
    await guard.complete(owner.token, b"done", 1000)
    assert (await guard.begin("k", "d", 10)).result == b"done"


async def test_losing_the_race_to_take_over_is_in_progress(guard, backend, clock, monkeypatch):
    await guard.begin("k", "d", 10)
    clock.advance(10)
    insert = backend.insert

    async def insert_then_lose(queue, rows):
        answer = await insert(queue, rows)
        monkeypatch.undo()
        assert (await guard.begin("k", "d", 10)).word == "started"
        return answer

    monkeypatch.setattr(backend, "insert", insert_then_lose)
    assert (await guard.begin("k", "d", 10)).word == "in_progress"


async def test_guards_are_no_tasks(dlq, guard):
    await guard.begin("k", "d", 10)
    assert sum((await dlq.stats()).by_state.values()) == 0


async def test_one_of_two_racing_begins_starts(guard):
    words = []

    async def begin():
        words.append((await guard.begin("k", "d", 10)).word)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(begin)
    assert sorted(words) == ["in_progress"] * 9 + ["started"]
