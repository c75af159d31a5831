"""Many callers, few calls: nobody waits for ever, and nobody pays for another's fault."""

from __future__ import annotations

import asyncio
import math

import anyio
import anyio.lowlevel
import pytest

from deadletter import BackendError, BackendUnavailable
from deadletter.engine.settler import Coalescer, Settler, persist
from deadletter.model.row import Change, Verdict

pytestmark = pytest.mark.anyio


class Flush:
    """Answers ten times the item, after some turns of the loop."""

    def __init__(self, turns=3):
        self.turns = turns
        self.batches = []

    async def __call__(self, items):
        self.batches.append(list(items))
        for _ in range(self.turns):
            await anyio.lowlevel.checkpoint()
        return [item * 10 for item in items]


async def gather(coalescer, items):
    answers = {}

    async def one(item):
        try:
            answers[item] = await coalescer(item)
        except Exception as error:
            answers[item] = error

    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(one, item)
    return answers


async def test_a_lone_caller_calls_itself():
    flush = Flush()
    assert await Coalescer(flush)(4) == 40
    assert flush.batches == [[4]]


async def test_who_arrives_meanwhile_goes_together():
    flush = Flush()
    assert await gather(Coalescer(flush), range(1, 251)) == {n: n * 10 for n in range(1, 251)}
    assert [len(batch) for batch in flush.batches] == [1, 100, 100, 49]


async def test_callers_who_come_back_together_go_together():
    """Who is first to come back does not set off alone: every other call would be of one item."""
    flush = Flush()
    coalescer = Coalescer(flush)

    async def call_often(first):
        for round_ in range(5):
            assert await coalescer(first + round_) == (first + round_) * 10

    async with anyio.create_task_group() as group:
        for caller in range(20):
            group.start_soon(call_often, caller * 100)
    assert sum(map(len, flush.batches)) == 100
    assert [len(batch) for batch in flush.batches].count(1) == 1, "the very first"


async def test_a_leader_that_is_cancelled_while_it_waits_for_others_leaves_the_line_to_them():
    flush = Flush()
    coalescer = Coalescer(flush)
    await gather(coalescer, range(3))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await coalescer(7)
    assert await gather(coalescer, [8, 9]) == {8: 80, 9: 90}


async def test_one_bad_item_fails_no_stranger():
    class Strict(Flush):
        async def __call__(self, items):
            answers = await super().__call__(items)
            if 3 in items:
                raise BackendError("no threes")
            return answers

    answers = await gather(Coalescer(Strict()), range(1, 9))
    error = answers.pop(3)
    assert isinstance(error, BackendError)
    assert answers == {n: n * 10 for n in range(1, 9) if n != 3}


async def test_a_store_that_is_away_is_told_to_each():
    class Away(Flush):
        async def __call__(self, items):
            await super().__call__(items)
            raise BackendUnavailable("away")

    flush = Away()
    answers = await gather(Coalescer(flush), range(1, 9))
    assert all(isinstance(answer, BackendUnavailable) for answer in answers.values())
    assert len(answers) == 8
    assert len(flush.batches) == 2, "nobody knocks again for each"


async def test_an_answer_may_send_the_batch_again_one_by_one():
    flush = Flush()
    coalescer = Coalescer(flush, alone=lambda answers: len(answers) > 1)
    assert await gather(coalescer, range(1, 7)) == {n: n * 10 for n in range(1, 7)}
    assert len(flush.batches[1]) == 5
    assert flush.batches[2:] == [[item] for item in flush.batches[1]]


async def cancel_one(coalescer, victim, turns, cancel):
    """Five callers; one is cancelled after so many turns of the loop. The others and a latecomer get their answers."""
    answers = {}

    async def one(item):
        answers[item] = await coalescer(item)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            stop = await cancel(group, one, victim)
            for item in range(1, 6):
                if item != victim:
                    group.start_soon(one, item)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            stop()
        answers.pop(victim, None)
        assert answers == {n: n * 10 for n in range(1, 6) if n != victim}
        assert await coalescer(9) == 90


@pytest.mark.parametrize("place", ["first", "leads", "waits"])
@pytest.mark.parametrize("turns", range(14))
async def test_cancelling_one_at_any_point_costs_only_that_one(place, turns):
    async def cancel(group, one, victim):
        scope = anyio.CancelScope()

        async def scoped():
            with scope:
                await one(victim)

        others = {"first": 0, "leads": 1, "waits": 2}[place]
        for item in range(6, 6 + others):
            group.start_soon(coalescer, item)
            await anyio.lowlevel.checkpoint()
        group.start_soon(scoped)
        return scope.cancel

    coalescer = Coalescer(Flush())
    await cancel_one(coalescer, 1, turns, cancel)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("place", ["first", "leads", "waits"])
@pytest.mark.parametrize("turns", range(14))
async def test_a_native_cancel_breaks_shields_and_strands_nobody(place, turns):
    async def cancel(group, one, victim):
        others = {"first": 0, "leads": 1, "waits": 2}[place]
        for item in range(6, 6 + others):
            group.start_soon(coalescer, item)
            await asyncio.sleep(0)
        task = asyncio.create_task(one(victim))
        tasks.append(task)
        return task.cancel

    tasks = []
    coalescer = Coalescer(Flush())
    await cancel_one(coalescer, 1, turns, cancel)
    await asyncio.wait(tasks)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("turns", range(8))
async def test_a_leader_and_one_that_follows_it_are_cancelled_together(turns):
    coalescer = Coalescer(Flush())
    tasks = []
    for item in range(1, 6):
        tasks.append(asyncio.create_task(coalescer(item)))
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    tasks[2].cancel()
    tasks[1].cancel()
    with anyio.fail_after(5):
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [answers[0], *answers[3:]] == [10, 40, 50]
        assert await coalescer(9) == 90


async def test_after_a_fork_nobody_waits():
    coalescer = Coalescer(Flush())
    coalescer._line().busy = True
    coalescer.forget()
    with anyio.fail_after(5):
        assert await coalescer(1) == 10


# Outcomes


def change(id="a"):
    return Change(id=id, op=f"op of {id}", was="running", to="succeeded")


class Store:
    """Refuses some ids, and is away for some calls."""

    def __init__(self, away=0, refused=()):
        self.away, self.refused = away, refused
        self.stored = []
        self.calls = 0

    async def apply(self, batch):
        self.calls += 1
        await anyio.lowlevel.checkpoint()
        if self.away:
            self.away -= 1
            raise BackendUnavailable("away")
        if any(made.id in self.refused for made in batch):
            raise BackendError("refused")
        self.stored += [made.id for made in batch]
        return [Verdict.DONE for _ in batch]


async def test_persist_calls_until_the_store_answers(clock, pass_until):
    store, answers = Store(away=9), []

    async def run():
        answers.append(await persist(lambda: store.apply([change()]), clock, lambda: math.inf))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await pass_until(lambda: answers)
    assert answers == [[Verdict.DONE]]
    assert clock.monotonic() == pytest.approx(0.05 + 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 2 + 2 + 2, abs=1)


@pytest.fixture
async def settle(anyio_backend, clock):
    """A settler at work on a store; answers its verdicts once all changes have one."""

    async def run(store, *ids, pass_until, prepare=lambda settler: None):
        verdicts = {}
        settler = Settler(
            store.apply, clock, lambda made, said: verdicts.update(zip([one.id for one in made], said, strict=True))
        )
        prepare(settler)
        async with anyio.create_task_group() as group:
            for id_ in ids:
                settler.put(change(id_))
            group.start_soon(settler.run)
            await pass_until(lambda: len(verdicts) == len(ids))
            assert settler.pending == 0
            group.cancel_scope.cancel()
        return verdicts

    return run


async def test_what_piles_up_goes_together(settle, pass_until):
    store = Store()
    ids = [str(n) for n in range(150)]
    assert await settle(store, *ids, pass_until=pass_until) == dict.fromkeys(ids, Verdict.DONE)
    assert (store.calls, store.stored) == (2, ids)


async def test_outcomes_are_kept_while_the_store_is_away(settle, pass_until):
    store = Store(away=5)
    assert await settle(store, "a", "b", pass_until=pass_until) == {"a": Verdict.DONE, "b": Verdict.DONE}


async def test_one_refused_outcome_fails_no_stranger(settle, pass_until, caplog):
    store = Store(refused=("b",))
    verdicts = await settle(store, "a", "b", "c", pass_until=pass_until)
    assert verdicts == {"a": Verdict.DONE, "b": None, "c": Verdict.DONE}
    assert "the outcome of b was refused" in caplog.text


async def test_a_worker_that_leaves_gives_up_on_a_store_that_stays_away(settle, pass_until, clock, caplog):
    """Also on what it was already waiting with."""
    store = Store(away=10**6)

    async def leave(settler):
        await pass_until(lambda: store.calls > 3)
        settler.give_up = clock.monotonic() + 5

    async with anyio.create_task_group() as group:
        verdicts = await settle(
            store, "a", pass_until=pass_until, prepare=lambda settler: group.start_soon(leave, settler)
        )
    assert verdicts == {"a": None}
    assert "could not be stored" in caplog.text
