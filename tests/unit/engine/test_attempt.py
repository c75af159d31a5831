"""The pipe of one attempt, where users' own parts misbehave."""

from __future__ import annotations

import asyncio
import math

import anyio
import pytest

from deadletter import RetryPolicy, State, Task
from deadletter.engine.attempt import begin, decide
from deadletter.engine.registry import Registration
from deadletter.model.outcome import Released

pytestmark = pytest.mark.anyio


def fail(_):
    raise ValueError("no")


class Odd(RetryPolicy):
    """Answers whatever it is told to."""

    def __init__(self, answer=1.0, *, broken=""):
        self.answer, self.broken = answer, broken
        self.observed = []

    @property
    def retries(self):
        if self.broken == "retries":
            raise RuntimeError("no end")

    def delay(self, attempt):
        if self.broken == "delay":
            raise RuntimeError("no delay")
        return self.answer

    def observe(self, now):
        if self.broken == "observe":
            raise RuntimeError("no eyes")
        self.observed.append(now)


@pytest.mark.parametrize(
    "policy",
    [Odd(-1), Odd(math.inf), Odd(math.nan), Odd("soon"), Odd(broken="delay")],
    ids=lambda policy: repr(policy.broken or policy.answer),
)
async def test_a_policy_that_fails_costs_time_and_never_the_task(make_queue, attempt, caplog, policy):
    dlq = make_queue(retry=policy)
    task = Task(type="t")
    await attempt(dlq, task, fail)
    record = await dlq.get(task.id)
    assert record.state is State.PENDING
    assert (record.due_at - record.failure.at).total_seconds() == 300
    assert "retry policy" in caplog.text


@pytest.mark.parametrize("broken", ["observe", "retries"])
async def test_a_policy_that_fails_at_the_start_disturbs_no_attempt(make_queue, attempt, caplog, broken):
    dlq = make_queue(retry=Odd(broken=broken))
    task = Task(type="t")
    await attempt(dlq, task, lambda _: None)
    assert (await dlq.get(task.id)).state is State.SUCCEEDED
    assert "retry policy" in caplog.text


async def test_a_policy_may_give_up_before_the_limit(make_queue, attempt):
    dlq = make_queue(retry=Odd(None), max_retries=5)
    task = Task(type="t")
    await attempt(dlq, task, fail)
    assert (await dlq.get(task.id)).reason == "retries_exhausted"


async def test_a_policy_observes_first_attempts_only(make_queue, attempt):
    policy = Odd()
    dlq = make_queue(retry=policy)
    task = Task(type="t")
    await attempt(dlq, task, fail)
    await dlq.process_task(task.id, fail)
    assert policy.observed == [0.0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
async def test_an_interrupt_is_no_outcome(dlq, error):
    async def interrupted(_):
        raise error

    task_id = await dlq.enqueue(Task(type="t"))
    with pytest.raises(error):
        await dlq.process_task(task_id, interrupted)
    record = await dlq.get(task_id)
    assert (record.state, record.attempts) == (State.PENDING, 0)


async def test_a_sync_processor_may_answer_with_a_coroutine(dlq, attempt):
    ran = []

    async def body(task):
        await anyio.lowlevel.checkpoint()
        ran.append(task.id)
        return False

    task = Task(type="t")
    await attempt(dlq, task, lambda given: body(given))  # noqa: PLW0108 - so that it is no coroutine function
    assert ran == [task.id]
    assert (await dlq.get(task.id)).reason == "rejected"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_native_cancel_of_the_caller_passes_through(dlq):
    async def slow(_):
        await anyio.sleep_forever()

    task_id = await dlq.enqueue(Task(type="t"))
    running = asyncio.create_task(dlq.process_task(task_id, slow))
    while dlq.keeper.idle:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await dlq.get(task_id)).state is State.PENDING


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_processor_that_cancels_its_own_task_has_failed(dlq):
    async def cancels_itself(_):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    dlq.processor("t")(cancels_itself)
    task_id = await dlq.enqueue(Task(type="t"))
    await dlq.worker().run_until_idle()
    record = await dlq.get(task_id)
    assert (record.state, record.attempts) == (State.PENDING, 1)
    assert record.failure.error_type == "asyncio.exceptions.CancelledError"


async def test_it_is_stopped_once_so_that_cleaning_up_is_not_cut_off(dlq, claim_elsewhere):
    task_id = await dlq.enqueue(Task(type="t"))
    row = await claim_elsewhere(dlq, task_id)
    stops = []
    made = begin(dlq, row, Registration(processor=fail, is_async=False), worker="w", sent=0, now_ms=0)
    made.cancel = lambda: stops.append(made.stopped)
    for why in ("timeout", "lost", "timeout"):
        made.stop(why)
    assert stops == ["timeout"]
    made.stop("shutdown")
    assert stops == ["timeout", "timeout"], "a worker that leaves may insist"
    assert decide(made, Released()).to == "pending"


async def test_a_failure_tells_who_and_how_long(make_queue, clock):
    dlq = make_queue(release="1.4")

    async def slow(_):
        clock.advance(1.5)
        raise ValueError("no")

    dlq.processor("t")(slow)
    task_id = await dlq.enqueue(Task(type="t"))
    await dlq.worker(name="me").run_until_idle()
    failure = (await dlq.get(task_id)).failure
    assert (failure.worker, failure.release, failure.duration) == ("me", "1.4", 1.5)
