"""Operations: bulk calls that outlive their client and their process."""

from __future__ import annotations

import anyio
import pytest

from deadletter import BackendUnavailable, InvalidQuery, Query, State, Task, TaskNotFound
from deadletter.engine import standing
from deadletter.model.operation import OperationState
from deadletter.views import Viewer

pytestmark = pytest.mark.anyio

DONE, CANCELLED, RUNNING = OperationState.DONE, OperationState.CANCELLED, OperationState.RUNNING


@pytest.fixture
async def letters(anyio_backend, dlq, kill, clock):
    ids = []
    for n in range(5):
        ids += await kill(dlq, Task(type="even" if n % 2 == 0 else "odd", payload={"n": n, "password": f"hidden-{n}"}))
        clock.advance(1)
    return ids


@pytest.fixture
async def working(anyio_backend, pass_until):
    """Work on a queue's operations, beside the test, until told or until nothing is left."""
    async with anyio.create_task_group() as group:

        def start(queue, seen=None) -> anyio.CancelScope:
            scope = anyio.CancelScope()

            async def run():
                with scope:
                    await standing.work(queue, seen or queue)

            group.start_soon(run)
            return scope

        yield start
        group.cancel_scope.cancel()


async def ended(dlq, id_) -> bool:
    return (await standing.look(dlq, id_)).ended_at is not None


async def dead(dlq) -> int:
    return (await dlq.stats()).by_state["dead"]


async def test_an_operation_is_carried_out_and_told(dlq, letters, working, pass_until):
    ordered = await standing.order(dlq, "retry-all", Query(type="even"), why="mended")
    assert (ordered.kind, ordered.state, ordered.total, ordered.why) == ("retry-all", "pending", 3, "mended")
    assert ordered.query == {"type": "even", "state": "dead"}
    working(dlq)
    await pass_until(lambda: ended(dlq, ordered.id))
    done = await standing.look(dlq, ordered.id)
    assert (done.state, done.matched, done.changed, done.failed) == (DONE, 3, 3, 0)
    assert done.ended_at >= done.created_at == ordered.created_at
    assert await dead(dlq) == 2
    assert [operation.id for operation in await standing.listed(dlq)] == [ordered.id]


async def test_it_purges_too_and_obeys_its_limit(dlq, letters, working, pass_until):
    ordered = await standing.order(dlq, "purge", Query(), limit=2)
    assert ordered.total == 2
    working(dlq)
    await pass_until(lambda: ended(dlq, ordered.id))
    assert await dead(dlq) == 3
    with pytest.raises(TaskNotFound):
        await dlq.get(letters[0])


async def test_what_cannot_be_meant_is_not_written_down(dlq, letters):
    for options in ({}, {"limit": -1}, {"rate": 0, "limit": 1}):
        with pytest.raises(InvalidQuery):
            await standing.order(dlq, "retry-all", Query(), **options)
    assert await standing.listed(dlq) == []


async def test_an_order_with_the_same_id_is_the_same_operation(dlq, letters):
    first = await standing.order(dlq, "retry-all", Query(type="even"), id="once")
    assert await standing.order(dlq, "retry-all", Query(type="even"), id="once") == first
    assert len(await standing.listed(dlq)) == 1


async def test_hidden_values_select_nothing(dlq, letters, working, pass_until):
    seen = Viewer().queue(dlq)
    ordered = await standing.order(seen, "purge", Query(payload={"password": "hidden-1"}))
    assert ordered.total == 0
    working(dlq, seen)
    await pass_until(lambda: ended(dlq, ordered.id))
    assert await dead(dlq) == 5


async def test_durations_count_from_the_order(dlq, letters, working, pass_until, clock):
    ordered = await standing.order(dlq, "purge", Query(older_than=4))
    clock.advance(3600)
    working(dlq)
    await pass_until(lambda: ended(dlq, ordered.id))
    assert (await standing.look(dlq, ordered.id)).changed == 2


async def test_one_that_is_called_off_does_no_further_step(dlq, letters, working, pass_until):
    ordered = await standing.order(dlq, "retry-all", Query(), limit=10, rate=0.5)
    working(dlq)

    async def under_way():
        return (await standing.look(dlq, ordered.id)).changed >= 1

    await pass_until(under_way)
    assert (await standing.call_off(dlq, ordered.id)).state == CANCELLED
    left = await dead(dlq)
    assert 2 <= left <= 4
    await pass_until(lambda: ended(dlq, ordered.id))
    for _ in range(200):
        await anyio.lowlevel.checkpoint()
    told = await standing.look(dlq, ordered.id)
    assert (await dead(dlq), told.state) == (left, CANCELLED)
    assert await standing.call_off(dlq, ordered.id) == told


async def test_one_that_is_called_off_in_mid_step_tells_what_the_step_did(
    dlq, letters, working, pass_until, monkeypatch
):
    ordered = await standing.order(dlq, "retry-all", Query(), limit=10, rate=1000)
    apply = dlq.apply

    async def called_off_meanwhile(batch):
        await standing.call_off(dlq, ordered.id)
        return await apply(batch)

    monkeypatch.setattr(dlq, "apply", called_off_meanwhile)
    working(dlq)

    async def corrected():
        return (await standing.look(dlq, ordered.id)).changed == 5

    await pass_until(corrected)
    assert (await standing.look(dlq, ordered.id)).state == CANCELLED
    assert await dead(dlq) == 0


async def test_one_that_waits_is_called_off_too(dlq, letters, working, pass_until):
    ordered = await standing.order(dlq, "retry-all", Query(type="even"))
    assert (await standing.call_off(dlq, ordered.id)).state == CANCELLED
    await standing.work(dlq, dlq)
    assert await dead(dlq) == 5


async def test_another_process_goes_on_where_one_died(
    dlq, make_queue, letters, working, pass_until, monkeypatch, kill, clock
):
    """The lease lapses; the cutoff stays that of the order, so that what died since is left alone."""
    ordered = await standing.order(dlq, "retry-all", Query(), limit=10, rate=1)
    with monkeypatch.context() as patch:

        async def vanish(self):
            return

        patch.setattr(standing._Doing, "give_back", vanish)
        dying = working(dlq)

        async def under_way():
            return await dead(dlq) in (3, 4)

        await pass_until(under_way)
        dying.cancel()
        await pass_until(lambda: dying.cancelled_caught)
    (late,) = await kill(dlq, Task(type="even"))
    other = make_queue()
    assert (await standing.look(other, ordered.id)).state == RUNNING
    working(other)
    await pass_until(lambda: ended(other, ordered.id), step=0.2)
    assert [(await dlq.get(id_)).replays for id_ in [*letters, late]] == [1, 1, 1, 1, 1, 0]


async def test_a_process_that_leaves_gives_it_back_at_once(dlq, letters, working, pass_until):
    ordered = await standing.order(dlq, "retry-all", Query(), limit=10, rate=0.5)
    leaving = working(dlq)

    async def under_way():
        return await dead(dlq) == 4

    await pass_until(under_way)
    leaving.cancel()

    async def given_back():
        return (await standing.look(dlq, ordered.id)).state == "pending"

    await pass_until(given_back, step=0)
    assert (await standing.look(dlq, ordered.id)).changed == 1


async def test_one_that_is_claimed_as_its_process_leaves_is_given_back(dlq, letters, working, pass_until, monkeypatch):
    ordered = await standing.order(dlq, "retry-all", Query(), limit=10, rate=0.5)
    claim, scopes = dlq.backend.claim, []

    async def claimed_too_late(*args):
        claimed = await claim(*args)
        scopes[0].cancel()
        await anyio.lowlevel.checkpoint()
        return claimed

    monkeypatch.setattr(dlq.backend, "claim", claimed_too_late)
    scopes.append(working(dlq))
    await pass_until(lambda: scopes[0].cancelled_caught, step=0)
    assert (await standing.look(dlq, ordered.id)).state == "pending"
    assert await dead(dlq) == 5


async def test_a_limit_holds_over_a_crash_in_mid_step(dlq, make_queue, letters, working, pass_until, monkeypatch):
    """The reply of a step is lost with its process: what it may have done is not done again."""
    ordered = await standing.order(dlq, "purge", Query(), limit=2)
    apply = dlq.apply

    async def applied_and_died(batch):
        await apply(batch)
        raise BackendUnavailable("gone")

    monkeypatch.setattr(dlq, "apply", applied_and_died)
    working(dlq)

    async def stopped():
        return await dead(dlq) == 3

    await pass_until(stopped)
    monkeypatch.undo()
    other = make_queue()
    working(other)
    await pass_until(lambda: ended(other, ordered.id), step=0.2)
    assert await dead(dlq) == 3


async def test_a_mistake_ends_it_and_is_told(dlq, letters, working, pass_until, monkeypatch, caplog):
    ordered = await standing.order(dlq, "retry-all", Query(type="even"))

    async def broken(batch):
        raise RuntimeError("at /secret/place")

    monkeypatch.setattr(dlq, "apply", broken)
    working(dlq)
    await pass_until(lambda: ended(dlq, ordered.id))
    told = await standing.look(dlq, ordered.id)
    assert (told.state, told.error) == (OperationState.FAILED, "RuntimeError: the server's log says more")
    assert "secret/place" in caplog.text


async def test_letters_that_cannot_run_again_are_counted(dlq, letters, working, pass_until, monkeypatch):
    from deadletter.rules import changes

    real = changes.replay
    monkeypatch.setattr(
        changes, "replay", lambda row, op, **options: real(row, op, **options) if row.type == "odd" else None
    )
    ordered = await standing.order(dlq, "retry-all", Query(), limit=5)
    working(dlq)
    await pass_until(lambda: ended(dlq, ordered.id))
    told = await standing.look(dlq, ordered.id)
    assert (told.matched, told.changed, told.failed) == (5, 2, 3)


async def test_nobody_knows_another_id(dlq):
    for call in (standing.look, standing.call_off):
        with pytest.raises(TaskNotFound):
            await call(dlq, "nobody")
    assert await standing.listed(dlq) == []
    await standing.work(dlq, dlq)


async def test_a_store_that_is_away_is_asked_again(dlq, letters, working, pass_until, monkeypatch, caplog):
    ordered = await standing.order(dlq, "retry-all", Query(type="even"))
    sweep, times = dlq.backend.sweep, []

    async def away(*args):
        times.append(args)
        if len(times) < 3:
            raise BackendUnavailable("away")
        return await sweep(*args)

    monkeypatch.setattr(dlq.backend, "sweep", away)
    working(dlq)
    await pass_until(lambda: ended(dlq, ordered.id))
    assert "cannot look for operations" in caplog.text
    assert (await dlq.get(letters[0])).state is State.PENDING


async def test_it_erases_in_every_state_and_keeps_nothing_that_tells_of_a_person(dlq, letters, working, pass_until):
    """What an erase was ordered by is gone with what it erased; how many there were stays."""
    await dlq.enqueue(Task(type="even", payload={"n": 2}, delay=99))
    query = Query(type="even", payload={"n": 2})
    ordered = await standing.order(dlq, "erase", query, why="asked for")
    assert (ordered.kind, ordered.total, ordered.query["payload"]) == ("erase", 2, {"n": 2})
    working(dlq)
    await pass_until(lambda: ended(dlq, ordered.id))
    done = await standing.look(dlq, ordered.id)
    assert (done.state, done.matched, done.changed, done.why) == (DONE, 2, 2, "asked for")
    assert done.query == {"type": "even", "state": "dead", "payload": {"n": "(erased)"}}
    assert await dead(dlq) == 4
    assert (await dlq.stats()).by_state["pending"] == 0


async def test_an_erase_that_is_called_off_forgets_what_it_was_ordered_by(dlq, letters, working, pass_until):
    query = Query(ids=letters, error_contains="why")
    ordered = await standing.order(dlq, "erase", query, rate=0.5)
    assert (await standing.call_off(dlq, ordered.id)).query == {
        "state": "dead",
        "ids": ["(erased)"],
        "error_contains": "(erased)",
    }
    await standing.work(dlq, dlq)
    assert await dead(dlq) == 5


async def test_an_erase_goes_on_where_its_process_died(dlq, make_queue, letters, working, pass_until, monkeypatch):
    """It waits for what runs, and its limit holds over the crash."""
    ordered = await standing.order(dlq, "erase", Query(), limit=4, rate=1)
    with monkeypatch.context() as patch:

        async def vanish(self):
            return

        patch.setattr(standing._Doing, "give_back", vanish)
        dying = working(dlq)

        async def under_way():
            return await dead(dlq) in (3, 4)

        await pass_until(under_way)
        dying.cancel()
        await pass_until(lambda: dying.cancelled_caught)
    other = make_queue()
    working(other)
    await pass_until(lambda: ended(other, ordered.id), step=0.2)
    assert (await standing.look(other, ordered.id)).state == DONE
    assert await dead(dlq) == 1
