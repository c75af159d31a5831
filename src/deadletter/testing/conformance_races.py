"""What holds when many act at once, and after any sequence of steps."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs
import pytest

from ..interfaces.backend import Backend
from ..model.record import Reason
from ..model.row import DEAD, PENDING, RUNNING, SUCCEEDED, Change, Inserted, Row
from ..rules import changes
from .material import DONE, KEEP_MS, Promises, Store, failure, letter, new, nonzero, op, tally
from .virtual_clock import VirtualClock


async def together(*acts: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Do all at once in this loop; the answers in order."""
    answers: list[Any] = [None] * len(acts)

    async def run(at: int) -> None:
        answers[at] = await acts[at]()

    async with anyio.create_task_group() as group:
        for at in range(len(acts)):
            group.start_soon(run, at)
    return answers


async def in_threads(backend_name: str, *acts: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Do each in an event loop of its own in a thread of its own; the answers in order."""
    return await together(
        *(lambda act=act: anyio.to_thread.run_sync(lambda: anyio.run(act, backend=backend_name)) for act in acts)
    )


async def _at_rest(store: Store, ids: list[str]) -> tuple[Any, list[Row]]:
    """Counts and rows between which nothing moved: what a cancelled caller began may still be going on."""
    while True:
        counts = nonzero(await store.counts())
        rows = [await store.row(id_) for id_ in ids]
        if counts == nonzero(await store.counts()):
            return counts, rows


class RacePromises(Promises):
    """Promises about who wins, and that nothing is lost or made up."""

    async def test_threads_never_share_a_row(self, store: Store, anyio_backend_name: str) -> None:
        """Claimed and settled from several event loops in several threads, each row is run once and none is lost."""
        await store.put(*(new(f"{n:02}") for n in range(80)))

        async def work() -> list[str]:
            done: list[str] = []
            while rows := (await store.claim(limit=4)).rows:
                await store.must(*(changes.succeed(row, op(), KEEP_MS) for row in rows))
                done += [row.id for row in rows]
            return done

        taken = await in_threads(anyio_backend_name, *[work] * 4)
        assert sorted(id_ for ids in taken for id_ in ids) == [f"{n:02}" for n in range(80)]
        assert nonzero(await store.counts()) == {("succeeded", 1, "t", ""): 80}

    async def test_one_of_many_inserts_is_stored(self, store: Store, anyio_backend_name: str) -> None:
        """The same key from several threads at once is bound to one task, and all are told the same id."""

        def insert(n: int) -> Callable[[], Awaitable[Any]]:
            return lambda: store.insert(new(f"{n}", key="k", digest="same"))

        answers = [answer for [answer] in await in_threads(anyio_backend_name, *(insert(n) for n in range(6)))]
        assert Counter(answer.verdict for answer in answers) == {Inserted.STORED: 1, Inserted.EXISTS: 5}
        assert len({answer.id for answer in answers}) == 1
        assert nonzero(await store.counts()) == {("pending", 1, "t", ""): 1}

    async def test_purge_replay_and_erase_have_one_winner(self, store: Store, anyio_backend_name: str) -> None:
        """However they race, one change of a letter wins, and its row, tally and counter agree on which."""
        for n in range(4):
            row = await store.dead(f"{n}")
            made = [changes.purge(row, op(), KEEP_MS), changes.replay(row, op()), changes.erase(row, op(), KEEP_MS)]
            verdicts = await in_threads(anyio_backend_name, *map(self._applying(store), made))
            assert [verdict for [verdict] in verdicts].count(DONE) == 1
            winner = made[[verdict for [verdict] in verdicts].index(DONE)]
            assert (await store.row(f"{n}")).state == winner.to

    async def test_settle_and_lapse_have_one_winner(self, store: Store) -> None:
        """A settle and the sweep of its lease at once: the attempt counts once, whoever was first."""
        for n in range(8):
            row = await store.running(f"{n}", lease_ms=1)
            store.pass_ms(1)
            lapse = changes.lapse(row, op(), on_uncertain="dead", max_lease_losses=3)
            verdicts = await together(*map(self._applying(store), [lapse, changes.succeed(row, op(), KEEP_MS)]))
            assert [verdict for [verdict] in verdicts].count(DONE) == 1
        lifetime = (await store.counts()).lifetime
        assert lifetime.get(("succeeded", "t", ""), 0) + lifetime.get(("dead", "t", "uncertain"), 0) == 8

    @staticmethod
    def _applying(store: Store) -> Callable[[Change], Callable[[], Awaitable[Any]]]:
        return lambda change: lambda: store.apply(change)

    async def test_a_cancelled_caller_breaks_nothing(self, store: Store) -> None:
        """A caller that is cancelled in mid-step leaves a store that answers the others as before."""
        ids = [f"{n}" for n in range(20)]
        await store.put(*map(new, ids))
        for _ in range(10):
            async with anyio.create_task_group() as group:
                group.start_soon(store.claimed)
                group.start_soon(store.row, "0")
                await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            with anyio.fail_after(10):
                counts, rows = await _at_rest(store, ids)
                assert counts == tally(rows)
                await store.must(*(changes.release(row, op()) for row in rows if row.state == RUNNING))

    async def test_open_and_close_may_be_repeated(
        self, store: Store, reopen: Callable[[Backend, VirtualClock], Backend]
    ) -> None:
        """Opening twice, at once, and beside another opening of the same store does no harm; nor does closing twice."""
        await store.put(new("a", key="k"), letter("d"))
        other = Store(reopen(store.backend, store.clock), store.clock)
        await together(store.backend.open, other.backend.open, other.backend.open)
        assert await other.claimed() == ["a"]
        assert (await store.row("a")).state == "running"
        assert nonzero(await other.counts()) == nonzero(await store.counts())
        if other.backend is not store.backend:
            await other.backend.aclose()
            await other.backend.aclose()
        assert await store.state("d") == "dead"

    @pytest.mark.parametrize("seed", range(4))
    async def test_counts_equal_a_recount(self, store: Store, seed: int) -> None:
        """After any sequence of steps the tally is what a recount finds, and lifetime counters are what was done."""
        chance = random.Random(seed)  # noqa: S311 - a sequence, no secret
        did: Counter[str] = Counter()
        ids = [f"{n}" for n in range(12)]
        for step in range(120):
            if step % 6 == 0:
                fields = {
                    "priority": chance.randrange(3),
                    "type": chance.choice("tu"),
                    "key": chance.choice([None, "k"]),
                }
                made = chance.choice([new, letter])(chance.choice(ids), digest="same", **fields)
                await store.insert(made)
            elif step % 6 == 1:
                await store.claim(types=["t", "u"], limit=2, start=1, lease_ms=20)
            else:
                rows = [row for row in await store.backend.load(store.queue, ids) if row is not None]
                for row in chance.sample(rows, min(2, len(rows))):
                    for change in self._some(chance, row):
                        [verdict] = await store.apply(change)
                        did[change.event or "-"] += verdict == DONE
            store.pass_ms(chance.choice([0, 1, 10]))
            if step % 20 == 19:
                await store.sweep(3)
        rows = [row for row in await store.backend.load(store.queue, ids) if row is not None]
        counted = await store.counts()
        assert nonzero(counted) == tally(rows)
        total: Counter[str] = Counter()
        for (name, _, _), n in counted.lifetime.items():
            total[name] += n
        for event in ("dead", "replayed", "purged", "discarded", "cancelled", "erased"):
            assert total[event] == did[event], event

    @staticmethod
    def _some(chance: random.Random, row: Row) -> list[Change]:
        stranger = attrs.evolve(row, token="stranger", generation=row.generation + 1)
        made: dict[str, Callable[[Row], Change]] = {
            PENDING: lambda row: changes.cancel(row, op(), 30),
            SUCCEEDED: lambda row: changes.erase(row, op(), 30),
            DEAD: lambda row: chance.choice([changes.replay(row, op()), changes.purge(row, op(), 30)]),
            RUNNING: lambda row: chance.choice(
                [
                    changes.succeed(row, op(), 30),
                    changes.die(row, op(), Reason.REJECTED, failure(), 30),
                    changes.try_again(row, op(), failure(), 5),
                    changes.discard(row, op(), 30, "why"),
                    changes.lapse(row, op(), on_uncertain="dead", max_lease_losses=1),
                    changes.release(row, op()),
                ]
            ),
        }
        return [made[row.state](chance.choice([row, stranger]))] if row.state in made else []
