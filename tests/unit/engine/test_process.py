"""process_task: one attempt, here and now."""

from __future__ import annotations

import anyio
import pytest

from deadletter import (
    BackendError,
    BackendUnavailable,
    LeaseLost,
    Reason,
    State,
    Task,
    TaskBusy,
    TaskNotFound,
    current_attempt,
)
from deadletter.model.row import FORMAT
from deadletter.retry import Schedule
from deadletter.rules import changes

pytestmark = pytest.mark.anyio


def fail(_):
    raise ValueError("no")


async def test_true_means_succeeded_or_remembered_as_such(dlq):
    task_id = await dlq.enqueue(Task(type="t"))
    ran = []
    assert await dlq.process_task(task_id, ran.append) is True
    assert await dlq.process_task(task_id, ran.append) is True
    assert len(ran) == 1


async def test_false_means_rescheduled_or_dead(dlq, kill):
    ran = []
    task_id = await dlq.enqueue(Task(type="t"))
    assert await dlq.process_task(task_id, fail) is False
    (dead,) = await kill(dlq, Task(type="t"))
    assert await dlq.process_task(dead, ran.append) is False
    assert ran == []


async def test_it_runs_what_is_not_due_yet(dlq):
    task_id = await dlq.enqueue(Task(type="t", delay=3600))
    assert await dlq.process_task(task_id, lambda _: None) is True


async def test_a_leased_task_is_busy(dlq, claim_elsewhere, clock):
    task_id = await dlq.enqueue(Task(type="t"))
    await claim_elsewhere(dlq, task_id)
    with pytest.raises(TaskBusy, match=task_id):
        await dlq.process_task(task_id, fail)
    clock.advance(59.999)
    with pytest.raises(TaskBusy):
        await dlq.process_task(task_id, fail)


async def test_it_is_busy_for_a_second_call_of_the_same_queue(dlq, until):
    task_id = await dlq.enqueue(Task(type="t"))
    inside = anyio.Event()
    release = anyio.Event()

    async def slow(_):
        inside.set()
        await release.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(dlq.process_task, task_id, slow)
        await inside.wait()
        with pytest.raises(TaskBusy):
            await dlq.process_task(task_id, fail)
        release.set()
    assert (await dlq.get(task_id)).state is State.SUCCEEDED


async def test_a_lapsed_lease_is_taken_over(dlq, claim_elsewhere, clock):
    task_id = await dlq.enqueue(Task(type="t"))
    row = await claim_elsewhere(dlq, task_id)
    clock.advance(60)
    assert await dlq.process_task(task_id, lambda _: None) is True
    assert (await dlq.get(task_id)).lease_losses == 1
    verdict = (await dlq.apply([changes.succeed(row, "late", None)]))[0]
    assert verdict == "stale", "the first worker's outcome changes nothing any more"


async def test_a_lapsed_lease_may_mean_that_it_is_dead(make_queue, claim_elsewhere, clock):
    dlq = make_queue(on_uncertain="dead")
    task_id = await dlq.enqueue(Task(type="t"))
    await claim_elsewhere(dlq, task_id)
    clock.advance(60)
    assert await dlq.process_task(task_id, lambda _: None) is False
    assert (await dlq.get(task_id)).reason is Reason.UNCERTAIN


async def test_what_expired_is_dead(dlq, clock):
    task_id = await dlq.enqueue(Task(type="t", expires_in=5))
    clock.advance(5)
    assert await dlq.process_task(task_id, lambda _: None) is False
    assert (await dlq.get(task_id)).reason is Reason.EXPIRED


async def test_what_a_newer_version_stored_is_left_alone(dlq, backend, monkeypatch):
    task_id = await dlq.enqueue(Task(type="t"))
    for module in ("rules.machine", "backends.sqlite.step"):
        monkeypatch.setattr(f"deadletter.{module}.FORMAT", FORMAT - 1)
    with pytest.raises(BackendError, match="newer version"):
        await dlq.process_task(task_id, lambda _: None)
    monkeypatch.undo()
    assert (await dlq.get(task_id)).state is State.PENDING


async def test_a_body_that_cannot_be_read_is_quarantined(dlq, backend, kill):
    (task_id,) = await kill(dlq, Task(type="t"))
    row = await dlq.row(task_id)
    await dlq.apply([changes.replay(row, "op", body=b"not json")])
    assert await dlq.process_task(task_id, lambda _: None) is False
    record = await dlq.get(task_id)
    assert (record.state, record.reason, record.replayable) == (State.DEAD, Reason.UNDECODABLE, False)
    assert record.failure.error_type == "deadletter.Undecodable"
    assert (await dlq.row(task_id)).body == b"not json", "its bytes are kept"


async def test_cancelling_the_caller_releases_at_once(dlq, until, anyio_backend):
    task_id = await dlq.enqueue(Task(type="t"))
    inside = []

    async def slow(_):
        inside.append(1)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(dlq.process_task, task_id, slow)
        await until(lambda: inside)
        group.cancel_scope.cancel()
    record = await dlq.get(task_id)
    assert (record.state, record.attempts, record.failure) == (State.PENDING, 0, None)
    assert dlq.keeper.idle


async def test_cancelling_the_caller_in_its_claim_releases_too(dlq, backend, monkeypatch):
    """The claim was executed, and its answer never came."""
    task_id = await dlq.enqueue(Task(type="t"))
    claim = backend.claim

    async def claim_and_hang(queue, wish):
        await claim(queue, wish)
        monkeypatch.undo()
        await anyio.sleep_forever()

    monkeypatch.setattr(backend, "claim", claim_and_hang)
    with anyio.move_on_after(0.05):
        await dlq.process_task(task_id, fail)
    assert (await dlq.get(task_id)).state is State.PENDING


async def test_a_timeout_of_the_caller_is_not_the_tasks(dlq):
    task_id = await dlq.enqueue(Task(type="t", timeout=30))

    async def slow(_):
        await anyio.sleep_forever()

    with anyio.move_on_after(0.02) as scope:
        await dlq.process_task(task_id, slow)
    assert scope.cancelled_caught
    assert (await dlq.get(task_id)).attempts == 0


async def test_a_lost_lease_cancels(dlq, until, clock, claim_elsewhere):
    """Somebody else has the task: the attempt here is stopped, and the other's lease is untouched."""
    task_id = await dlq.enqueue(Task(type="t"))
    inside = []

    async def slow(_):
        inside.append(1)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:

        async def run():
            with pytest.raises(LeaseLost, match=task_id):
                await dlq.process_task(task_id, slow)

        group.start_soon(run)
        await until(lambda: inside)
        row = await dlq.row(task_id)
        await dlq.apply([changes.release(row, "stolen")])
        stolen = await claim_elsewhere(dlq, task_id)
        while group.cancel_scope.cancel_called is False and not dlq.keeper.idle:
            clock.advance(2)
            await anyio.sleep(0.002)
    row = await dlq.row(task_id)
    assert (row.state, row.token) == (State.RUNNING, stolen.token)


async def test_an_outcome_that_comes_too_late_is_told(dlq, clock, claim_elsewhere):
    task_id = await dlq.enqueue(Task(type="t"))

    async def stolen_meanwhile(_):
        row = await dlq.row(task_id)
        await dlq.apply([changes.release(row, "stolen")])
        await claim_elsewhere(dlq, task_id)

    with pytest.raises(LeaseLost, match="perhaps done"):
        await dlq.process_task(task_id, stolen_meanwhile)


async def test_a_late_outcome_is_accepted_while_nobody_has_claimed(dlq, clock, make_queue):
    """Its lease lapsed and the sweep put it back, yet its token is still the record's."""
    task_id = await dlq.enqueue(Task(type="t"))
    other = make_queue()

    async def slow(_):
        dlq.keeper._kept.clear()  # a process that was frozen: nobody extends
        clock.advance(61)
        await other.open()
        assert await other.sweep() == 1

    assert await dlq.process_task(task_id, slow) is True
    record = await dlq.get(task_id)
    assert (record.state, record.attempts) == (State.SUCCEEDED, 1)


async def test_an_outcome_waits_for_a_store_that_is_away(dlq, backend, monkeypatch, clock, until, caplog):
    task_id = await dlq.enqueue(Task(type="t"))
    apply, away = backend.apply, []

    async def unavailable(queue, batch):
        if len(away) < 5:
            away.append(len(batch))
            raise BackendUnavailable("away")
        return await apply(queue, batch)

    monkeypatch.setattr(backend, "apply", unavailable)
    result = []

    async def run():
        result.append(await dlq.process_task(task_id, lambda _: None))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        while not result:
            clock.advance(0.05)
            await anyio.sleep(0.001)
    assert result == [True]
    assert (await dlq.get(task_id)).state is State.SUCCEEDED
    assert caplog.text.count("outcomes wait for the store") == 1


async def test_but_not_for_ever(dlq, backend, monkeypatch, pass_until, until):
    task_id = await dlq.enqueue(Task(type="t"))
    asked, raised = [], []

    async def unavailable(queue, batch):
        asked.append(batch)
        raise BackendUnavailable("away")

    async def run():
        try:
            await dlq.process_task(task_id, lambda _: None)
        except BackendUnavailable as error:
            raised.append(error)

    monkeypatch.setattr(backend, "apply", unavailable)
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await until(lambda: asked)
        await pass_until(lambda: raised, step=5)
    monkeypatch.undo()
    assert (await dlq.get(task_id)).state is State.RUNNING


@pytest.mark.parametrize("way", ["process_task", "worker"])
async def test_a_lease_that_was_too_slow_to_arrive_starts_nothing(dlq, backend, monkeypatch, clock, way):
    """With a key, somebody else may start any moment."""
    claim, ran = backend.claim, []

    async def slow(queue, wish):
        claimed = await claim(queue, wish)
        if claimed.rows:
            clock.advance(59.9)
            monkeypatch.undo()
        return claimed

    task_id = await dlq.enqueue(Task(type="t", idempotency_key="k"))
    monkeypatch.setattr(backend, "claim", slow)
    if way == "process_task":
        with pytest.raises(LeaseLost):
            await dlq.process_task(task_id, ran.append)
        record = await dlq.get(task_id)
        assert (record.state, record.attempts, ran) == (State.PENDING, 0, [])
    else:
        dlq.processor("t")(lambda task: ran.append((number(), task.id)))
        await dlq.worker().run_until_idle()
        assert ran == [(1, task_id)], "given back, and claimed again in time"


def number() -> int:
    return current_attempt().number


async def test_a_release_that_fails_hides_nothing(dlq, backend, monkeypatch, until, caplog):
    """The caller's cancellation is what it sees, not the store's trouble."""
    task_id = await dlq.enqueue(Task(type="t"))
    inside = []

    async def slow(_):
        inside.append(1)
        await anyio.sleep_forever()

    async def unavailable(queue, batch):
        raise BackendUnavailable("away")

    async with anyio.create_task_group() as group:
        group.start_soon(dlq.process_task, task_id, slow)
        await until(lambda: inside)
        monkeypatch.setattr(backend, "apply", unavailable)
        group.cancel_scope.cancel()
    monkeypatch.undo()
    assert "its lease lapses instead" in caplog.text
    assert (await dlq.get(task_id)).state is State.RUNNING


async def test_the_registered_policy_holds_for_a_given_processor_too(make_queue):
    dlq = make_queue()
    dlq.processor("t", retry=Schedule([7], jitter=0), max_retries=3)(lambda _: None)
    task_id = await dlq.enqueue(Task(type="t"))
    await dlq.process_task(task_id, fail)
    record = await dlq.get(task_id)
    assert (record.due_at - record.failure.at).total_seconds() == 7


async def test_what_it_leaves_pending_is_run_by_a_worker(dlq, clock):
    ran = []
    task_id = await dlq.enqueue(Task(type="t"))
    await dlq.process_task(task_id, fail)
    dlq.processor("t")(lambda task: ran.append(task.id))
    clock.advance(6)
    await dlq.worker().run_until_idle()
    assert ran == [task_id]


async def test_a_task_erased_under_a_lapsed_lease_is_not_found(dlq, backend, claim_elsewhere, monkeypatch):
    task_id = await dlq.enqueue(Task(type="t"))
    await claim_elsewhere(dlq, task_id)

    async def gone(queue, ids, *, history=1):
        return [None]

    monkeypatch.setattr(backend, "load", gone)
    with pytest.raises(TaskNotFound):
        await dlq.process_task(task_id, fail)


async def test_a_task_that_is_always_somebody_elses_is_busy(dlq, backend, monkeypatch, clock, claim_elsewhere):
    """Each time that its lapsed lease was dealt with, another was quicker to claim it."""
    task_id = await dlq.enqueue(Task(type="t"))
    await claim_elsewhere(dlq, task_id)
    clock.advance(60)
    apply = backend.apply

    async def lose(queue, batch):
        verdicts = await apply(queue, batch)
        await claim_elsewhere(dlq, task_id)
        clock.advance(60)
        return verdicts

    monkeypatch.setattr(backend, "apply", lose)
    with pytest.raises(TaskBusy):
        await dlq.process_task(task_id, fail)
