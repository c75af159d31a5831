"""Leases live as long as their attempts, and no longer."""

from __future__ import annotations

import logging
import threading
import time

import anyio
import pytest

from deadletter import BackendUnavailable, DeadLetterQueue, State, Task
from deadletter.backends import backend_from_url
from deadletter.engine import keeper as keeper_module

pytestmark = pytest.mark.anyio


@pytest.fixture
async def real(anyio_backend, url):
    """A queue under real time, with leases of 0.6 s."""
    backend = backend_from_url(url)
    async with DeadLetterQueue(backend, lease=0.6) as dlq:
        yield dlq
    await backend.aclose()


@pytest.mark.parametrize("way", ["worker", "process_task"])
async def test_a_processor_that_blocks_its_loop_loses_no_lease(real, way, monkeypatch, caplog):
    """For more than two leases; a sweeper beside it finds nothing that lapsed, and the stack is told."""
    monkeypatch.setattr(keeper_module, "BLOCKED", 0.2)
    over, lapsed = threading.Event(), []

    async def blocking(_):
        time.sleep(1.4)

    async def watch():
        while not over.is_set():
            lapsed.extend(await real.backend.sweep(real.name, 100))
            await anyio.sleep(0.02)

    task_id = await real.enqueue(Task(type="t"))
    watcher = threading.Thread(target=anyio.run, args=(watch,))
    watcher.start()
    try:
        with caplog.at_level(logging.WARNING, "deadletter.keeper"):
            if way == "worker":
                real.processor("t")(blocking)
                await real.worker().run_until_idle()
            else:
                assert await real.process_task(task_id, blocking)
    finally:
        over.set()
        await anyio.to_thread.run_sync(watcher.join)
    assert lapsed == []
    record = await real.get(task_id)
    assert (record.state, record.lease_losses) == (State.SUCCEEDED, 0)
    (told,) = [record for record in caplog.records if "blocked" in record.getMessage()]
    assert "time.sleep(1.4)" in told.getMessage()


@pytest.fixture
def away(backend, monkeypatch):
    """From its first call on, the store applies nothing until told otherwise."""
    apply = backend.apply

    class Away:
        now = False
        refused = 0

    async def maybe(queue, batch):
        if Away.now:
            Away.refused += 1
            raise BackendUnavailable("away")
        return await apply(queue, batch)

    monkeypatch.setattr(backend, "apply", maybe)
    return Away


async def test_leases_are_extended_while_an_attempt_runs(dlq, clock, pass_until):
    leases = set()

    async def slow(task):
        async def look():
            row = await dlq.row(task.id)
            assert row.lease_ms > clock.now_ms()
            leases.add(row.lease_ms)
            return clock.monotonic() > 200

        await pass_until(look, step=1)

    assert await dlq.process_task(await dlq.enqueue(Task(type="t")), slow)
    assert len(leases) >= 9, "about every 20 s"


async def test_a_failed_extension_is_unknown_and_not_lost(dlq, clock, pass_until, away, caplog):
    """The store is away for five leases; the attempt goes on, and its outcome counts while nobody else has the task."""

    async def slow(_):
        away.now = True
        await pass_until(lambda: clock.monotonic() > 300, step=1)
        away.now = False

    task_id = await dlq.enqueue(Task(type="t"))
    assert await dlq.process_task(task_id, slow) is True
    assert away.refused > 10
    assert "cannot extend 1 leases yet" in caplog.text


@pytest.mark.parametrize("way", ["worker", "process_task"])
async def test_a_keyed_attempt_is_stopped_before_its_lease_can_have_ended(dlq, clock, pass_until, away, way):
    """Another may start as soon as it has: with a key, two attempts never overlap."""
    stopped = []

    async def slow(_):
        away.now = True
        try:
            await pass_until(lambda: clock.monotonic() > 300, step=0.1)
        finally:
            stopped.append(clock.monotonic())
            away.now = False

    task_id = await dlq.enqueue(Task(type="t", idempotency_key="k"))
    if way == "worker":
        dlq.processor("t")(slow)
        worker = dlq.worker()
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            await pass_until(lambda: stopped, step=0)
            worker.stop()
    else:
        from deadletter import LeaseLost

        with pytest.raises(LeaseLost):
            await dlq.process_task(task_id, slow)
    assert 40 < stopped[0] < 60.5
    record = await dlq.get(task_id)
    assert (record.state, record.attempts, record.lease_losses) == (State.PENDING, 0, 0)


async def test_a_store_that_hangs_does_not_keep_it_from_the_rest(make_queue, backend, clock, pass_until, monkeypatch):
    """An extension that gets no answer is given up; what runs too long is ended all the same."""
    dlq = make_queue(lease=0.3, max_runtime=5)
    apply, hanging = backend.apply, []

    async def hang(queue, batch):
        if batch[0].to == "running":
            hanging.append(1)
            await anyio.sleep_forever()
        return await apply(queue, batch)

    async def slow(_):
        await pass_until(lambda: False, step=0.25)

    monkeypatch.setattr(backend, "apply", hang)
    task_id = await dlq.enqueue(Task(type="t"))
    await dlq.process_task(task_id, slow)
    assert hanging
    assert "max_runtime" in (await dlq.get(task_id)).failure.message


async def test_a_process_that_was_frozen_extends_at_once(dlq, clock, pass_until):
    async def frozen(task):
        await pass_until(lambda: clock.sleepers, step=0)
        clock.advance(30)

        async def extended():
            return (await dlq.row(task.id)).lease_ms > clock.now_ms() + 50_000

        await pass_until(extended, step=0.2)
        assert clock.monotonic() < 35

    assert await dlq.process_task(await dlq.enqueue(Task(type="t")), frozen)


async def test_what_follows_a_stuck_thread_waits_for_the_store(make_queue, backend, clock, pass_until, away, caplog):
    dlq = make_queue()
    release = threading.Event()
    task_id = await dlq.enqueue(Task(type="t", timeout=0.1))
    try:
        assert await dlq.process_task(task_id, lambda _: release.wait(10)) is False
        away.now = True
        release.set()
        await pass_until(lambda: "cannot give back" in caplog.text, step=0.5)
        away.now = False

        async def pending():
            return (await dlq.get(task_id)).state is State.PENDING

        await pass_until(pending, step=0.5)
    finally:
        release.set()


async def test_the_lease_of_a_stuck_thread_is_kept(dlq, clock, pass_until):
    release = threading.Event()
    task_id = await dlq.enqueue(Task(type="t", timeout=0.1))
    try:
        await dlq.process_task(task_id, lambda _: release.wait(10))
        await pass_until(lambda: clock.monotonic() > 200, step=1)
        assert await dlq.sweep() == 0
        row = await dlq.row(task_id)
        assert (row.state, row.started) == ("running", False), "should its process die now, that is no loss"
        assert row.lease_ms > clock.now_ms()
    finally:
        release.set()


async def test_a_keeper_that_failed_starts_again_with_the_next_attempt(dlq, until, pass_until, monkeypatch, caplog):
    failed = []

    def broken(now):
        failed.append(threading.current_thread())
        raise RuntimeError("broken")

    async def outlast_it(_):
        await pass_until(lambda: failed and dlq.keeper._thread is None)

    async def find_it(_):
        await until(lambda: dlq.keeper._thread is not None)
        assert dlq.keeper._thread.is_alive()
        assert dlq.keeper._thread is not failed[0]

    monkeypatch.setattr(dlq.keeper, "_watch_loops", broken)
    assert await dlq.process_task(await dlq.enqueue(Task(type="t")), outlast_it)
    assert "lease keeper of queue 'default' failed" in caplog.text
    monkeypatch.undo()
    assert await dlq.process_task(await dlq.enqueue(Task(type="t")), find_it)


async def test_after_a_fork_the_parents_attempts_are_not_ours(dlq):
    async def fork(_):
        assert not dlq.keeper.idle
        dlq.keeper.after_fork()
        assert dlq.keeper.idle

    thread = []
    await dlq.process_task(await dlq.enqueue(Task(type="t")), lambda _: thread.append(dlq.keeper._thread))
    await dlq.aclose()
    await dlq.process_task(await dlq.enqueue(Task(type="t")), fork)


def test_an_attempt_whose_loop_is_closed_is_forgotten(anyio_backend):
    """Its loop ended in the middle of it: nobody is left to be told."""
    dlq = DeadLetterQueue("memory://")

    class Row:
        token, key, id = "token", None, "a"

    class Attempt:
        row, deadline, lease_until, loop_thread = Row, 0.0, 0.0, 1

        def stop(self, why):
            raise AssertionError

        def reach(self, *_):
            raise RuntimeError("Event loop is closed")

    dlq.keeper._kept["token"] = Attempt()
    dlq.keeper._watch_loops(1.0)
    assert dlq.keeper._pulses == {}
    dlq.keeper._end_overlong(1.0)
    assert dlq.keeper.idle


async def test_a_keeper_that_comes_up_late_gives_back_what_was_held_before(dlq, working, until, monkeypatch):
    """The thread had ended and all was settled before there was a bell to ring: nobody rings again."""
    start_thread, may_start = keeper_module.start_thread, threading.Event()
    monkeypatch.setattr(
        keeper_module, "start_thread", lambda name, run: start_thread(name, lambda: may_start.wait(10) and run())
    )
    release, started = threading.Event(), threading.Event()

    def stuck(_):
        started.set()
        release.wait(10)

    dlq.processor("t")(stuck)
    task_id = await dlq.enqueue(Task(type="t"))
    async with working(dlq, shutdown_grace=0):
        await until(started.is_set)
    (held,) = dlq.keeper._held.values()
    release.set()
    await until(lambda: not held.attempt.in_thread)
    assert (await dlq.get(task_id)).state is State.RUNNING
    may_start.set()

    async def pending():
        return (await dlq.get(task_id)).state is State.PENDING

    await until(pending)
