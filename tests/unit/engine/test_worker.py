"""A worker: what it takes, in which order, how it sleeps, and how it leaves."""

from __future__ import annotations

import threading
from collections import Counter
from contextvars import ContextVar

import anyio
import pytest

from deadletter import BackendUnavailable, DeadLetterError, InvalidTask, Reason, State, Task
from deadletter.engine import worker as worker_module
from deadletter.model.row import FORMAT
from deadletter.rules import changes
from deadletter.runtime.threads import InlineThreads

pytestmark = pytest.mark.anyio


# What it takes, and when


async def test_high_goes_before_normal_before_low(dlq):
    ran = []
    dlq.processor("t")(lambda task: ran.append(task.id))
    await dlq.enqueue_many([Task(type="t", id=f"{p}{n}", priority=p) for p in ("low", "normal", "high") for n in "12"])
    await dlq.worker(concurrency=1).run_until_idle()
    assert ran == ["high1", "high2", "normal1", "normal2", "low1", "low2"]


async def test_low_is_never_starved(dlq):
    """However much of high there always is."""
    ran = []

    @dlq.processor("t")
    async def note(task):
        ran.append(task.priority)
        if task.priority == "high" and len(ran) < 60:
            await dlq.enqueue(Task(type="t", priority="high"))

    await dlq.enqueue_many([Task(type="t", priority=p) for p in ["high"] * 5 + ["low"] * 2])
    await dlq.worker(concurrency=1).run_until_idle()
    first, second = [at for at, priority in enumerate(ran) if priority == "low"]
    assert first <= 10
    assert second <= 20


async def test_concurrency_bounds_both_kinds_together(dlq):
    lock, now, most = threading.Lock(), [0], [0]
    gate = threading.Event()

    def enter(n):
        with lock:
            now[0] += n
            most[0] = max(most[0], now[0])

    @dlq.processor("async")
    async def coroutine(_):
        enter(1)
        await anyio.sleep(0.002)
        enter(-1)

    @dlq.processor("sync")
    def thread(_):
        enter(1)
        gate.wait(0.002)
        enter(-1)

    await dlq.enqueue_many([Task(type=kind) for _ in range(12) for kind in ("async", "sync")])
    await dlq.worker(concurrency=4).run_until_idle()
    assert 2 <= most[0] <= 4
    assert (await dlq.stats()).by_state["succeeded"] == 24


async def test_a_type_may_have_a_limit_of_its_own(dlq):
    now, most = Counter(), Counter()

    async def note(task):
        now[task.type] += 1
        most[task.type] = max(most[task.type], now[task.type])
        await anyio.sleep(0.002)
        now[task.type] -= 1

    dlq.processor("narrow", concurrency=2)(note)
    dlq.processor("wide")(note)
    await dlq.enqueue_many([Task(type=kind) for _ in range(10) for kind in ("narrow", "wide")])
    await dlq.worker(concurrency=8).run_until_idle()
    assert most["narrow"] == 2
    assert most["wide"] >= 6
    assert (await dlq.stats()).by_state["succeeded"] == 20


async def test_a_limit_of_its_own_does_not_jump_the_queue(dlq):
    ran = []

    async def note(task):
        ran.append(task.id)

    dlq.processor("narrow", concurrency=5)(note)
    dlq.processor("wide")(note)
    low = [Task(type="narrow", id=f"low{n}", priority="low") for n in range(3)]
    high = [Task(type="wide", id=f"high{n}", priority="high") for n in range(3)]
    await dlq.enqueue_many(low + high)
    await dlq.worker(concurrency=1).run_until_idle()
    assert ran == ["high0", "high1", "high2", "low0", "low1", "low2"]


async def test_what_ends_while_it_looks_for_more_is_not_idle(dlq, backend, monkeypatch, until):
    """The last attempt ends, and is due again, just when a claim has found nothing."""
    claim, runs, gate = backend.claim, [], anyio.Event()

    async def slow(queue, wish):
        claimed = await claim(queue, wish)
        if not claimed.rows:
            monkeypatch.undo()
            gate.set()

            async def due_again():
                row = await dlq.row(task_id)
                return (row.state, row.attempts) == ("pending", 1)

            await until(due_again)
        return claimed

    @dlq.processor("t", retry=[0])
    async def fail_once(_):
        runs.append(1)
        if len(runs) == 1:
            await gate.wait()
            raise ValueError("no")

    monkeypatch.setattr(backend, "claim", slow)
    task_id = await dlq.enqueue(Task(type="t"))
    await dlq.worker().run_until_idle()
    assert (await dlq.get(task_id)).state is State.SUCCEEDED


async def test_an_unknown_type_is_left_and_hides_nobody(dlq):
    ran = []
    dlq.processor("known")(lambda task: ran.append(task.id))
    unknown = await dlq.enqueue_many([Task(type="unknown", priority="high") for _ in range(150)])
    known = await dlq.enqueue(Task(type="known", priority="low"))
    await dlq.worker().run_until_idle()
    assert ran == [known]
    assert {(await dlq.get(id_)).state for id_ in unknown[:5]} == {State.PENDING}


async def test_types_narrow_what_it_takes(dlq):
    ran = []
    for kind in ("mail.a", "mail.b", "sms"):
        dlq.processor(kind)(lambda task: ran.append(task.type))
    await dlq.enqueue_many([Task(type=kind) for kind in ("mail.a", "mail.b", "sms")])
    worker = dlq.worker(types=["mail.*"])
    assert worker.types == ["mail.a", "mail.b"]
    await worker.run_until_idle()
    assert sorted(ran) == ["mail.a", "mail.b"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 2.5}, "concurrency"),
        ({"batch": 0}, "batch"),
        ({"batch": 101}, "batch"),
        ({"types": "mail"}, "types"),
        ({"shutdown_grace": -1}, "shutdown_grace"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
async def test_a_bad_option_is_named(dlq, options, field):
    with pytest.raises(InvalidTask, match=field):
        dlq.worker(**options)


async def test_two_workers_never_share_a_task(make_queue):
    ran = Counter()
    queues = [make_queue(), make_queue()]
    for dlq in queues:

        @dlq.processor("t")
        async def note(task):
            ran[task.id] += 1
            await anyio.lowlevel.checkpoint()

    ids = await queues[0].enqueue_many([Task(type="t") for _ in range(120)])
    async with anyio.create_task_group() as group:
        for dlq in queues:
            group.start_soon(dlq.worker(concurrency=5).run_until_idle)
    assert ran == Counter(ids)


# How it sleeps

IDLE = (
    5  # who sleeps in an idle worker: the feeder, the sweeper, who tidies, its sign of life, its look at what is paused
)


async def test_an_idle_worker_wakes_at_once_on_new_work(dlq, working, until, clock):
    ran = []
    dlq.processor("t")(lambda task: ran.append(task.id))
    async with working(dlq):
        for _ in range(3):
            await until(lambda: clock.sleepers >= IDLE)
            task_id = await dlq.enqueue(Task(type="t"))
            await until(lambda: task_id in ran)  # noqa: B023 - awaited here
    assert clock.monotonic() == 0, "no time had to pass"


async def test_and_at_the_next_due_time(dlq, working, until, clock):
    ran = []
    dlq.processor("t")(lambda task: ran.append(clock.monotonic()))
    await dlq.enqueue(Task(type="t", delay=2.5))
    async with working(dlq):
        await until(lambda: clock.sleepers >= IDLE)
        clock.advance(2.49)
        await until(lambda: clock.sleepers >= IDLE)
        assert ran == []
        clock.advance(0.01)
        await until(lambda: ran)
    assert ran == [2.5]


async def test_an_idle_worker_does_not_poll(dlq, backend, working, until, clock, monkeypatch):
    claim, claims = backend.claim, []

    async def count(queue, wish):
        claims.append(clock.monotonic())
        return await claim(queue, wish)

    monkeypatch.setattr(backend, "claim", count)
    dlq.processor("t")(print)
    async with working(dlq):
        await until(lambda: claims)
        for _ in range(60):
            await until(lambda: clock.sleepers >= IDLE)
            clock.advance(1)
    assert len(claims) <= 14, "a hint may be lost, so that it looks every five seconds"


async def test_a_registration_while_it_runs_is_taken_up_at_once(dlq, working, until, clock):
    ran = []
    await dlq.enqueue(Task(type="late"))
    async with working(dlq):
        await until(lambda: clock.sleepers >= IDLE)
        dlq.processor("late")(lambda task: ran.append(task.id))
        await until(lambda: ran)


async def test_rows_of_a_newer_version_are_left_without_a_busy_loop(dlq, backend, working, until, clock, monkeypatch):
    task_id = await dlq.enqueue(Task(type="t"))
    for module in ("rules.machine", "backends.sqlite.step"):
        monkeypatch.setattr(f"deadletter.{module}.FORMAT", FORMAT - 1)
    claim, claims = backend.claim, []

    async def count(queue, wish):
        claims.append(wish)
        return await claim(queue, wish)

    monkeypatch.setattr(backend, "claim", count)
    dlq.processor("t")(print)
    with anyio.fail_after(5):
        await dlq.worker().run_until_idle()
    async with working(dlq):
        await until(lambda: len(claims) > 1)
        await anyio.sleep(0.05)
        assert len(claims) < 6
    monkeypatch.undo()
    assert (await dlq.get(task_id)).state is State.PENDING


# What others left


async def test_lapsed_work_comes_back_within_a_lease_and_a_second(dlq, working, claim_elsewhere, clock, pass_until):
    ran = []
    dlq.processor("t")(lambda task: ran.append(clock.monotonic()))
    await claim_elsewhere(dlq, await dlq.enqueue(Task(type="t")))
    clock.advance(59)
    async with working(dlq):
        await pass_until(lambda: ran, step=0.25, pause=0.03)
    assert 60 <= ran[0] <= 61.5


async def test_a_worker_that_runs_until_idle_sweeps_too(dlq, claim_elsewhere, clock):
    ran = []
    dlq.processor("t")(lambda task: ran.append(task.id))
    lost, expired = Task(type="t"), Task(type="t", expires_in=5)
    await dlq.enqueue_many([lost, expired])
    await claim_elsewhere(dlq, lost.id)
    clock.advance(60)
    await dlq.worker().run_until_idle()
    assert ran == [lost.id]
    assert (await dlq.get(expired.id)).reason is Reason.EXPIRED


async def test_a_worker_under_the_same_name_recovers_its_orphans(dlq, working, backend, clock, pass_until):
    """It was restarted within its lease: the orphans come back when that has lapsed, and no sooner."""
    from deadletter.model.row import Claim

    ran = []
    dlq.processor("t")(lambda task: ran.append(clock.monotonic()))
    await dlq.enqueue(Task(type="t"))
    await backend.claim(dlq.name, Claim(op="before", types=["t"], lease_ms=60_000, owner="me"))
    clock.advance(59)
    async with working(dlq, name="me"):
        await pass_until(lambda: ran, step=0.25, pause=0.03)
    assert 60 <= ran[0] <= 61.5


async def suspect(dlq, claim_elsewhere, clock, **fields):
    task_id = await dlq.enqueue(Task(type="t", **fields))
    for _ in range(2):
        await claim_elsewhere(dlq, task_id)
        clock.advance(60)
        await dlq.sweep()
    return task_id


@pytest.mark.parametrize("way", ["run", "run_until_idle"])
async def test_a_suspect_runs_alone(dlq, working, claim_elsewhere, clock, until, way):
    together = {}
    running = set()

    @dlq.processor("t")
    async def note(task):
        running.add(task.id)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        together[task.id] = len(running)
        assert (await dlq.row(task.id)).alone == (task.id in pills)
        running.discard(task.id)

    pills = [await suspect(dlq, claim_elsewhere, clock, priority=p) for p in ("high", "low")]
    innocents = await dlq.enqueue_many([Task(type="t") for _ in range(31)])
    if way == "run_until_idle":
        await dlq.worker().run_until_idle()
    else:
        async with working(dlq):
            await until(lambda: len(together) == 33)
    assert [together[pill] for pill in pills] == [1, 1]
    assert max(together[id_] for id_ in innocents) > 1
    assert (await dlq.stats()).by_state["succeeded"] == 33


async def test_a_suspect_whose_claimer_dies_before_it_starts_lives(dlq, claim_elsewhere, clock, monkeypatch):
    """A kill between the claim's commit and its reply: nothing ran, so nothing is blamed; the next one runs it."""
    ran = []
    dlq.processor("t")(lambda task: ran.append(task.id))
    pill = await suspect(dlq, claim_elsewhere, clock)
    claim = dlq.backend.claim

    async def killed(queue, wish):
        claimed = await claim(queue, wish)
        if wish.alone:
            raise SystemExit("kill -9")
        return claimed

    monkeypatch.setattr(dlq.backend, "claim", killed)
    with pytest.raises(BaseExceptionGroup):
        await dlq.worker().run_until_idle()
    monkeypatch.undo()
    clock.advance(61)
    await dlq.sweep()
    assert (await dlq.get(pill)).lease_losses == 2
    assert ran == []
    await dlq.worker().run_until_idle()
    assert ran == [pill]
    assert (await dlq.get(pill)).state is State.SUCCEEDED


async def test_a_suspect_that_was_taken_over_before_it_starts_is_left_alone(dlq, claim_elsewhere, clock, monkeypatch):
    ran = []
    dlq.processor("t")(lambda task: ran.append(task.id))
    pill = await suspect(dlq, claim_elsewhere, clock)
    apply = dlq.backend.apply

    async def late(queue, batch):
        if any(change.started for change in batch):
            monkeypatch.undo()
            clock.advance(61)
            await dlq.sweep()
            await claim_elsewhere(dlq, pill)
        return await apply(queue, batch)

    monkeypatch.setattr(dlq.backend, "apply", late)
    await dlq.worker().run_until_idle()
    assert ran == []
    assert (await dlq.row(pill)).owner == "elsewhere"


async def test_stopping_while_a_suspect_waits_leaves_it(dlq, claim_elsewhere, clock, until):
    release, started = anyio.Event(), []

    @dlq.processor("t")
    async def slow(task):
        started.append(task.id)
        await release.wait()

    pill = await suspect(dlq, claim_elsewhere, clock)
    innocent = await dlq.enqueue(Task(type="t"))
    worker = dlq.worker()
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        await until(lambda: started)
        worker.stop()
        release.set()
    assert started == [innocent]
    assert (await dlq.get(pill)).state is State.PENDING


async def test_a_body_that_cannot_be_read_is_quarantined_and_hides_nobody(dlq, kill, caplog):
    (broken,) = await kill(dlq, Task(type="t"))
    await dlq.apply([changes.replay(await dlq.row(broken), "op", body=b"\xff")])
    ran = []
    dlq.processor("t")(lambda task: ran.append(task.id))
    fine = await dlq.enqueue(Task(type="t"))
    await dlq.worker().run_until_idle()
    assert ran == [fine]
    assert (await dlq.get(broken)).reason is Reason.UNDECODABLE
    assert broken in caplog.text


async def test_what_is_unregistered_meanwhile_is_given_back(dlq, backend, monkeypatch):
    task_id = await dlq.enqueue(Task(type="t"))
    dlq.processor("t")(print)
    claim = backend.claim

    async def claim_and_forget(queue, wish):
        claimed = await claim(queue, wish)
        dlq.registry._by_type.clear()
        return claimed

    monkeypatch.setattr(backend, "claim", claim_and_forget)
    await dlq.worker().run_until_idle()
    record = await dlq.get(task_id)
    assert (record.state, record.attempts) == (State.PENDING, 0)


# A store that is away


async def test_outcomes_are_kept_and_the_worker_survives(dlq, backend, working, pass_until, until, monkeypatch, caplog):
    away, ran = [True], []
    names = ("apply", "claim", "sweep", "insert")
    real = {name: getattr(backend, name) for name in names}

    def broken(name):
        async def call(*args, **kwargs):
            if away[0] and ran:
                raise BackendUnavailable("away")
            return await real[name](*args, **kwargs)

        return call

    for name in names:
        monkeypatch.setattr(backend, name, broken(name))
    dlq.processor("t")(lambda task: ran.append(task.id))
    first, second = await dlq.enqueue_many([Task(type="t"), Task(type="t", delay=20)])
    async with working(dlq):
        await until(lambda: ran)
        await pass_until(lambda: "cannot claim" in caplog.text, step=0.2)
        assert (await dlq.get(first)).state is State.RUNNING
        away[0] = False
        await pass_until(lambda: ran == [first, second], step=0.5)
    assert (await dlq.get(first)).attempts == 1
    assert (await dlq.get(second)).state is State.SUCCEEDED


async def test_an_answer_that_never_came_is_asked_for_again(dlq, backend, monkeypatch, working, pass_until):
    """The claim was executed: the same op gets the same rows, and nothing lapses."""
    claim, lost, ran = backend.claim, [], Counter()

    async def lose_the_first(queue, wish):
        claimed = await claim(queue, wish)
        if not lost and claimed.rows:
            lost.append(wish.op)
            raise BackendUnavailable("no answer")
        return claimed

    monkeypatch.setattr(backend, "claim", lose_the_first)
    dlq.processor("t")(lambda task: ran.update([task.id]))
    ids = await dlq.enqueue_many([Task(type="t") for _ in range(5)])
    async with working(dlq):
        await pass_until(lambda: len(ran) == 5)
    assert ran == Counter(ids)
    assert {(await dlq.get(id_)).lease_losses for id_ in ids} == {0}


async def test_a_broken_listener_is_renewed(dlq, backend, monkeypatch, working, until, pass_until, caplog):
    def unavailable(queue, after=None):
        raise BackendUnavailable("away")

    monkeypatch.setattr(backend, "listen", unavailable)
    ran = []
    dlq.processor("t")(lambda task: ran.append(task.id))
    async with working(dlq):
        await until(lambda: "no wake-ups" in caplog.text)
        await dlq.enqueue(Task(type="t"))
        await pass_until(lambda: ran, step=0.5)


async def test_an_outcome_that_comes_too_late_is_told(dlq, claim_elsewhere, caplog):
    @dlq.processor("t")
    async def stolen(task):
        await dlq.apply([changes.release(await dlq.row(task.id), "stolen")])
        await claim_elsewhere(dlq, task.id)

    task_id = await dlq.enqueue(Task(type="t"))
    await dlq.worker(concurrency=1).run_until_idle()  # with room left it might claim again before the thief does
    assert f"the outcome of {task_id} came too late" in caplog.text
    assert (await dlq.row(task_id)).owner == "elsewhere"


async def test_it_leaves_a_store_that_stays_away(dlq, backend, until, pass_until, monkeypatch, caplog):
    ran = []

    async def unavailable(queue, batch):
        raise BackendUnavailable("away")

    @dlq.processor("t")
    async def run(task):
        monkeypatch.setattr(backend, "apply", unavailable)
        ran.append(task.id)

    await dlq.enqueue(Task(type="t"))
    worker = dlq.worker(shutdown_grace=0)
    left = []

    async def work():
        await worker.run()
        left.append(1)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await until(lambda: ran)
        worker.stop()
        await pass_until(lambda: left, step=0.2)
    assert "1 outcomes could not be stored" in caplog.text


# How it lives and leaves


async def test_a_worker_runs_once_at_a_time(dlq, working, until):
    async with working(dlq) as worker:
        await until(lambda: dlq.registry.watchers)
        with pytest.raises(DeadLetterError, match="runs already"):
            await worker.run()


async def test_not_even_while_it_connects(make_queue, backend, monkeypatch, until):
    opened = anyio.Event()
    dlq = make_queue()
    real = backend.open

    async def slow():
        await opened.wait()
        await real()

    monkeypatch.setattr(backend, "open", slow)
    worker = dlq.worker()
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run_until_idle)
        await until(lambda: dlq.registry.watchers)
        with pytest.raises(DeadLetterError, match="runs already"):
            await worker.run_until_idle()
        opened.set()


async def test_a_store_that_cannot_be_reached_ends_it_before_it_starts(make_queue, backend, monkeypatch):
    async def unavailable():
        raise BackendUnavailable("nobody there")

    dlq = make_queue()
    monkeypatch.setattr(backend, "open", unavailable)
    worker = dlq.worker()
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="nobody there"):
            await worker.run_until_idle()


async def test_it_can_run_again(dlq):
    ran = []
    dlq.processor("t")(lambda task: ran.append(task.id))
    worker = dlq.worker()
    for _ in range(2):
        await dlq.enqueue(Task(type="t"))
        await worker.run_until_idle()
    assert len(ran) == 2
    assert dlq.registry.watchers == []


async def test_stop_works_from_any_thread(dlq, until):
    started = []

    @dlq.processor("t")
    async def note(task):
        started.append(task.id)

    await dlq.enqueue(Task(type="t"))
    worker = dlq.worker()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            await until(lambda: started)
            threading.Thread(target=worker.stop).start()
    assert worker.stopping
    assert worker.running == 0


async def test_while_it_drains_it_claims_nothing(dlq, working, until):
    release, started = anyio.Event(), []

    @dlq.processor("t")
    async def slow(task):
        started.append(task.id)
        await release.wait()

    first = await dlq.enqueue(Task(type="t"))
    async with working(dlq) as worker:
        await until(lambda: started)
        worker.stop()
        second = await dlq.enqueue(Task(type="t"))
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        release.set()
    assert started == [first]
    assert (await dlq.get(second)).state is State.PENDING


async def test_contextvars_of_one_attempt_never_leak_to_the_next(dlq, processor):
    var, seen = ContextVar("var", default="clean"), []

    def body(task):
        seen.append(var.get())
        var.set(task.id)

    dlq.processor("t")(processor(body))
    await dlq.enqueue_many([Task(type="t") for _ in range(5)])
    await dlq.worker(concurrency=1).run_until_idle()
    assert seen == ["clean"] * 5


async def test_it_returns_only_when_nothing_runs(dlq):
    ended = []

    @dlq.processor("t")
    async def slow(task):
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        ended.append(task.id)

    ids = await dlq.enqueue_many([Task(type="t") for _ in range(3)])
    await dlq.worker(concurrency=2).run_until_idle()
    assert sorted(ended) == sorted(ids)
    assert (await dlq.stats()).by_state["succeeded"] == 3


async def test_what_cannot_be_judged_runs_again(dlq, monkeypatch, caplog, clock):
    def broken(attempt, outcome):
        raise RuntimeError("no judgement")

    monkeypatch.setattr(worker_module, "decide", broken)
    dlq.processor("t")(print)
    task_id = await dlq.enqueue(Task(type="t"))
    await dlq.worker().run_until_idle()
    assert "could not be judged" in caplog.text
    monkeypatch.undo()
    clock.advance(60)
    await dlq.worker().run_until_idle()
    assert (await dlq.get(task_id)).state is State.SUCCEEDED


async def test_without_threads_everything_runs_in_one_loop(make_queue, clock, pass_until):
    """As the simulator runs it: the keeper in the worker's loop, sync processors inline."""
    dlq = make_queue(threads=InlineThreads())
    seen = []

    @dlq.processor("sync")
    def inline(_):
        seen.append(threading.current_thread())

    @dlq.processor("async")
    async def slow(task):
        await pass_until(lambda: clock.monotonic() > 100, step=1)
        seen.append((await dlq.row(task.id)).lease_ms > clock.now_ms())

    await dlq.enqueue_many([Task(type="sync"), Task(type="async")])
    await dlq.worker().run_until_idle()
    assert seen == [threading.current_thread(), True]
    assert dlq.keeper._thread is None
