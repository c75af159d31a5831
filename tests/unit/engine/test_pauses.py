"""Types that no worker claims: what is stored, and what a worker makes of it."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager

import anyio
import pytest

from deadletter import BackendUnavailable, DeadLetterQueue, InvalidTask, Pause, Query, Task
from deadletter.engine.pauses import EVERY, Pauses
from deadletter.engine.presence import reserved
from deadletter.engine.sweeper import sweep, tidy
from deadletter.model.row import Scan

pytestmark = pytest.mark.anyio

YEAR = 365 * 24 * 3600


def globs(pauses):
    return [pause.types for pause in pauses]


@pytest.fixture
def ran(dlq):
    """The types of what ran, in order; processors for the types are registered."""
    ran = []
    for type_ in ("email.send", "email.later", "sms", "a*b"):

        @dlq.processor(type_)
        async def run(task):
            ran.append(task.type)

    return ran


@asynccontextmanager
async def taking(dlq, n, *kinds):
    """The events that come while the block runs: ``n`` of them when it has ended."""
    found = []
    async with dlq.subscribe(*kinds) as events:
        yield found
        with anyio.fail_after(10):
            found += [await anext(events) for _ in range(n)]


# What is stored.


async def test_a_pause_tells_what_why_and_since_when(dlq, make_queue, clock):
    made = await dlq.pause("email.*", why="  the mail\n\tserver is down ")
    assert (made.types, made.why) == ("email.*", "the mail server is down")
    assert made.since.timestamp() * 1000 == clock.now_ms()
    clock.advance(5)
    other = make_queue()
    assert await other.paused() == [made]
    assert (await other.stats()).paused == {"email.*": "the mail server is down"}
    assert await make_queue(name="another").paused() == [], "queues never see each other"


async def test_one_that_stands_stays_as_it_is(dlq, clock):
    first = await dlq.pause("sms", why="one")
    clock.advance(5)
    assert await dlq.pause("sms", why="two") == first
    assert await dlq.paused() == [first]


async def test_racing_pauses_of_a_glob_are_one(dlq, make_queue):
    made = []

    async def pause(queue, why):
        made.append(await queue.pause(why=why))

    async with taking(dlq, 1, "paused", "resumed") as events, anyio.create_task_group() as group:
        for why in ("one", "two", "three"):
            group.start_soon(pause, make_queue(), why)
    assert await dlq.paused() == [made[0]]
    assert made[0] == made[1] == made[2]
    async with taking(dlq, 1, "paused", "resumed") as later:
        await dlq.resume()
    assert [event.kind for event in (*events, *later)] == ["paused", "resumed"], "it was told once"


async def test_resume_lifts_what_the_glob_covers_and_says_so(dlq):
    for glob in ("email.*", "email.send", r"a\*b", "sms", "*"):
        await dlq.pause(glob, why="outage")
    assert await dlq.resume("email") == []
    assert globs(await dlq.resume("email.*")) == ["email.*", "email.send"]
    assert globs(await dlq.resume(r"a\*b")) == [r"a\*b"]
    assert globs(await dlq.paused()) == ["*", "sms"]
    assert globs(await dlq.resume()) == ["*", "sms"]
    assert await dlq.resume() == [], "nothing is paused, and that is no error"
    assert await dlq.paused() == []


async def test_what_was_lifted_can_be_paused_again_at_once(dlq, clock):
    await dlq.pause("sms", why="one")
    await dlq.resume("sms")
    clock.advance(1)
    again = await dlq.pause("sms", why="two")
    assert again.why == "two"
    assert again.since.timestamp() * 1000 == clock.now_ms()


async def test_many_pauses_are_all_seen_and_all_lifted(dlq):
    for n in range(105):
        await dlq.pause(f"t{n:03}", why="x")
    assert globs(await dlq.paused()) == [f"t{n:03}" for n in range(105)]
    assert len(await dlq.resume()) == 105


async def test_no_time_and_no_sweep_ends_one(dlq, clock):
    await dlq.pause("sms", why="for ever")
    await dlq.pause("email", why="not for ever")
    await dlq.resume("email")
    for _ in range(3):
        clock.advance(YEAR)
        await tidy(dlq)
        await sweep(dlq)
    await dlq.erase(Query(), everything=True)
    assert globs(await dlq.paused()) == ["sms"]


async def test_it_is_no_task(dlq):
    await dlq.pause("sms", why="x")
    stats = await dlq.stats()
    assert (stats.by_state["pending"], stats.lifetime) == (0, {})
    assert [record async for record in dlq.scan(Query(state="pending"))] == []


@pytest.mark.parametrize(
    ("types", "why", "field"),
    [
        ("", "x", "types"),
        ("a\n", "x", "types"),
        ("a\x1b[2J", "x", "types"),
        ("\ud800", "x", "types"),
        ("a" * 401, "x", "types"),
        (["a", "b"], "x", "types"),
        (None, "x", "types"),
        ("a", "", "why"),
        ("a", " \n ", "why"),
        ("a", None, "why"),
        ("a", 7, "why"),
    ],
)
async def test_what_cannot_be_meant_names_the_field_and_stores_nothing(dlq, types, why, field):
    with pytest.raises(InvalidTask, match=f"^{field}: ") as refused:
        await dlq.pause(types, why=why)
    assert refused.value.field == field
    assert len(str(refused.value)) < 200
    assert await dlq.paused() == []
    if field == "types":
        with pytest.raises(InvalidTask, match=r"^types: "):
            await dlq.resume(types)


async def test_a_reason_is_wanted(dlq):
    with pytest.raises(TypeError, match="why"):
        await dlq.pause("sms")


@pytest.mark.parametrize("why", ["x" * 501, "x " * 5000, "nul \0 and half \ud800 a pair", "\x1b[2J\u202e"])
async def test_any_reason_is_kept_on_one_bounded_line(dlq, why):
    made = await dlq.pause("sms", why=why)
    assert await dlq.paused() == [made]
    assert len(made.why) <= 500
    assert made.why[:3] == why[:3]
    assert "\n" not in made.why
    assert "\0" not in made.why
    made.why.encode()


# Where something goes wrong between the call and the store.


def lose(monkeypatch, backend, name, *, before, times=1):
    """Let a call fail before or after it did its work, so many times."""
    real, lost = getattr(backend, name), []

    async def call(queue, *given, **told):
        if queue == reserved("pauses", "default") and len(lost) < times:
            lost.append(queue)
            if not before:
                await real(queue, *given, **told)
            raise BackendUnavailable("lost")
        return await real(queue, *given, **told)

    monkeypatch.setattr(backend, name, call)
    return lost


@pytest.mark.parametrize(
    ("call", "before", "stands"),
    [
        ("insert", True, False),
        ("insert", False, True),
        ("load", False, True),
        ("apply", True, True),
        ("apply", False, True),
    ],
)
async def test_a_pause_cut_off_anywhere_can_be_repeated(dlq, backend, monkeypatch, call, before, stands):
    """Its process died, or its reply got lost: there is a pause or there is none, and the next call makes it one."""
    await dlq.open()
    lose(monkeypatch, backend, call, before=before)
    async with taking(dlq, 1, "paused") as events:
        with pytest.raises(BackendUnavailable):
            await dlq.pause("sms", why="x")
        assert globs(await dlq.paused()) == ["sms"] * stands
        made = await dlq.pause("sms", why="x")
        await dlq.pause("sms", why="x")
        assert await dlq.paused() == [made]
    assert [(event.type, event.detail) for event in events] == [("sms", {"why": "x"})]
    assert sum((await backend.counts(reserved("pauses", dlq.name))).tally.values()) == 1


@pytest.mark.parametrize("before", [True, False])
async def test_a_resume_cut_off_can_be_repeated(dlq, backend, monkeypatch, before):
    await dlq.pause("sms", why="x")
    lose(monkeypatch, backend, "apply", before=before)
    with pytest.raises(BackendUnavailable):
        await dlq.resume("sms")
    assert globs(await dlq.paused()) == ["sms"] * before
    assert globs(await dlq.resume("sms")) == ["sms"] * before
    assert await dlq.paused() == []


async def test_one_that_is_lifted_while_it_is_made(dlq, backend, make_queue, monkeypatch):
    """The answer is the pause that there was; one that met a pause on its way out makes its own."""
    load, other = backend.load, make_queue()
    lifted = []

    async def late(queue, ids, *, history=1):
        if queue == reserved("pauses", dlq.name) and len(lifted) < 2:
            lifted.extend(await other.resume())
        return await load(queue, ids, history=history)

    monkeypatch.setattr(backend, "load", late)
    assert (await dlq.pause("sms", why="one")).why == "one"
    assert await dlq.paused() == []
    monkeypatch.setattr(backend, "load", load)
    await dlq.pause("sms", why="two")
    monkeypatch.setattr(backend, "load", late)
    assert (await dlq.pause("sms", why="three")).why == "three"
    assert [pause.why for pause in await dlq.paused()] == ["three"]


async def test_two_who_lift_one_share_it(dlq, backend, make_queue, monkeypatch):
    await dlq.pause("sms", why="x")
    scan, other, answers = backend.scan, make_queue(), []

    async def late(queue, wish):
        found = await scan(queue, wish)
        monkeypatch.setattr(backend, "scan", scan)
        answers.append(await other.resume())
        return found

    monkeypatch.setattr(backend, "scan", late)
    answers.append(await dlq.resume())
    assert [globs(answer) for answer in answers] == [["sms"], []]


# Events.


async def test_pauses_are_told_among_the_rest(dlq, make_queue, kill, clock):
    other = make_queue()
    async with taking(dlq, 4) as events:
        (dead,) = await kill(other, Task(type="t"))
        await other.pause("email.*", why="down")
        await other.resume()
        await other.retry(dead)
    kinds = [event.kind for event in events]
    assert sorted(kinds) == ["dead", "paused", "replayed", "resumed"]
    assert kinds.index("paused") < kinds.index("resumed")
    told = next(event for event in events if event.kind == "paused")
    assert (told.task_id, told.type, told.count, told.detail) == (None, "email.*", 1, {"why": "down"})
    assert told.at.timestamp() * 1000 == clock.now_ms()
    assert [event.seq for event in events] == sorted(event.seq for event in events), "no seq runs backwards"
    assert next(event for event in events if event.kind == "resumed").detail == {"why": "down"}


async def test_only_pauses_have_no_number(dlq):
    async with taking(dlq, 2, "paused", "resumed") as events:
        await dlq.pause(why="x")
        await dlq.enqueue(Task(type="t"))
        await dlq.resume()
    assert [(event.kind, event.seq, event.type) for event in events] == [("paused", 0, "*"), ("resumed", 0, "*")]


async def test_an_error_of_the_subscriber_stays_itself(dlq):
    with pytest.raises(ValueError, match="mine"):
        async with dlq.subscribe():
            raise ValueError("mine")


async def test_an_error_of_the_store_comes_with_the_next_event(dlq, backend, monkeypatch):
    listen = backend.listen

    @asynccontextmanager
    async def failing(queue, after=None):
        async def signals():
            raise BackendUnavailable("away")
            yield

        if queue == dlq.name:
            yield signals()
        else:
            async with listen(queue, after) as found:
                yield found

    monkeypatch.setattr(backend, "listen", failing)
    with anyio.fail_after(10), pytest.raises(BackendUnavailable):
        async with dlq.subscribe() as events:
            await anext(events)


# What a worker makes of it.


async def test_no_paused_type_is_claimed_and_the_others_are(dlq, ran):
    await dlq.pause("email.*", why="x")
    await dlq.pause(r"a\*b", why="x")
    await dlq.enqueue_many([Task(type="email.send", priority="high") for _ in range(150)])
    await dlq.enqueue_many([Task(type="a*b"), Task(type="sms", priority="low")])
    await dlq.worker(concurrency=1).run_until_idle()
    assert ran == ["sms"], "what is paused neither runs nor hides the others"
    await dlq.resume(r"a\*b")
    await dlq.worker().run_until_idle()
    assert ran == ["sms", "a*b"]
    await dlq.resume()
    await dlq.worker().run_until_idle()
    assert ran.count("email.send") == 150


async def test_where_all_is_paused_a_worker_asks_for_nothing(dlq, ran, backend, monkeypatch):
    await dlq.pause(why="x")
    await dlq.enqueue(Task(type="sms"))

    async def claim(queue, wish):
        raise AssertionError("nothing may be claimed")

    monkeypatch.setattr(backend, "claim", claim)
    await dlq.worker().run_until_idle()
    assert ran == []


@pytest.mark.parametrize("glob", ["*", "s*"])
async def test_what_a_lost_answer_had_got_is_given_back_where_it_is_paused_meanwhile(
    dlq, ran, backend, working, pass_until, clock, monkeypatch, glob
):
    """It would wait out its lease otherwise, or run though it is paused."""
    claim = backend.claim
    lost = []

    async def cut(queue, wish):
        claimed = await claim(queue, wish) if not lost or clock.monotonic() > lost[0] else None
        if claimed is not None and claimed.rows and not lost:
            lost.append(clock.monotonic() + 2 * EVERY)
            await dlq.pause(glob, why="x")
            claimed = None
        if claimed is None:
            raise BackendUnavailable("cut off")
        return claimed

    async def given_back():
        return bool(lost) and (await dlq.get(task_id)).state == "pending"

    monkeypatch.setattr(backend, "claim", cut)
    task_id = await dlq.enqueue(Task(type="sms"))
    async with working(dlq):
        await pass_until(lambda: lost and clock.monotonic() > lost[0])
        with anyio.fail_after(10):
            while not await given_back():
                clock.advance(0.1)
                await anyio.sleep(0.001)
        assert clock.monotonic() < lost[0] + 20, "well within its lease"
        assert (await dlq.get(task_id)).attempts == 0
    assert ran == []


@pytest.mark.parametrize("glob", ["*", "s*"])
async def test_it_reaches_a_worker_that_runs_and_so_does_its_end(
    dlq, make_queue, ran, working, pass_until, clock, glob
):
    other = make_queue()
    async with working(dlq):
        await dlq.enqueue(Task(type="sms"))
        await pass_until(lambda: ran)
        await other.pause(glob, why="x")
        known = clock.monotonic() + EVERY
        await pass_until(lambda: clock.monotonic() >= known + 0.1, pause=0.01)
        await other.enqueue(Task(type="sms"))
        then = clock.monotonic()
        await pass_until(lambda: clock.monotonic() >= then + 6, pause=0.005)
        assert ran == ["sms"]
        await other.resume(glob)
        then = clock.monotonic()
        await pass_until(lambda: len(ran) == 2, pause=0.01)
        assert clock.monotonic() - then <= 1


async def test_paused_work_that_is_due_keeps_no_worker_busy(dlq, ran, backend, working, pass_until, clock, monkeypatch):
    claims, claim = [], backend.claim
    await dlq.pause("s*", why="x")
    await dlq.enqueue(Task(type="sms"))

    async def counted(queue, wish):
        claims.append(wish.types)
        return await claim(queue, wish)

    monkeypatch.setattr(backend, "claim", counted)
    async with working(dlq):
        await pass_until(lambda: clock.monotonic() >= 20, step=0.25, pause=0.003)
    assert len(claims) <= 10, "one each five seconds, and what its own hints woke"
    assert all("sms" not in types for types in claims)
    assert ran == []


async def test_what_runs_goes_on(dlq, make_queue, working, until, pass_until, clock):
    began, ended, go = [], [], anyio.Event()

    @dlq.processor("slow")
    async def slow(task):
        began.append(task.id)
        await go.wait()
        ended.append(task.id)

    task_id = await dlq.enqueue(Task(type="slow"))
    async with working(dlq):
        await until(lambda: began)
        await make_queue().pause(why="x")
        then = clock.monotonic()
        await pass_until(lambda: clock.monotonic() >= then + 2)
        go.set()
        await until(lambda: ended)

        async def settled():
            return (await dlq.get(task_id)).state == "succeeded"

        await until(settled)


async def test_a_suspect_of_a_paused_type_waits(dlq, ran, claim_elsewhere, clock):
    """A task whose workers vanished runs alone, and not at all while its type is paused."""
    task_id = await dlq.enqueue(Task(type="sms"))
    for _ in range(2):
        await claim_elsewhere(dlq, task_id, lease=1)
        clock.advance(2)
        await sweep(dlq)
    await dlq.pause("sms", why="x")
    await dlq.worker().run_until_idle()
    assert ran == []
    await dlq.resume()
    await dlq.worker().run_until_idle()
    assert ran == ["sms"]


async def test_a_suspect_that_is_paused_once_it_was_seen_waits(dlq, ran, claim_elsewhere, clock, monkeypatch):
    task_id = await dlq.enqueue(Task(type="sms"))
    for _ in range(2):
        await claim_elsewhere(dlq, task_id, lease=1)
        clock.advance(2)
        await sweep(dlq)
    worker = dlq.worker(types=["sms"])
    claim = dlq.backend.claim

    async def seen(queue, wish):
        assert not wish.alone
        claimed = await claim(queue, wish)
        if claimed.suspects:
            await dlq.pause(why="x")
            await looks[0].look()
        return claimed

    looks = []
    monkeypatch.setattr("deadletter.engine.worker.Pauses", lambda *given: looks.append(Pauses(*given)) or looks[0])
    monkeypatch.setattr(dlq.backend, "claim", seen)
    await worker.run_until_idle()
    assert ran == []


async def test_an_explicit_call_and_what_is_put_in_know_no_pause(dlq):
    await dlq.pause(why="x")
    task_id = await dlq.enqueue(Task(type="sms"))
    assert await dlq.process_task(task_id, lambda task: None) is True


async def test_it_claims_nothing_before_it_could_read_the_pauses(dlq, ran, backend, working, pass_until, monkeypatch):
    """A store that is away at the start is no store without pauses."""
    await dlq.pause("sms", why="x")
    await dlq.enqueue_many([Task(type="sms"), Task(type="email.send")])
    lost = lose(monkeypatch, backend, "scan", before=True, times=12)
    claims, claim = [], backend.claim

    async def counted(queue, wish):
        claims.append(len(lost))
        return await claim(queue, wish)

    monkeypatch.setattr(backend, "claim", counted)
    async with working(dlq):
        await pass_until(lambda: ran, step=0.2)
    assert claims[0] == 12
    assert ran == ["email.send"]


async def test_what_it_knew_last_holds_while_the_store_is_away(
    dlq, ran, backend, working, until, pass_until, clock, monkeypatch, caplog
):
    await dlq.pause("sms", why="x")
    async with working(dlq):
        await dlq.enqueue(Task(type="email.send"))
        await pass_until(lambda: ran)
        with caplog.at_level(logging.WARNING, "deadletter.pauses"):
            lost = lose(monkeypatch, backend, "scan", before=True, times=5)
            await pass_until(lambda: lost, step=0.2)
            await dlq.enqueue_many([Task(type="sms"), Task(type="email.later")])
            await pass_until(lambda: len(ran) == 2, step=0.2)
            await pass_until(lambda: len(lost) == 5, step=0.2)
        assert ran == ["email.send", "email.later"]
        assert caplog.text.count("cannot read what is paused") == 1, "it is told once"
        await dlq.resume()
        await pass_until(lambda: len(ran) == 3, step=0.2)


async def test_an_idle_worker_looks_no_more_than_it_must(dlq, ran, backend, working, pass_until, clock, monkeypatch):
    looks, scan = [], backend.scan

    async def counted(queue, wish: Scan):
        looks.append((clock.monotonic(), wish.body))
        return await scan(queue, wish)

    monkeypatch.setattr(backend, "scan", counted)
    async with working(dlq):
        await pass_until(lambda: clock.monotonic() >= 8, step=0.1, pause=0.005)
    assert 5 <= len(looks) <= 8 / EVERY + 2
    assert not any(body for _, body in looks)


async def test_a_change_is_logged_and_an_ordinary_start_is_not(dlq, ran, caplog):
    with caplog.at_level(logging.INFO, "deadletter.pauses"):
        await dlq.worker().run_until_idle()
        assert caplog.text == ""
        await dlq.pause("e*", why="x")
        await dlq.worker().run_until_idle()
    assert "paused: 'e*'" in caplog.text


def test_the_blocking_calls():
    dlq = DeadLetterQueue("memory://")
    made = dlq.sync.pause("sms", why="x")
    assert isinstance(made, Pause)
    assert dlq.sync.paused() == [made]
    assert dlq.sync.resume("sms") == [made]
    dlq.sync.aclose()
