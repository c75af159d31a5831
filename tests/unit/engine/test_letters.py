"""One letter at a time: capture and retry."""

from __future__ import annotations

import pytest

from deadletter import (
    IdempotencyConflict,
    InvalidTask,
    NotDead,
    NotReplayable,
    Query,
    Reason,
    State,
    Task,
    TaskConflict,
    TaskNotFound,
    current_attempt,
)
from deadletter.model.record import EDITED
from deadletter.rules import changes
from deadletter.rules.codec import encode_task

pytestmark = pytest.mark.anyio


def fail(_):
    raise ValueError("again")


@pytest.fixture
async def letter(anyio_backend, dlq, kill):
    task = Task(
        type="t", payload={"n": 1, "card": {"password": "hunter22"}}, idempotency_key="k", max_retries=2, expires_in=60
    )
    (task_id,) = await kill(dlq, task)
    return task_id


async def test_a_retried_letter_is_pending_and_keeps_its_story(dlq, letter):
    before = await dlq.get(letter)
    record = await dlq.retry(letter)
    assert (record.state, record.replays, record.attempts) == (State.PENDING, 1, 0)
    assert (record.reason, record.died_at, record.expires_at) == (None, None, None)
    assert record.history == before.history
    assert record.task.idempotency_key == "k"
    assert record.due_at == before.died_at
    assert (await dlq.stats()).lifetime["replayed"] == 1
    assert await dlq.process_task(letter, lambda _: None) is True


async def test_reset_gives_all_attempts_again(dlq, letter):
    await dlq.retry(letter)
    for expected in (False, False, False):
        assert await dlq.process_task(letter, fail) is expected
    record = await dlq.get(letter)
    assert (record.state, record.attempts) == (State.DEAD, 3)


async def test_without_reset_at_least_one_attempt_is_granted(dlq, letter):
    for _ in range(2):
        await dlq.retry(letter, reset_attempts=True)
        for _ in range(3):
            await dlq.process_task(letter, fail)
    record = await dlq.retry(letter, reset_attempts=False)
    assert (record.state, record.attempts) == (State.PENDING, 3)
    assert await dlq.process_task(letter, fail) is False
    record = await dlq.get(letter)
    assert (record.state, record.attempts) == (State.DEAD, 4)
    await dlq.retry(letter, reset_attempts=False)
    assert await dlq.process_task(letter, lambda _: None) is True


async def test_losses_are_cleared(dlq, clock, claim_elsewhere):
    task_id = await dlq.enqueue(Task(type="t", on_uncertain="dead"))
    await claim_elsewhere(dlq, task_id)
    clock.advance(60)
    await dlq.sweep()
    assert (await dlq.get(task_id)).lease_losses == 1
    assert (await dlq.retry(task_id)).lease_losses == 0


async def test_an_edit_is_noted_and_is_no_failure(dlq, letter):
    record = await dlq.retry(letter, payload={"n": 2}, type="u", why="wrong number")
    assert (record.task.type, record.task.payload) == ("u", {"n": 2})
    assert (record.task.idempotency_key, record.task.max_retries) == ("k", 2)
    note = record.history[-1]
    assert (note.error_type, note.message) == (EDITED, "type t -> u, payload edited: wrong number")
    assert record.failure == record.history[0], "what it died of stays the last failure"
    row = await dlq.row(letter)
    assert row.error_type == "deadletter.PermanentError"
    assert row.fingerprint == record.failure.fingerprint


async def test_an_edit_to_another_type_leaves_the_key_where_it_was_bound(dlq, letter):
    await dlq.retry(letter, type="u")
    same = Task(type="t", payload={"n": 1, "card": {"password": "hunter22"}}, idempotency_key="k")
    assert await dlq.enqueue(same) == letter
    other = Task(type="u", payload={"n": 1}, idempotency_key="k")
    assert await dlq.enqueue(other) == other.id


async def test_a_hidden_value_given_back_keeps_the_stored_one(dlq, letter):
    hidden = {"$redacted": True}
    record = await dlq.retry(letter, payload={"n": 3, "card": {"password": hidden}})
    assert record.task.payload == {"n": 3, "card": {"password": "hunter22"}}


async def test_a_hidden_value_where_none_is_stored_is_refused(dlq, letter):
    with pytest.raises(InvalidTask, match="payload"):
        await dlq.retry(letter, payload={"x": {"$redacted": True}})
    assert (await dlq.get(letter)).state is State.DEAD


async def test_a_delay_holds_the_retry(dlq, letter):
    record = await dlq.retry(letter, delay=90)
    assert (record.due_at - record.created_at).total_seconds() == 90


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        ({"payload": [1]}, "payload"),
        ({"payload": {"a": float("inf")}}, r"payload\.a"),
        ({"type": ""}, "type"),
        ({"delay": -1}, "delay"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
async def test_a_bad_edit_is_named_and_changes_nothing(dlq, letter, edit, field):
    with pytest.raises(InvalidTask, match=field):
        await dlq.retry(letter, **edit)
    assert (await dlq.get(letter)).state is State.DEAD


async def test_only_a_letter_can_be_retried(dlq, letter):
    await dlq.retry(letter)
    with pytest.raises(NotDead, match="pending"):
        await dlq.retry(letter)


@pytest.mark.parametrize("meanwhile", ["retried", "purged"])
async def test_who_comes_second_is_told(dlq, letter, backend, monkeypatch, meanwhile):
    load = backend.load

    async def load_then_lose(queue, ids, *, history=1):
        rows = await load(queue, ids, history=history)
        monkeypatch.undo()
        await (dlq.retry(letter) if meanwhile == "retried" else dlq.purge(Query(ids=[letter])))
        return rows

    monkeypatch.setattr(backend, "load", load_then_lose)
    with pytest.raises(NotDead if meanwhile == "retried" else TaskNotFound):
        await dlq.retry(letter)


async def test_what_holds_no_real_arguments_wants_a_payload(dlq, backend):
    task = Task(type="t", payload={"x": "<object>"}, idempotency_key="k")
    new = dlq.new_row(task)
    new.body = encode_task(dlq.codec, task, max_payload_bytes=1000, replayable=False)
    from deadletter.engine.letters import dead_row

    await dlq.insert_row(dead_row(dlq, new, ValueError("no"), Reason.NOT_REPLAYABLE))
    record = await dlq.get(task.id)
    assert (record.reason, record.replayable) == (Reason.NOT_REPLAYABLE, False)
    with pytest.raises(NotReplayable, match="payload"):
        await dlq.retry(task.id)
    result = await dlq.retry_all(everything=True)
    assert (result.matched, result.changed, result.failed) == (1, 0, 1)
    record = await dlq.retry(task.id, payload={"x": 1})
    assert (record.replayable, record.task.idempotency_key) == (True, "k")


async def test_a_broken_letter_can_be_given_a_payload(dlq, letter):
    await dlq.apply([changes.replay(await dlq.row(letter), "op", body=b"\xff")])
    await dlq.process_task(letter, fail)
    with pytest.raises(NotReplayable):
        await dlq.retry(letter)
    record = await dlq.retry(letter, payload={"n": 9})
    assert (record.task.payload, record.replayable) == ({"n": 9}, True)


# Capture


async def test_capture_stores_a_letter(make_queue):
    dlq = make_queue(release="1.4")
    task = Task(type="t", payload={"n": 1}, expires_in=5)
    with pytest.raises(ValueError) as caught:
        fail(task)
    assert await dlq.capture(task, caught.value) == task.id
    assert await dlq.capture(task, caught.value) == task.id, "safe to repeat"
    record = await dlq.get(task.id)
    assert (record.state, record.reason, record.attempts, record.replayable) == (State.DEAD, Reason.CAPTURED, 1, True)
    assert (record.failure.message, record.failure.release) == ("again", "1.4")
    assert "in fail" in record.failure.traceback
    assert (record.expires_at - record.died_at).days == 7
    lifetime = (await dlq.stats()).lifetime
    assert (lifetime["captured"], lifetime["dead"], lifetime["failures"]) == (1, 1, 1)
    await dlq.retry(task.id)
    assert await dlq.process_task(task.id, lambda _: None) is True


async def test_capture_says_what_is_wrong(dlq):
    task = Task(type="t", payload={"n": 1}, idempotency_key="k")
    with pytest.raises(InvalidTask, match="reason"):
        await dlq.capture(task, ValueError(), reason="bad luck")
    with pytest.raises(InvalidTask, match="exc"):
        await dlq.capture(task, "no exception")
    await dlq.enqueue(task)
    with pytest.raises(TaskConflict):
        await dlq.capture(Task(type="t", id=task.id), ValueError())
    with pytest.raises(IdempotencyConflict, match="k"):
        await dlq.capture(Task(type="t", idempotency_key="k"), ValueError())


async def test_a_reason_may_be_said(dlq):
    task_id = await dlq.capture(Task(type="t"), ValueError(), reason="retries_exhausted")
    assert (await dlq.get(task_id)).reason is Reason.RETRIES_EXHAUSTED


async def test_an_edit_does_not_hide_what_a_task_failed_of(dlq, kill):
    """Its note is history, no failure: neither the next attempt nor a page takes it for one."""
    (task_id,) = await kill(dlq, Task(type="t", payload={"why": "bad address"}))
    await dlq.retry(task_id, payload={"why": "better address"})
    (record,) = (await dlq.list(Query(state="pending"))).items
    assert record.failure.message == "bad address"
    seen = []
    assert await dlq.process_task(task_id, lambda _: seen.append(current_attempt().last_failure))
    assert [failure.message for failure in seen] == ["bad address"]
