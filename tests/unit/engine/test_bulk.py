"""Many letters at a time."""

from __future__ import annotations

from datetime import datetime

import anyio
import pytest

from deadletter import InvalidQuery, PermanentError, Query, State, Task, TaskNotFound
from deadletter.testing import VirtualClock

pytestmark = pytest.mark.anyio


def reject(_):
    raise PermanentError("no")


@pytest.fixture
async def letters(anyio_backend, dlq, kill, clock):
    """Five letters, oldest death first, a second apart."""
    ids = []
    for n in range(5):
        ids += await kill(dlq, Task(type="even" if n % 2 == 0 else "odd", payload={"n": n}, idempotency_key=f"k{n}"))
        clock.advance(1)
    return ids


@pytest.mark.parametrize("call", ["retry_all", "purge", "erase"])
async def test_an_empty_query_is_refused(dlq, letters, call):
    args = (Query(),) if call == "erase" else ()
    with pytest.raises(InvalidQuery, match="everything=True") as caught:
        await getattr(dlq, call)(*args)
    assert isinstance(caught.value, ValueError)
    assert (await dlq.stats()).by_state["dead"] == 5
    assert (await getattr(dlq, call)(Query(), everything=True)).changed == 5


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"limit": -1}, "limit"),
        ({"limit": "5"}, "limit"),
        ({"rate": 0, "limit": 1}, "rate"),
        ({"rate": float("inf"), "limit": 1}, "rate"),
        ({"cutoff": datetime(2026, 1, 1), "limit": 1}, "cutoff"),  # noqa: DTZ001
        ({"query": Query(state="pending"), "limit": 1}, "state"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
async def test_what_cannot_be_meant_is_named(dlq, letters, options, field):
    with pytest.raises(InvalidQuery, match=field):
        await dlq.retry_all(**options)
    assert (await dlq.stats()).by_state["dead"] == 5


async def test_retry_all_retries_what_matches(dlq, letters):
    result = await dlq.retry_all(Query(type="even"))
    assert (result.matched, result.changed, result.failed) == (3, 3, 0)
    states = [(await dlq.get(id_)).state for id_ in letters]
    assert states == ["pending", "dead", "pending", "dead", "pending"]


async def test_a_limit_takes_the_oldest_deaths_first(dlq, letters):
    assert (await dlq.retry_all(limit=2)).changed == 2
    assert [(await dlq.get(id_)).state for id_ in letters] == ["pending"] * 2 + ["dead"] * 3
    assert (await dlq.retry_all(limit=0)).matched == 0


@pytest.mark.parametrize("call", ["retry_all", "purge"])
async def test_a_dry_run_only_counts(dlq, letters, call):
    result = await getattr(dlq, call)(everything=True, dry_run=True, rate=1)
    assert (result.matched, result.changed) == (5, 0)
    assert (await dlq.stats()).by_state["dead"] == 5


async def test_progress_is_told_after_each_step(dlq, kill):
    await kill(dlq, *[Task(type="t") for _ in range(120)])
    seen = []
    await dlq.retry_all(everything=True, progress=seen.append)
    assert [result.changed for result in seen] == [100, 120]


async def test_a_rate_holds_from_the_first_task_on(make_queue, kill):
    await kill(make_queue(), *[Task(type="t") for _ in range(30)])
    jumping = VirtualClock(autojump=True)
    dlq = make_queue(clock=jumping)
    seen = []
    await dlq.retry_all(
        everything=True, rate=10, progress=lambda so_far: seen.append((jumping.monotonic(), so_far.changed))
    )
    assert seen[-1] == (pytest.approx(2.8), 30)
    assert all(changed <= 10 * at + 2 for at, changed in seen)


async def test_what_dies_after_it_began_is_not_swept_in(dlq, letters, backend, clock, kill, monkeypatch):
    apply, late = backend.apply, []

    async def and_they_die_again(queue, batch):
        verdicts = await apply(queue, batch)
        monkeypatch.undo()
        clock.advance(1)
        for id_ in letters:
            await dlq.process_task(id_, reject)
        late.extend(await kill(dlq, Task(type="even")))
        return verdicts

    monkeypatch.setattr(backend, "apply", and_they_die_again)
    result = await dlq.retry_all(everything=True)
    assert (result.matched, result.changed) == (5, 5)
    assert [(await dlq.get(id_)).replays for id_ in letters + late] == [1] * 5 + [0]
    assert (await dlq.stats()).by_state["dead"] == 6


async def test_the_first_calls_cutoff_resumes_it(dlq, letters, clock, kill):
    first = await dlq.retry_all(limit=2)
    clock.advance(1)
    (late,) = await kill(dlq, Task(type="even"))
    second = await dlq.retry_all(everything=True, cutoff=first.cutoff)
    assert (second.changed, second.cutoff) == (3, first.cutoff)
    assert (await dlq.get(late)).state is State.DEAD


async def test_a_purge_is_resumed_by_its_cutoff(dlq, letters, clock, kill):
    seen = []
    first = await dlq.purge(limit=2, progress=seen.append)
    assert seen == [first]
    clock.advance(1)
    (late,) = await kill(dlq, Task(type="even"))
    counted = await dlq.purge(everything=True, dry_run=True, cutoff=first.cutoff)
    assert (counted.matched, counted.cutoff) == (3, first.cutoff)
    second = await dlq.purge(everything=True, cutoff=first.cutoff)
    assert (second.changed, second.cutoff) == (3, first.cutoff)
    assert (await dlq.get(late)).state is State.DEAD
    with pytest.raises(InvalidQuery, match="cutoff"):
        await dlq.purge(limit=1, cutoff=datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("call", ["retry_all", "purge"])
async def test_named_letters_are_loaded_and_nothing_is_scanned(dlq, letters, backend, monkeypatch, call):
    """Those that are dead and match, oldest death first, whatever the order of their names."""

    async def scanned(queue, scan):
        raise AssertionError("it looked at every letter")

    monkeypatch.setattr(backend, "scan", scanned)
    ids = [*letters[::-1], "nobody", letters[0]]
    assert (await getattr(dlq, call)(Query(ids=ids, type="odd"))).changed == 2
    assert (await getattr(dlq, call)(Query(ids=ids), limit=1)).matched == 1
    monkeypatch.undo()
    assert sorted(item.id for item in (await dlq.list()).items) == sorted([letters[2], letters[4]])
    assert (await getattr(dlq, call)(Query(ids=[]))).matched == 0


async def test_named_letters_that_died_after_the_cutoff_are_left_alone(dlq, letters, clock, kill):
    first = await dlq.retry_all(limit=1)
    clock.advance(1)
    assert not await dlq.process_task(letters[0], reject)
    assert (await dlq.purge(Query(ids=letters), cutoff=first.cutoff)).changed == 4
    assert [item.id for item in (await dlq.list()).items] == [letters[0]]


async def test_purge_tells_its_progress(dlq, kill):
    await kill(dlq, *[Task(type="t") for _ in range(120)])
    seen = []
    await dlq.purge(everything=True, progress=lambda so_far: seen.append(so_far.changed))
    assert seen == [100, 120]


async def test_older_than_is_counted_from_the_start(dlq, letters):
    assert (await dlq.purge(Query(older_than=3))).changed == 3


async def test_purge_leaves_tombstones_and_says_why(dlq, letters):
    async with dlq.subscribe("purged") as events:
        result = await dlq.purge(Query(type="odd"), why="old news")
        assert (result.matched, result.changed) == (2, 2)
        with anyio.fail_after(5):
            event = await anext(events)
        assert event.detail["why"] == "old news"
    with pytest.raises(TaskNotFound):
        await dlq.get(letters[1])
    again = Task(id=letters[1], type="odd", payload={"n": 1}, idempotency_key="k1")
    assert await dlq.enqueue(again) == letters[1]
    assert (await dlq.stats()).by_state["pending"] == 0


async def test_a_race_of_purge_and_retry_has_one_winner_per_letter(dlq, letters):
    results = {}

    async def run(name):
        results[name] = await getattr(dlq, name)(everything=True)

    async with anyio.create_task_group() as group:
        for name in ("retry_all", "purge"):
            group.start_soon(run, name)
    assert sum(result.changed for result in results.values()) == 5
    assert (await dlq.stats()).by_state["pending"] == results["retry_all"].changed


# Erase


async def test_erase_takes_every_state(dlq, kill, clock):
    pending, done = Task(type="t", delay=99), Task(type="t", payload={"n": 2})
    await dlq.enqueue_many([pending, done])
    await dlq.process_task(done.id, lambda _: None)
    (dead,) = await kill(dlq, Task(type="t", payload={"card": {"password": "hunter22"}}))
    (other,) = await kill(dlq, Task(type="u"))
    result = await dlq.erase(Query(type="t"))
    assert (result.matched, result.changed, result.failed) == (3, 3, 0)
    for id_ in (pending.id, done.id, dead):
        with pytest.raises(TaskNotFound):
            await dlq.get(id_)
        row = await dlq.row(id_, history=20)
        assert (row.state, row.body, row.history, row.error_type) == ("gone", None, [], None)
    assert (await dlq.get(other)).state is State.DEAD


async def test_erase_matches_hidden_paths(dlq, kill):
    await kill(dlq, Task(type="t", payload={"card": {"password": "hunter22"}}), Task(type="t"))
    assert (await dlq.erase(Query(payload={"card.password": "hunter22"}))).changed == 1


@pytest.mark.parametrize("ends", ["succeeded", "pending", "dead", "discarded", "worker lost"])
async def test_erase_waits_until_a_running_attempt_ends(dlq, claim_elsewhere, clock, pass_until, ends):
    """A processor is never cut off in the middle of its effect."""
    from deadletter.rules import changes

    task_id = await dlq.enqueue(Task(type="t"))
    row = await claim_elsewhere(dlq, task_id)
    results = []

    async def erase():
        results.append(await dlq.erase(Query(ids=[task_id])))

    async with anyio.create_task_group() as group:
        group.start_soon(erase)
        await pass_until(lambda: clock.monotonic() > 1)
        assert (await dlq.row(task_id)).state == "running"
        end = {
            "succeeded": changes.succeed(row, "op", 9_000_000),
            "pending": changes.postpone(row, "op", 9_000),
            "dead": changes.quarantine(row, "op", "broken", None),
            "discarded": changes.discard(row, "op", 9_000_000, ""),
        }
        if ends in end:
            await dlq.apply([end[ends]])
        await pass_until(lambda: results, step=1)
    assert (results[0].matched, results[0].changed) == (1, 0 if ends == "discarded" else 1)
    with pytest.raises(TaskNotFound):
        await dlq.get(task_id)


@pytest.mark.parametrize("state", ["pending", "running", "succeeded"])
async def test_erase_can_be_of_one_state(dlq, claim_elsewhere, clock, pass_until, state):
    tasks = {name: Task(type="t", id=name) for name in ("pending", "running", "succeeded")}
    await dlq.enqueue_many(list(tasks.values()))
    await dlq.process_task("succeeded", lambda _: None)
    await claim_elsewhere(dlq, "running", lease=1)
    results = []

    async def erase():
        results.append(await dlq.erase(Query(state=state), everything=True))

    async with anyio.create_task_group() as group:
        group.start_soon(erase)
        await pass_until(lambda: results, step=0.2)
    assert results[0].changed == 1
    left = [name for name in tasks if (await dlq.row(name)).state != "gone"]
    assert left == [name for name in tasks if name != state]


async def test_erase_may_be_counted_limited_and_slowed(dlq, kill, clock, pass_until):
    """As the other bulk calls: a dry run touches nothing, the limit holds over all states, progress is told."""
    await dlq.enqueue_many([Task(type="t", delay=99) for _ in range(3)])
    await kill(dlq, *[Task(type="t") for _ in range(4)], Task(type="u"))
    assert (await dlq.erase(Query(type="t"), dry_run=True)).matched == 7
    assert (await dlq.erase(Query(type="t"), dry_run=True, limit=5)).matched == 5
    assert (await dlq.stats()).by_state["dead"] == 5
    told, results = [], []
    began = clock.monotonic()

    async def erase():
        results.append(
            await dlq.erase(Query(type="t"), limit=5, rate=2, progress=lambda r: told.append(r.changed), why="asked")
        )

    async with anyio.create_task_group() as group:
        group.start_soon(erase)
        await pass_until(lambda: results, step=0.1)
    assert (results[0].matched, results[0].changed) == (5, 5)
    assert told == [1, 2, 3, 4, 5]
    assert clock.monotonic() - began >= 2
    stats = await dlq.stats()
    assert stats.by_state["dead"] + stats.by_state["pending"] == 3
    assert (await dlq.erase(Query(), limit=0)).changed == 0
    for options in ({}, {"limit": -1}, {"limit": 1, "rate": 0}):
        with pytest.raises(InvalidQuery):
            await dlq.erase(Query(), **options)
