from __future__ import annotations

import anyio
import pytest

from deadletter import LeaseLost, State, Task, current_attempt
from deadletter.rules import changes

pytestmark = pytest.mark.anyio


def test_outside_of_an_attempt_there_is_none():
    with pytest.raises(LookupError, match="inside a processor"):
        current_attempt()


async def test_it_ends_with_the_attempt(dlq):
    seen = []
    await dlq.process_task(await dlq.enqueue(Task(type="t")), lambda _: seen.append(current_attempt()))
    assert len(seen) == 1
    with pytest.raises(LookupError):
        current_attempt()


async def test_max_attempts_is_none_where_only_the_policy_ends_them(make_queue):
    from deadletter.retry import Exponential, RetryFor

    dlq = make_queue(retry=RetryFor(Exponential(), 3600))
    seen = []
    await dlq.process_task(await dlq.enqueue(Task(type="t")), lambda _: seen.append(current_attempt().max_attempts))
    await dlq.process_task(
        await dlq.enqueue(Task(type="t", max_retries=0)), lambda _: seen.append(current_attempt().max_attempts)
    )
    assert seen == [None, 1]


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_extend_moves_the_lease_and_the_end(make_queue, clock, kind):
    dlq = make_queue(max_runtime=100)
    seen = []

    async def look(task):
        here = current_attempt()
        before = here.lease_expires_at
        await here.extend(600)
        seen.append((here.lease_expires_at - before).total_seconds())
        seen.append((await dlq.row(task.id)).lease_ms - clock.now_ms())

    def look_from_thread(task):
        anyio.from_thread.run(look, task)

    assert await dlq.process_task(await dlq.enqueue(Task(type="t")), look if kind == "async" else look_from_thread)
    assert seen == [540, 600_000]


async def test_extend_outlasts_max_runtime(make_queue, clock, until):
    dlq = make_queue(max_runtime=100)

    async def slow(_):
        await current_attempt().extend(60)
        for _ in range(3):
            await until(lambda: clock.sleepers)
            clock.advance(50)
            await anyio.sleep(0.005)
        await until(lambda: clock.sleepers)
        clock.advance(50)
        await anyio.sleep_forever()

    task_id = await dlq.enqueue(Task(type="t"))
    await dlq.process_task(task_id, slow)
    record = await dlq.get(task_id)
    assert record.failure.duration == pytest.approx(200, abs=1), "not after 100 s, and not for ever"


async def test_extend_never_shortens_a_lease(dlq, clock):
    async def look(task):
        await current_attempt().extend(1)
        assert (await dlq.row(task.id)).lease_ms == clock.now_ms() + 60_000

    assert await dlq.process_task(await dlq.enqueue(Task(type="t")), look)


async def test_extend_tells_where_it_is_too_late(dlq):
    told = []

    async def look(task):
        await dlq.apply([changes.release(await dlq.row(task.id), "stolen")])
        with pytest.raises(LeaseLost) as caught:
            await current_attempt().extend(60)
        told.append(caught.value.task_id)

    task_id = await dlq.enqueue(Task(type="t"))
    with pytest.raises(LeaseLost):
        await dlq.process_task(task_id, look)
    assert told == [task_id]
    assert (await dlq.get(task_id)).state is State.PENDING
