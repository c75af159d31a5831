"""Two suspects never run beside each other in one process, nor beside anybody whom one might take along."""

from __future__ import annotations

import anyio
import pytest

from deadletter import Task
from deadletter.engine.sweeper import sweep

pytestmark = pytest.mark.anyio


@pytest.fixture
def suspect(claim_elsewhere, clock):
    """Store a task whose workers have vanished twice."""

    async def make(dlq, **fields):
        task_id = await dlq.enqueue(Task(type="t", **fields))
        for _ in range(2):
            await claim_elsewhere(dlq, task_id, lease=1)
            clock.advance(2)
            await sweep(dlq)
        return task_id

    return make


class Watch:
    """Who runs, and whether he is marked as alone."""

    def __init__(self, dlq):
        self.dlq = dlq
        self.inside = []
        self.seen = []
        self.go = {}

    async def __call__(self, task):
        self.inside.append(task.id)
        company = len(self.inside)
        row = await self.dlq.row(task.id)
        self.seen.append((task.id, row.alone, company))
        await self.go.setdefault(task.id, anyio.Event()).wait()
        self.inside.remove(task.id)

    def end(self, task_id):
        self.go.setdefault(task_id, anyio.Event()).set()


@pytest.fixture
def watch(dlq):
    return Watch(dlq)


async def test_of_two_suspects_one_runs_and_is_alone(dlq, suspect, watch, until):
    a, b = await suspect(dlq), await suspect(dlq)
    async with anyio.create_task_group() as group:
        group.start_soon(dlq.process_task, a, watch)
        group.start_soon(dlq.process_task, b, watch)
        await until(lambda: watch.seen)
        await anyio.wait_all_tasks_blocked()
        assert len(watch.inside) == 1
        first = watch.inside[0]
        watch.end(first)
        await until(lambda: len(watch.seen) == 2)
        watch.end(watch.inside[0])
    assert sorted(watch.seen) == sorted([(a, True, 1), (b, True, 1)])


async def test_innocents_wait_for_nobody_and_are_not_judged(dlq, watch, until):
    ids = [await dlq.enqueue(Task(type="t")) for _ in range(3)]
    async with anyio.create_task_group() as group:
        for task_id in ids:
            group.start_soon(dlq.process_task, task_id, watch)
        await until(lambda: len(watch.seen) == 3)
        for task_id in ids:
            watch.end(task_id)
    assert {alone for _, alone, _ in watch.seen} == {False}


async def test_a_suspect_in_company_is_not_judged(dlq, suspect, watch, until):
    """It need not wait for who came first: it is not marked, so that another's crash does not make it dead."""
    a, b = await dlq.enqueue(Task(type="t")), await suspect(dlq)
    async with anyio.create_task_group() as group:
        group.start_soon(dlq.process_task, a, watch)
        await until(lambda: watch.inside)
        group.start_soon(dlq.process_task, b, watch)
        await until(lambda: len(watch.seen) == 2)
        watch.end(a)
        watch.end(b)
    assert (b, False, 2) in watch.seen


async def test_what_a_suspect_runs_itself_is_let_in(dlq, suspect, watch, until):
    """Else both would wait for each other."""
    inner = await dlq.enqueue(Task(type="t"))
    watch.end(inner)

    async def outer(_):
        return await dlq.process_task(inner, watch)

    with anyio.fail_after(10):
        assert await dlq.process_task(await suspect(dlq), outer)
    assert watch.seen == [(inner, False, 1)]


async def test_nobody_is_kept_out_for_longer_than_a_lease(dlq, suspect, watch, until, clock, pass_until):
    a, b = await suspect(dlq), await suspect(dlq)
    async with anyio.create_task_group() as group:
        group.start_soon(dlq.process_task, a, watch)
        await until(lambda: watch.inside)
        group.start_soon(dlq.process_task, b, watch)
        await pass_until(lambda: len(watch.seen) == 2, step=5)
        watch.end(a)
        watch.end(b)
    assert watch.seen == [(a, True, 1), (b, False, 2)]


async def test_a_worker_starts_nothing_beside_a_suspect(dlq, suspect, watch, until, working, clock):
    dlq.processor("other")(watch)
    a = await suspect(dlq)
    async with anyio.create_task_group() as group:
        group.start_soon(dlq.process_task, a, watch)
        await until(lambda: watch.inside)
        async with working(dlq):
            b = await dlq.enqueue(Task(type="other"))
            watch.end(b)
            for _ in range(20):
                clock.advance(0.5)
                await anyio.wait_all_tasks_blocked()
            assert watch.inside == [a]
            watch.end(a)
            while len(watch.seen) < 2:
                clock.advance(0.5)
                await anyio.sleep(0.001)
    assert watch.seen[1][0] == b


async def test_a_worker_leaves_a_suspect_until_nobody_is_there(dlq, suspect, watch, until, working, clock):
    dlq.processor("t")(watch)
    a = await dlq.enqueue(Task(type="mine"))
    async with anyio.create_task_group() as group:
        group.start_soon(dlq.process_task, a, watch)
        await until(lambda: watch.inside)
        b = await suspect(dlq)
        watch.end(b)
        async with working(dlq):
            for _ in range(20):
                clock.advance(0.5)
                await anyio.wait_all_tasks_blocked()
            assert watch.inside == [a]
            watch.end(a)
            while len(watch.seen) < 2:
                clock.advance(0.5)
                await anyio.sleep(0.001)
    assert watch.seen[1] == (b, True, 1)
