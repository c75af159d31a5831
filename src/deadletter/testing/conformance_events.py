"""What is promised to who listens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.to_thread
import pytest
from anyio.abc import TaskStatus

from ..model.row import EventRow
from ..rules import changes
from .material import KEEP_MS, LEASE_MS, Promises, Store, failure, letter, new, op

PATIENCE_S = 10


async def told(
    store: Store, n: int, after: int | None = 0, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> list[EventRow]:
    """The next ``n`` events after a seq; as a task, it has started once it listens."""
    found: list[EventRow] = []
    with anyio.fail_after(PATIENCE_S):
        async with store.backend.listen(store.queue, after) as signals:
            task_status.started()
            while len(found) < n:
                signal = await anext(signals)
                if isinstance(signal, EventRow):
                    found.append(signal)
    return found


async def woken(store: Store, act: Callable[[], Awaitable[object]]) -> None:
    """Fail unless a listener gets a signal by what is done."""
    with anyio.fail_after(PATIENCE_S):
        async with store.backend.listen(store.queue) as signals, anyio.create_task_group() as group:
            heard = anyio.Event()

            async def hear() -> None:
                await anext(signals)
                heard.set()

            group.start_soon(hear)
            await anyio.wait_all_tasks_blocked()
            assert not heard.is_set()
            await act()
            await heard.wait()


class EventPromises(Promises):
    """Promises of ``Backend.listen``."""

    async def test_each_end_is_told_once_in_order(self, store: Store) -> None:
        """Stored events come in the order of their steps, each with a seq above the last, when, what and why."""
        now_ms = store.clock.now_ms()
        await store.put(letter("captured", reason="captured"))
        row = await store.dead("a")
        await store.must(changes.replay(row, op(), why="fixed"))
        await store.must(changes.discard((await store.claim()).rows[0], op(), KEEP_MS, "not wanted"))
        await store.must(changes.purge(await store.row("captured"), op(), KEEP_MS, "old"))
        await store.gone("c")
        await store.must(changes.erase(await store.running("e"), op(), KEEP_MS))
        row = await store.running("l")
        store.pass_ms(LEASE_MS)
        await store.must(changes.lapse(row, op(), on_uncertain="retry", max_lease_losses=3))
        events = await told(store, 8)
        expected = [
            ("dead", "captured"),
            ("dead", "a"),
            ("replayed", "a"),
            ("discarded", "a"),
            ("purged", "captured"),
            ("cancelled", "c"),
            ("erased", "e"),
            ("lost", "l"),
        ]
        by_what = {(event.kind, event.task_id): event for event in events}
        assert self.as_ordered(by_what) == self.as_ordered(expected)
        seqs = [event.seq for event in events]
        assert seqs == (list(range(seqs[0], seqs[0] + 8)) if self.ordered else sorted(set(seqs)))
        assert not any(event.missed for event in events)
        assert [event.at_ms for event in events] == [now_ms] * 7 + [now_ms + LEASE_MS]
        assert {event.type for event in events} == {"t"}
        assert by_what["dead", "captured"].detail["reason"] == "captured"
        died = by_what["dead", "a"].detail
        assert (died["reason"], died["fingerprint"]) == ("permanent", "f00d")
        assert [by_what[what].detail.get("why") for what in expected[2:5]] == ["fixed", "not wanted", "old"]

    async def test_repeats_and_refusals_tell_nothing(self, store: Store) -> None:
        """Only what happened is told: no event of a duplicate insert, a repeated, a stale or a missing change."""
        given = letter("a")
        await store.put(given)
        await store.insert(given)
        await store.insert(letter("b"), letter("a", digest="other"))
        change = changes.replay(await store.row(), op())
        await store.apply(change, change, changes.purge(await store.row(), op(), KEEP_MS))
        await store.put(letter("last"))
        found = [(event.kind, event.task_id) for event in await told(store, 3)]
        assert self.as_ordered(found) == self.as_ordered([("dead", "a"), ("replayed", "a"), ("dead", "last")])

    async def test_a_pause_and_its_end_are_told_once(self, store: Store) -> None:
        """A pause is a pending row of its own queue: told once whoever repeats it, and gone with a word of why."""
        await store.put(new("p", type="mail.*", key="k"))
        row = await store.row("p")
        announced = changes.announce(row, op(), "down")
        assert await store.apply(announced, announced) == ["done", "repeated"]
        assert await store.state("p") == "pending"
        await store.must(changes.lift(row, op(), "up again"))
        assert await store.apply(changes.lift(row, op(), "twice")) == ["missing"]
        await store.put(new("q", type="mail.*", key="k"))
        assert [(event.kind, event.type, event.detail.get("why")) for event in await told(store, 2)] == [
            ("paused", "mail.*", "down"),
            ("resumed", "mail.*", "up again"),
        ]

    async def test_letters_past_their_keep_are_told_by_number(self, store: Store) -> None:
        """Forgetting letters is one event per type and step that says how many; what merely ended is not told."""
        await store.gone("g", keep_ms=5)
        await store.put(letter("a", keep_ms=5), letter("b", keep_ms=5))
        store.pass_ms(5)
        await store.sweep()
        await store.put(letter("last"))
        events = await told(store, 5)
        assert [event.kind for event in events[:3]] == self.as_ordered(["cancelled", "dead", "dead"])
        purged = [event for event in events if event.kind == "purged"]
        assert {(event.task_id, event.type) for event in purged} == {(None, "t")}
        assert [event.count for event in purged] == [2] or not self.ordered

    async def test_who_comes_back_misses_nothing(self, store: Store) -> None:
        """With the seq of the last event seen, listening goes on right after it."""
        for id_ in "abcd":
            await store.put(letter(id_))
        events = await told(store, 4)
        rest = await told(store, 2, after=events[1].seq)
        assert rest == events[2:]
        assert self.as_ordered(str(event.task_id) for event in events) == ["a", "b", "c", "d"]

    async def test_who_comes_new_hears_only_what_is_new(self, store: Store) -> None:
        """Without a seq, listening starts now: what happened before is not told."""
        await store.put(letter("before"))
        with anyio.fail_after(PATIENCE_S):
            async with store.backend.listen(store.queue) as signals:
                await store.put(letter("after"))
                while not isinstance(signal := await anext(signals), EventRow):
                    pass
        assert signal.task_id == "after"

    async def test_an_event_comes_while_one_waits(self, store: Store) -> None:
        """A listener that waits gets an event as it happens."""
        found: list[EventRow] = []

        async def wait(*, task_status: TaskStatus[None]) -> None:
            found.extend(await told(store, 2, after=None, task_status=task_status))

        async with anyio.create_task_group() as group:
            await group.start(wait)
            await store.put(letter("a"))
            await store.put(letter("b"))
        assert [event.task_id for event in found] == ["a", "b"]

    async def test_new_work_wakes_a_listener(self, store: Store) -> None:
        """An idle worker that listens wakes when a task is enqueued."""
        await woken(store, lambda: store.put(new("a")))

    @pytest.mark.parametrize("way", ["try_again", "release", "replay"])
    async def test_work_that_comes_back_wakes_a_listener(self, store: Store, way: str) -> None:
        """An idle worker wakes when a change makes a row pending again."""
        row = await (store.dead() if way == "replay" else store.running())
        change = {
            "try_again": changes.try_again(row, op(), failure(), 0),
            "release": changes.release(row, op()),
            "replay": changes.replay(row, op()),
        }[way]
        await woken(store, lambda: store.must(change))

    async def test_work_from_another_thread_wakes_a_listener(self, store: Store, anyio_backend_name: str) -> None:
        """A task enqueued by another event loop in another thread wakes a worker here."""

        def enqueue() -> None:
            anyio.run(store.put, new("a"), backend=anyio_backend_name)

        await woken(store, lambda: anyio.to_thread.run_sync(enqueue))

    async def test_listeners_come_and_go(self, store: Store) -> None:
        """Several listen at once; one that stops takes nothing from the others, nor does one that is cancelled."""
        heard: list[str] = []

        async def listen(name: str, *, task_status: TaskStatus[None]) -> None:
            events = await told(store, 2, after=None, task_status=task_status)
            heard.extend([f"{name}{event.task_id}" for event in events])

        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as cancelled:
                cancelled.cancel()
                await told(store, 1, after=None)
            for name in "xy":
                await group.start(listen, name)
            async with store.backend.listen(store.queue):
                await store.put(letter("1"))
            await store.put(letter("2"))
        assert sorted(heard) == ["x1", "x2", "y1", "y2"]
