from __future__ import annotations

import anyio
import attrs
import pytest

from deadletter import BackendUnavailable, DeadLetterQueue, Reason, State, Task
from deadletter.engine.presence import reserved
from deadletter.engine.sweeper import sweep_until_cancelled, tidy_until_cancelled
from deadletter.model.row import Claim, Hint
from deadletter.rules import changes

pytestmark = pytest.mark.anyio


async def test_it_says_how_many_rows_it_dealt_with(dlq, claim_elsewhere, clock):
    ids = await dlq.enqueue_many([Task(type="t", expires_in=5), Task(type="t"), Task(type="t")])
    await claim_elsewhere(dlq, ids[1], lease=10)
    assert await dlq.sweep() == 0
    clock.advance(10)
    assert await dlq.sweep() == 2
    assert [(await dlq.get(id_)).state for id_ in ids] == ["dead", "pending", "pending"]
    assert await dlq.sweep() == 0


async def test_a_body_that_cannot_be_read_follows_the_queue(make_queue, claim_elsewhere, clock, kill):
    dlq = make_queue(on_uncertain="dead")
    (task_id,) = await kill(dlq, Task(type="t", on_uncertain="retry"))
    await dlq.apply([changes.replay(await dlq.row(task_id), "op", body=b"\xff")])
    await claim_elsewhere(dlq, task_id)
    clock.advance(60)
    assert await dlq.sweep() == 1
    assert (await dlq.get(task_id)).reason is Reason.UNCERTAIN


async def test_more_than_a_batch_is_swept_in_one_go(dlq, clock):
    await dlq.enqueue_many([Task(type="t") for _ in range(250)])
    for n in range(3):
        wish = Claim(op=f"op{n}", limit=100, types=["t"], lease_ms=1000, owner="elsewhere")
        await dlq.backend.claim(dlq.name, wish)
    clock.advance(1)
    async with anyio.create_task_group() as group:
        group.start_soon(sweep_until_cancelled, dlq)
        with anyio.fail_after(10):
            while not clock.sleepers:
                await anyio.sleep(0.001)
        assert (await dlq.stats()).by_state == {"pending": 250, "running": 0, "succeeded": 0, "dead": 0}
        group.cancel_scope.cancel()


async def test_a_store_that_is_away_does_not_end_it(
    dlq, backend, claim_elsewhere, clock, pass_until, monkeypatch, caplog
):
    task_id = await dlq.enqueue(Task(type="t"))
    await claim_elsewhere(dlq, task_id)
    sweep, failed = backend.sweep, []

    async def once(queue, limit):
        if not failed:
            failed.append(queue)
            raise BackendUnavailable("away")
        return await sweep(queue, limit)

    monkeypatch.setattr(backend, "sweep", once)
    clock.advance(60)
    async with anyio.create_task_group() as group:
        group.start_soon(sweep_until_cancelled, dlq)

        async def back():
            return (await dlq.get(task_id)).state is State.PENDING

        await pass_until(back, pause=0.005)
        group.cancel_scope.cancel()
    assert "cannot sweep" in caplog.text
    assert clock.monotonic() <= 62, "within its lease and a second, the failure included"


async def test_a_guard_that_nobody_ended_is_tidied_away(dlq: DeadLetterQueue, clock, pass_until):
    begun = await dlq.idempotency.begin("k", "d", 10)
    assert begun.word == "started"
    async with anyio.create_task_group() as group:
        group.start_soon(tidy_until_cancelled, dlq)

        async def free():
            counts = await dlq.backend.counts(reserved("effects", dlq.name))
            return not sum(counts.tally.values())

        await pass_until(free, step=5)
        group.cancel_scope.cancel()


async def test_letters_that_age_out_are_told_and_wake_nobody(dlq, backend, clock, kill):
    """The event comes by itself: a hint would send every worker to look for work that is not there."""
    await kill(dlq, Task(type="t"), Task(type="t"))
    clock.advance(7 * 24 * 3600)
    with anyio.fail_after(10):
        async with backend.listen(dlq.name) as signals:
            await dlq.sweep()
            told = await anext(signals)
            assert (told.kind, told.count, told.task_id) == ("purged", 2, None)
            await dlq.enqueue(Task(type="t"))
            assert isinstance(await anext(signals), Hint)


async def test_as_many_are_forgotten_as_were_ended_and_a_batch_more(dlq, clock, until):
    """Rows of a worker that ends more than a hundred tasks a second would pile up otherwise."""
    for _ in range(7):
        rows = [attrs.evolve(dlq.new_row(Task(type="t")), state="dead", keep_ms=5) for _ in range(100)]
        await dlq.backend.insert(dlq.name, rows)
    clock.advance(1)
    ended, left = 350, []
    async with anyio.create_task_group() as group:
        group.start_soon(sweep_until_cancelled, dlq, lambda: ended)
        for _ in range(3):
            await until(lambda: clock.sleepers)
            left.append((await dlq.stats()).by_state["dead"])
            clock.advance(1)
        group.cancel_scope.cancel()
    assert left == [200, 100, 0]


async def test_a_worker_tells_its_sweeper_how_many_it_ended(
    dlq, backend, working, until, pass_until, clock, monkeypatch
):
    dlq.processor("t")(lambda task: task.payload["ok"])
    await dlq.enqueue_many([Task(type="t", payload={"ok": n % 2 == 0}) for n in range(250)])
    sweep, sweeps = backend.sweep, []

    async def counted(queue, limit):
        sweeps.append(queue)
        return await sweep(queue, limit)

    async with working(dlq):

        async def done():
            return (await dlq.stats()).by_state["pending"] == (await dlq.stats()).by_state["running"] == 0

        await until(done)
        monkeypatch.setattr(backend, "sweep", counted)
        await pass_until(lambda: sweeps.count(dlq.name) >= 4, step=1, pause=0.005)
        assert clock.monotonic() <= 2
