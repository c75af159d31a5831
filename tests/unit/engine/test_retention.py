"""What goes, when, and by whom: the stamp of each letter, and the limits of a ``Retention``."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from deadletter import BackendUnavailable, Query, Reason, Retention, State, Task, TaskNotFound
from deadletter.backends.memory import MemoryBackend
from deadletter.engine.letters import dead_row
from deadletter.engine.retention import retain
from deadletter.engine.sweeper import sweep_until_cancelled
from deadletter.model.row import FORMAT, GONE

pytestmark = pytest.mark.anyio

DAY = 24 * 3600.0
CAUSE = ValueError("no")


@pytest.fixture
def bury(clock):
    """Store letters of a type, one death a second: ``t000``, ``t001``, ... in order of death."""

    async def run(dlq, n, *, type="t", key=False):
        for at in range(n):
            task = Task(id=f"{type}{at:03}", type=type, idempotency_key=f"{at}" if key else None)
            new = dead_row(dlq, dlq.new_row(task), CAUSE, Reason.CAPTURED)
            await dlq.backend.insert(dlq.name, [new])
            clock.advance(1)

    return run


async def left(dlq):
    return sorted([record.id async for record in dlq.scan()])


def names(first, last, type="t"):
    return [f"{type}{at:03}" for at in range(first, last)]


async def settled(dlq):
    """Assert that the tally says what the rows say."""
    counted = Counter([(record.task.type, str(record.reason)) async for record in dlq.scan()])
    tally = (await dlq.backend.counts(dlq.name)).tally
    assert {(type_, reason): n for (state, _, type_, reason), n in tally.items() if state == "dead" and n} == counted


# The stamp of each letter


async def test_in_a_year_nothing_goes_of_an_app_that_keeps_its_letters(make_queue, kill, clock, pass_until):
    """Default processes sweep beside it all the time; their own letters go after seven days."""
    keeps, default = make_queue(dlq_ttl=None), make_queue()
    kept = await kill(keeps, Task(type="t"), Task(type="t"))
    kept.append(await keeps.capture(Task(type="t"), CAUSE))
    kept.append(await keeps.enqueue(Task(type="t", expires_in=5)))  # dies in whoever sweeps first
    lost = await kill(default, Task(type="t"), Task(type="t"))
    async with default.subscribe("purged") as purged, anyio.create_task_group() as group:
        for queue in (keeps, default):
            group.start_soon(sweep_until_cancelled, queue)
        await pass_until(lambda: clock.monotonic() >= 6.9 * DAY, step=DAY / 10)
        assert await left(keeps) == sorted(kept + lost)
        await pass_until(lambda: clock.monotonic() >= 366 * DAY, step=DAY)
        event = await anext(purged)
        assert (event.count, event.type, event.task_id) == (2, "t", None)
        group.cancel_scope.cancel()
    assert await left(keeps) == sorted(kept)
    lifetime = (await keeps.stats()).lifetime
    assert (lifetime["aged_out"], lifetime.get("purged")) == (2, None)


async def test_a_letter_goes_by_the_stamp_of_who_saw_it_die(make_queue, kill, clock):
    short, default = make_queue(dlq_ttl=60), make_queue()
    gone = await kill(short, Task(type="t"))
    kept = await kill(default, Task(type="t"))
    clock.advance(60)
    await default.sweep()
    assert await left(default) == kept
    with pytest.raises(TaskNotFound):
        await default.get(gone[0])


# Limits


async def test_the_newest_stay(dlq, bury):
    """Over three pages, and nothing more once they are few enough."""
    await bury(dlq, 250)
    assert await retain(dlq, Retention(count=25)) == 225
    assert await left(dlq) == names(225, 250)
    assert await retain(dlq, Retention(count=25)) == 0
    await settled(dlq)
    assert (await dlq.stats()).lifetime["purged"] == 225


async def test_what_is_too_old_goes(dlq, bury, clock):
    await bury(dlq, 150)
    assert await retain(dlq, Retention(age=30)) == 121
    assert await left(dlq) == names(121, 150), "a letter of exactly that age is too old"
    clock.advance(DAY)
    assert await retain(dlq, Retention(age=DAY, count=20)) == 29
    await settled(dlq)


@pytest.mark.parametrize(("limits", "stays"), [({"count": 3, "age": 5}, 3), ({"count": 8, "age": 5}, 4)])
async def test_either_limit_is_enough(dlq, bury, limits, stays):
    await bury(dlq, 10)
    assert await retain(dlq, Retention(**limits)) == 10 - stays
    assert await left(dlq) == names(10 - stays, 10)


async def test_each_says_why_it_went(dlq, bury):
    await bury(dlq, 4)
    async with dlq.subscribe("purged") as events:
        await retain(dlq, Retention(count=3, age=2))
        with anyio.fail_after(5):
            told = [await anext(events) for _ in range(3)]
    assert [event.task_id for event in told] == names(0, 3)
    assert [event.detail["why"] for event in told] == ["beyond the newest 3", *["older than 0:00:02"] * 2]


async def test_the_first_glob_that_matches_is_the_only_one(dlq, bury):
    for type_ in ("email.a", "email.b", "bill", "audit"):
        await bury(dlq, 6, type=type_)
    rules = {"email.a": Retention(count=5), "email.*": Retention(count=1), "audit": Retention()}
    assert await retain(dlq, Retention(count=2, by_type=rules)) == 1 + 5 + 4
    assert await left(dlq) == sorted(
        [*names(1, 6, "email.a"), *names(5, 6, "email.b"), *names(4, 6, "bill"), *names(0, 6, "audit")]
    )
    await settled(dlq)


@pytest.mark.parametrize("types", [3, 20], ids=["few types", "many types"])
async def test_the_types_of_one_glob_are_counted_together(dlq, bury, types):
    """Whether each is searched by itself or all are walked over, the oldest of all of them go first."""
    for _ in range(3):
        for n in range(types):
            task = Task(type=f"e{n}")
            await dlq.backend.insert(dlq.name, [dead_row(dlq, dlq.new_row(task), CAUSE, Reason.CAPTURED)])
        dlq.clock.advance(1)
    await bury(dlq, 3, type="other")
    assert await retain(dlq, Retention(by_type={"e*": Retention(count=types)})) == 2 * types
    assert len(await left(dlq)) == types + 3
    newest = {record.died_at async for record in dlq.scan(Query(type="e*"))}
    assert len(newest) == 1
    assert (await dlq.stats()).by_type["other"] == 3


async def test_two_globs_may_share_one_rule(dlq, bury):
    await bury(dlq, 3, type="a")
    await bury(dlq, 3, type="b")
    rule = Retention(count=2)
    assert await retain(dlq, Retention(by_type={"a": rule, "b": rule})) == 2


async def test_a_key_is_free_and_a_repeat_stores_nothing(dlq, bury):
    await bury(dlq, 2, key=True)
    await retain(dlq, Retention(count=1))
    assert await dlq.enqueue(Task(id="t000", type="t", idempotency_key="0")) == "t000"
    assert (await dlq.row("t000")).state == GONE
    assert await dlq.enqueue(Task(id="new", type="t", idempotency_key="0")) == "new"
    assert await dlq.enqueue(Task(id="other", type="t", idempotency_key="1")) == "t001", "still bound"


async def test_what_a_newer_version_wrote_stays_and_counts(make_queue, bury, clock):
    dlq = make_queue(backend=MemoryBackend(clock=clock))
    await bury(dlq, 106)
    for row in list(dlq.backend._queues[dlq.name].rows.values())[:103]:
        row.format = FORMAT + 1
    assert await retain(dlq, Retention(count=3)) == 0
    assert len(await left(dlq)) == 106


# Races


@pytest.fixture
def meanwhile(backend, monkeypatch):
    """Let something happen between what a pass has scanned and what it purges."""

    def plant(act, *, at=2):
        counts, calls = backend.counts, []

        async def and_then(queue):
            answer = await counts(queue)
            calls.append(queue)
            if len(calls) == at:
                await act()
            return answer

        monkeypatch.setattr(backend, "counts", and_then)

    return plant


@pytest.mark.parametrize("dies_again", [False, True])
async def test_what_was_replayed_meanwhile_stays(dlq, bury, meanwhile, kill, dies_again):
    await bury(dlq, 6)

    async def replay():
        await dlq.retry("t001")
        if dies_again:
            await dlq.process_task("t001", lambda _: False)

    meanwhile(replay)
    assert await retain(dlq, Retention(count=3)) == 2
    assert (await dlq.get("t001")).state is (State.DEAD if dies_again else State.PENDING)
    assert [id_ for id_ in await left(dlq) if id_ != "t001"] == names(3, 6)
    await settled(dlq)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_two_workers_at_once_double_nothing(make_queue, bury, meanwhile, at):
    """One makes its whole pass in the middle of another's: what stays is what one alone would have left."""
    one, other = make_queue(), make_queue()
    await bury(one, 230)
    went = []

    async def whole_pass():
        went.append(await retain(other, Retention(count=20)))

    meanwhile(whole_pass, at=at)
    went.append(await retain(one, Retention(count=20)))
    assert sum(went) == 210
    assert await left(one) == names(210, 230)
    assert (await one.stats()).lifetime["purged"] == 210
    await settled(one)


async def test_many_at_once_double_nothing(make_queue, bury):
    queues = [make_queue() for _ in range(3)]
    await bury(queues[0], 230)
    async with anyio.create_task_group() as group:
        for queue in queues:
            group.start_soon(retain, queue, Retention(count=20, age=DAY))
    assert await left(queues[0]) == names(210, 230)
    assert (await queues[0].stats()).lifetime["purged"] == 210


async def test_what_dies_meanwhile_is_left_to_the_next_pass(dlq, bury, meanwhile, kill):
    await bury(dlq, 5)
    meanwhile(lambda: bury(dlq, 2, type="late"))
    assert await retain(dlq, Retention(count=3)) == 2
    assert await retain(dlq, Retention(count=3)) == 2
    assert await left(dlq) == ["late000", "late001", "t004"]


# Workers


async def test_only_a_worker_that_was_given_limits_applies_them(make_queue, bury):
    dlq, limited = make_queue(), make_queue(retention=Retention(count=2))
    await bury(dlq, 5)
    await dlq.worker().run_until_idle()
    assert len(await left(dlq)) == 5
    await limited.worker().run_until_idle()
    assert await left(dlq) == names(3, 5)


async def test_a_worker_applies_them_each_minute(make_queue, bury, working, pass_until, clock):
    dlq = make_queue(retention=Retention(count=2), dlq_ttl=None)

    async def two():
        return len(await left(dlq)) == 2

    await bury(dlq, 5)
    async with working(dlq):
        await pass_until(two)
        await bury(dlq, 3, type="u")
        began = clock.monotonic()
        await pass_until(two, step=5)
        assert clock.monotonic() - began < 90
    assert await left(dlq) == names(1, 3, "u")


async def test_one_that_was_killed_midway_is_gone_on_with(make_queue, bury, backend, monkeypatch, caplog):
    dlq = make_queue(retention=Retention(count=20))
    await bury(dlq, 250)
    apply, steps = backend.apply, []

    async def once(queue, batch):
        if batch[0].to == GONE:
            steps.append(len(batch))
            if len(steps) > 1:
                raise BackendUnavailable("killed")
        return await apply(queue, batch)

    monkeypatch.setattr(backend, "apply", once)
    await dlq.worker().run_until_idle()
    assert "cannot apply the retention" in caplog.text
    assert await left(dlq) == names(100, 250)
    monkeypatch.setattr(backend, "apply", apply)
    await dlq.worker().run_until_idle()
    assert await left(dlq) == names(230, 250)
    assert (await dlq.stats()).lifetime["purged"] == 230


async def test_a_slow_store_holds_nobody_else_up(
    make_queue, bury, backend, monkeypatch, working, claim_elsewhere, clock, pass_until
):
    """While each step of a pass takes half a minute, a lost lease comes back in its time, and work is done."""
    dlq = make_queue(retention=Retention(count=0))
    await bury(dlq, 250)
    apply, purging = backend.apply, []

    async def slow(queue, batch):
        if batch[0].to == GONE and queue == dlq.name:
            purging.append(len(batch))
            await clock.sleep(30)
        return await apply(queue, batch)

    monkeypatch.setattr(backend, "apply", slow)
    done = []
    dlq.processor("work")(lambda task: done.append(task.id))
    lost = await dlq.enqueue(Task(type="work"))
    await claim_elsewhere(dlq, lost, lease=10)
    began = clock.monotonic()
    async with working(dlq):
        await pass_until(lambda: done, step=0.25, pause=0.003)
        assert clock.monotonic() - began < 15
        assert purging == [100]

        async def empty():
            return not await left(dlq)

        await pass_until(empty, step=5)
    assert purging == [100, 100, 50]


async def test_a_worker_that_stops_does_not_wait_for_a_pass(make_queue, bury, backend, monkeypatch, working, until):
    dlq = make_queue(retention=Retention(count=0))
    await bury(dlq, 5)
    counts, stuck = backend.counts, anyio.Event()

    async def never(queue):
        if queue != dlq.name:
            return await counts(queue)
        stuck.set()
        return await anyio.sleep_forever()

    monkeypatch.setattr(backend, "counts", never)
    with anyio.fail_after(10):
        async with working(dlq):
            await stuck.wait()
