"""The outcome table of the contract: both stores, both loops, both kinds of processor, by hand and by a worker."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import anyio
import pytest

from deadletter import (
    Discard,
    PermanentError,
    Postpone,
    Reason,
    RetryAfter,
    State,
    Task,
    TaskNotFound,
    current_attempt,
)
from deadletter.retry import Schedule
from deadletter.runtime.threads import Threads

pytestmark = pytest.mark.anyio


@pytest.fixture
def task() -> Task:
    return Task(type="t", payload={"n": 1})


@pytest.mark.parametrize("value", [None, True, 0, "", {"ok": False}], ids=repr)
async def test_whatever_is_returned_but_false_is_a_success(dlq, attempt, processor, task, value):
    assert await attempt(dlq, task, processor(lambda _: value)) in (True, None)
    record = await dlq.get(task.id)
    assert (record.state, record.attempts, record.failure, record.reason) == (State.SUCCEEDED, 1, None, None)
    assert (await dlq.stats()).lifetime["succeeded"] == 1


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("no"), "ValueError"),
        (SystemExit(3), "SystemExit"),
        (asyncio.CancelledError("mine"), "asyncio.exceptions.CancelledError"),
        (BaseExceptionGroup("both", [SystemExit(1)]), "BaseExceptionGroup"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_raised_is_tried_again_later(make_queue, attempt, processor, task, clock, error, name):
    dlq = make_queue(retry=Schedule([5, 30], jitter=0))

    def body(_):
        raise error

    assert await attempt(dlq, task, processor(body)) in (False, None)
    record = await dlq.get(task.id)
    assert (record.state, record.attempts) == (State.PENDING, 1)
    assert record.failure.error_type == name
    assert record.failure.attempt == 1
    assert (record.due_at - record.failure.at).total_seconds() == 5


async def test_a_stop_iteration_in_a_thread_is_told_as_it_is(dlq, attempt, task):
    await attempt(dlq, task, lambda _: next(iter(())))
    assert (await dlq.get(task.id)).failure.error_type == "StopIteration"


async def test_what_keeps_failing_is_dead_once_its_retries_are_used_up(make_queue, processor, clock):
    dlq = make_queue(retry=Schedule([5, 30], jitter=0))
    task = Task(type="t", payload={"n": 1})

    def body(_):
        raise ValueError("no")

    dlq.processor("t")(processor(body))
    await dlq.enqueue(task)
    for wait in (0, 5, 30):
        clock.advance(wait)
        await dlq.worker().run_until_idle()
    record = await dlq.get(task.id)
    assert (record.state, record.reason, record.attempts) == (State.DEAD, Reason.RETRIES_EXHAUSTED, 3)
    assert [failure.attempt for failure in record.history] == [1, 2, 3]
    assert record.died_at == record.failure.at
    assert record.expires_at - record.died_at == timedelta(days=7)
    assert (await dlq.stats()).lifetime["failures"] == 3


async def test_the_last_delay_repeats_where_the_task_asks_for_more(make_queue, clock):
    dlq = make_queue(retry=Schedule([5], jitter=0))
    task_id = await dlq.enqueue(Task(type="t", max_retries=2))
    for expected in (5, 5):
        assert await dlq.process_task(task_id, _raise) is False
        record = await dlq.get(task_id)
        assert (record.due_at - record.failure.at).total_seconds() == expected
    assert await dlq.process_task(task_id, _raise) is False
    assert (await dlq.get(task_id)).reason is Reason.RETRIES_EXHAUSTED


def _raise(_: Task) -> None:
    raise ValueError("no")


async def test_no_retries_means_dead_at_once(dlq, attempt, processor):
    task = Task(type="t", max_retries=0)
    await attempt(dlq, task, processor(_raise))
    assert (await dlq.get(task.id)).reason is Reason.RETRIES_EXHAUSTED


async def test_false_is_a_permanent_failure(dlq, attempt, processor, task):
    assert await attempt(dlq, task, processor(lambda _: False)) in (False, None)
    record = await dlq.get(task.id)
    assert (record.state, record.reason, record.attempts) == (State.DEAD, Reason.REJECTED, 1)
    assert "returned False" in record.failure.message


async def test_a_permanent_error_is_dead_at_once(dlq, attempt, processor, task):
    def body(_):
        raise PermanentError("no such user")

    assert await attempt(dlq, task, processor(body)) in (False, None)
    record = await dlq.get(task.id)
    assert (record.state, record.reason) == (State.DEAD, Reason.PERMANENT)
    assert record.failure.message == "no such user"


async def test_retry_after_says_when(dlq, attempt, processor, task):
    def body(_):
        raise RetryAfter(timedelta(seconds=33), "busy")

    assert await attempt(dlq, task, processor(body)) in (False, None)
    record = await dlq.get(task.id)
    assert (record.state, record.attempts, record.failure.message) == (State.PENDING, 1, "busy")
    assert (record.due_at - record.failure.at).total_seconds() == 33


async def test_retry_after_keeps_the_limit(dlq, attempt, processor):
    def body(_):
        raise RetryAfter(33)

    task = Task(type="t", max_retries=0)
    await attempt(dlq, task, processor(body))
    assert (await dlq.get(task.id)).reason is Reason.RETRIES_EXHAUSTED


async def test_postpone_consumes_nothing_and_is_counted(dlq, attempt, processor, task, clock):
    def body(_):
        raise Postpone(30, "not yet")

    assert await attempt(dlq, task, processor(body)) in (False, None)
    record = await dlq.get(task.id)
    assert (record.state, record.attempts, record.postpones, record.failure) == (State.PENDING, 0, 1, None)
    assert (record.due_at - record.created_at).total_seconds() == 30
    assert (await dlq.stats()).lifetime["postponed"] == 1


async def test_discard_leaves_a_tombstone_and_frees_the_key(dlq, attempt, processor):
    def body(_):
        raise Discard("obsolete")

    task = Task(type="t", payload={"n": 1}, idempotency_key="k")
    assert await attempt(dlq, task, processor(body)) in (False, None)
    with pytest.raises(TaskNotFound):
        await dlq.get(task.id)
    assert await dlq.enqueue(task) == task.id
    stats = await dlq.stats()
    assert sum(stats.by_state.values()) == 0, "repeating the same enqueue stores nothing"
    assert stats.lifetime["discarded"] == 1
    other = Task(type="t", payload={"n": 2}, idempotency_key="k")
    assert await dlq.enqueue(other) == other.id, "the key is free at once"
    with pytest.raises(TaskNotFound):
        await dlq.process_task(task.id, body)


async def test_a_tombstone_ends_with_keep_finished(dlq, processor, clock):
    def body(_):
        raise Discard("obsolete")

    task = Task(type="t")
    await dlq.process_task(await dlq.enqueue(task), body)
    clock.advance(3600)
    await dlq.enqueue(task)
    assert (await dlq.get(task.id)).state is State.PENDING


async def test_shutdown_releases_at_once_and_consumes_nothing(dlq, working, until):
    started = []

    @dlq.processor("t")
    async def forever(task):
        started.append(task.id)
        await anyio.sleep_forever()

    task_id = await dlq.enqueue(Task(type="t"))
    async with working(dlq, shutdown_grace=0):
        await until(lambda: started)
    record = await dlq.get(task_id)
    assert (record.state, record.attempts, record.failure, record.lease_losses) == (State.PENDING, 0, None, 0)


async def test_a_cancelled_worker_releases_too(dlq, until):
    started = []

    @dlq.processor("t")
    async def forever(task):
        started.append(task.id)
        await anyio.sleep_forever()

    task_id = await dlq.enqueue(Task(type="t"))
    async with anyio.create_task_group() as group:
        group.start_soon(dlq.worker(shutdown_grace=0).run)
        await until(lambda: started)
        group.cancel_scope.cancel()
    assert (await dlq.get(task_id)).state is State.PENDING


async def test_an_attempt_that_ends_within_the_grace_counts(dlq, working, until):
    release = anyio.Event()
    started = []

    @dlq.processor("t")
    async def slow(task):
        started.append(task.id)
        await release.wait()

    task_id = await dlq.enqueue(Task(type="t"))
    async with working(dlq) as worker:
        await until(lambda: started)
        worker.stop()
        release.set()
    assert (await dlq.get(task_id)).state is State.SUCCEEDED


async def test_a_timeout_is_a_failure_like_any_other(dlq, attempt, task):
    async def forever(_):
        await anyio.sleep_forever()

    slow = Task(type="t", timeout=0.1)
    assert await attempt(dlq, slow, forever) in (False, None)
    record = await dlq.get(slow.id)
    assert (record.state, record.attempts) == (State.PENDING, 1)
    assert record.failure.error_type == "TimeoutError"
    assert "timeout of 0.1 s" in record.failure.message


async def test_the_processor_may_have_the_timeout(dlq, attempt, task):
    @dlq.processor("t", timeout=0.1)
    async def forever(_):
        await anyio.sleep_forever()

    assert await attempt(dlq, task, forever) in (False, None)
    assert (await dlq.get(task.id)).failure.error_type == "TimeoutError"


async def test_a_thread_outlives_its_timeout(dlq, until, clock):
    """The failure is recorded at once, and the next attempt waits until the thread has ended."""
    release = threading.Event()
    task_id = await dlq.enqueue(Task(type="t", timeout=0.1))
    try:
        assert await dlq.process_task(task_id, lambda _: release.wait(10)) is False
        record = await dlq.get(task_id)
        assert (record.state, record.attempts) == (State.RUNNING, 1)
        assert record.failure.error_type == "TimeoutError"
    finally:
        release.set()

    async def pending():
        return (await dlq.get(task_id)).state is State.PENDING

    await until(pending)
    record = await dlq.get(task_id)
    assert (record.attempts, record.lease_losses) == (1, 0)
    assert 4.5 <= (record.due_at - record.failure.at).total_seconds() <= 5.5
    assert await dlq.process_task(task_id, lambda _: None) is True


async def test_a_thread_that_outlives_its_timeout_keeps_its_slot(dlq, working, until, clock):
    release = threading.Event()
    ran = []
    dlq.processor("slow", timeout=0.1)(lambda _: release.wait(10))
    dlq.processor("quick")(lambda task: ran.append(task.id))
    slow = await dlq.enqueue(Task(type="slow"))
    try:
        async with working(dlq, concurrency=1) as worker:

            async def failed():
                return (await dlq.get(slow)).attempts == 1

            await until(failed)
            quick = await dlq.enqueue(Task(type="quick"))
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert (worker.running, ran) == (1, [])
            release.set()
            await until(lambda: ran == [quick])
    finally:
        release.set()


async def test_shutdown_does_not_wait_for_a_thread_that_cannot_be_stopped(dlq, working, until, clock):
    release, started = threading.Event(), threading.Event()

    def stuck(_):
        started.set()
        release.wait(10)

    dlq.processor("t")(stuck)
    task_id = await dlq.enqueue(Task(type="t"))
    try:
        async with working(dlq, shutdown_grace=0):
            await until(started.is_set)
        record = await dlq.get(task_id)
        assert (record.state, record.attempts) == (State.RUNNING, 0), "nobody may start beside the thread"
    finally:
        release.set()

    async def pending():
        return (await dlq.get(task_id)).state is State.PENDING

    await until(pending)
    assert (await dlq.get(task_id)).lease_losses == 0


async def test_an_attempt_without_a_timeout_ends_at_max_runtime(make_queue, attempt, until, clock):
    dlq = make_queue(max_runtime=100)

    async def slow(_):
        for _ in range(3):  # the keeper's ticks, of virtual time
            await until(lambda: clock.sleepers)
            clock.advance(50)
        await anyio.sleep_forever()

    task = Task(type="t")
    await attempt(dlq, task, slow)
    record = await dlq.get(task.id)
    assert (record.state, record.attempts) == (State.PENDING, 1)
    assert "max_runtime of 100 s" in record.failure.message


async def test_max_runtime_is_for_attempts_without_a_timeout(make_queue, attempt, until, clock):
    dlq = make_queue(max_runtime=100)

    async def slow(_):
        for _ in range(5):
            await until(lambda: clock.sleepers)
            clock.advance(50)
            await anyio.sleep(0.005)
        return True

    task = Task(type="t", timeout=1000)
    await attempt(dlq, task, slow)
    assert (await dlq.get(task.id)).state is State.SUCCEEDED


async def test_what_vanished_with_its_worker_is_tried_again(dlq, claim_elsewhere, clock):
    task_id = await dlq.enqueue(Task(type="t"))
    await claim_elsewhere(dlq, task_id)
    clock.advance(60)
    assert await dlq.sweep() == 1
    record = await dlq.get(task_id)
    assert (record.state, record.attempts, record.lease_losses) == (State.PENDING, 0, 1)


@pytest.mark.parametrize("where", ["task", "queue"])
async def test_or_dead_where_its_effect_is_uncertain(make_queue, claim_elsewhere, clock, where):
    dlq = make_queue(on_uncertain="dead") if where == "queue" else make_queue()
    task_id = await dlq.enqueue(Task(type="t", on_uncertain="dead" if where == "task" else None))
    await claim_elsewhere(dlq, task_id)
    clock.advance(60)
    await dlq.sweep()
    record = await dlq.get(task_id)
    assert (record.state, record.reason, record.lease_losses) == (State.DEAD, Reason.UNCERTAIN, 1)
    assert "elsewhere" in record.failure.message


async def test_what_was_claimed_and_not_started_loses_nothing(dlq, claim_elsewhere, clock):
    task_id = await dlq.enqueue(Task(type="t", on_uncertain="dead"))
    await claim_elsewhere(dlq, task_id, started=False)
    clock.advance(60)
    await dlq.sweep()
    record = await dlq.get(task_id)
    assert (record.state, record.lease_losses) == (State.PENDING, 0)


async def test_only_a_loss_while_alone_makes_it_dead(dlq, claim_elsewhere, clock):
    task_id = await dlq.enqueue(Task(type="t"))
    for _ in range(4):
        await claim_elsewhere(dlq, task_id)
        clock.advance(60)
        await dlq.sweep()
    assert (await dlq.get(task_id)).state is State.PENDING
    await claim_elsewhere(dlq, task_id, alone=True)
    clock.advance(60)
    await dlq.sweep()
    record = await dlq.get(task_id)
    assert (record.state, record.reason, record.lease_losses) == (State.DEAD, Reason.WORKER_LOST, 5)


async def test_a_processor_sees_its_attempt(make_queue, processor, clock):
    dlq = make_queue(retry=Schedule([0, 0], jitter=0))
    seen = []

    def body(task):
        here = current_attempt()
        seen.append((here.task.id, here.number, here.max_attempts, here.last_failure and here.last_failure.message))
        assert here.lease_expires_at.timestamp() * 1000 == pytest.approx(clock.now_ms() + 60_000)
        raise ValueError(f"failure {here.number}")

    task_id = await dlq.enqueue(Task(type="t"))
    for _ in range(3):
        await dlq.process_task(task_id, processor(body))
    assert seen == [(task_id, 1, 3, None), (task_id, 2, 3, "failure 1"), (task_id, 3, 3, "failure 2")]


async def test_a_thread_that_never_started_is_waited_for_by_nobody(make_queue, clock):
    """Cancelled while all threads were taken: nothing runs, so the next attempt need not wait."""

    calls = []

    class Full(Threads):
        async def run(self, call, limiter):
            calls.append(call)
            await anyio.sleep_forever()

    dlq = make_queue(threads=Full())
    ran = []
    task_id = await dlq.enqueue(Task(type="t", timeout=0.1))
    assert await dlq.process_task(task_id, ran.append) is False
    record = await dlq.get(task_id)
    assert (record.state, record.attempts) == (State.PENDING, 1)
    calls[0]()
    assert ran == [], "a thread that takes it up too late finds nothing to do"
