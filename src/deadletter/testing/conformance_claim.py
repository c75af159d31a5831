"""What a claim promises: the right rows in the right order, each to one claimer."""

from __future__ import annotations

import anyio
import pytest

from ..model.row import Claim
from ..rules import changes
from .material import DONE, KEEP_MS, LEASE_MS, Promises, Store, failure, letter, new, op


class ClaimPromises(Promises):
    """Promises of ``Backend.claim``."""

    async def test_a_claim_leases_what_is_due(self, store: Store) -> None:
        """A claimed row is RUNNING, with body, a token of its own, an owner, a lease and the claimer's keep."""
        await store.put(new("a"), new("b"))
        claimed = await store.claim(lease_ms=LEASE_MS, owner="w9", keep_ms=KEEP_MS)
        assert [row.id for row in claimed.rows] == ["a", "b"]
        assert claimed.now_ms == store.clock.now_ms()
        assert len({row.token for row in claimed.rows} - {None}) == 2
        for row in claimed.rows:
            assert (row.state, row.owner, row.started, row.alone) == ("running", "w9", True, False)
            assert (row.lease_ms, row.keep_ms) == (claimed.now_ms + LEASE_MS, KEEP_MS)
            assert row.body == f"body of {row.id}".encode()
            assert await store.row(row.id, history=0) == row

    async def test_a_claimed_row_is_not_claimed_again(self, store: Store) -> None:
        """What is leased belongs to one claimer, even past its lease, until a change takes it from there."""
        await store.running()
        assert await store.claimed() == []
        store.pass_ms(LEASE_MS * 10)
        assert await store.claimed() == []
        assert (await store.claim(ids=["a"])).words == {"a": "running"}

    async def test_a_claim_keeps_to_its_limit(self, store: Store) -> None:
        """Never more rows than asked for; the rest stays pending and its due time is told."""
        await store.put(*(new(f"{n}") for n in range(5)))
        first = await store.claim(limit=2)
        assert first.next_due_ms is not None
        assert first.next_due_ms <= first.now_ms
        parts = [[row.id for row in first.rows], *[await store.claimed(limit=2) for _ in range(2)]]
        assert [len(part) for part in parts] == [2, 2, 1]
        assert self.as_ordered(id_ for part in parts for id_ in part) == ["0", "1", "2", "3", "4"]

    async def test_the_oldest_due_comes_first(self, store: Store) -> None:
        """Within a priority and over all asked types, rows come by due time."""
        await store.put(new("d", due_ms=40), new("a", due_ms=10), new("c", type="u", due_ms=30))
        store.pass_ms(1)
        await store.put(new("b", type="u", due_ms=19))
        store.pass_ms(1_000)
        assert await store.claimed(types=["t", "u"]) == ["a", "b", "c", "d"]

    async def test_rows_due_at_the_same_time_come_by_id(self, store: Store) -> None:
        """Ids rise with time, so equal due times are first come, first served."""
        for id_ in ("b", "c", "a"):
            await store.put(new(id_))
        assert self.as_ordered([*await store.claimed(limit=2), *await store.claimed(limit=2)]) == ["a", "b", "c"]

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
    async def test_priorities_come_in_the_order_asked_for(self, store: Store, order: tuple[int, ...]) -> None:
        """The first rank of `order` wins over any due time: strict priority, and its reversal that keeps low alive."""
        for rank in (2, 1, 0):
            await store.put(new(f"x{rank}", priority=rank), new(f"y{rank}", priority=rank))
            store.pass_ms(5)
        assert await store.claimed(order=order) == [f"{name}{rank}" for rank in order for name in "xy"]

    async def test_only_ranks_asked_for_are_claimed(self, store: Store) -> None:
        """A rank that `order` leaves out stays where it is."""
        await store.put(new("a", priority=0), new("b", priority=2))
        assert await store.claimed(order=(2,)) == ["b"]
        assert await store.state("a") == "pending"

    async def test_what_is_not_due_waits(self, store: Store) -> None:
        """A row is claimed from its due time on, never before, and a claim tells when that is."""
        now_ms = store.clock.now_ms()
        await store.put(new("later", due_ms=5_000), new("soon", due_ms=1_000), new("else", type="u", due_ms=10))
        claimed = await store.claim()
        assert (claimed.rows, claimed.next_due_ms) == ([], now_ms + 1_000)
        store.pass_ms(999)
        assert await store.claimed() == []
        store.pass_ms(1)
        claimed = await store.claim()
        assert [row.id for row in claimed.rows] == ["soon"]
        assert claimed.next_due_ms == now_ms + 5_000

    async def test_nothing_pending_has_no_due_time(self, store: Store) -> None:
        """Where no row of the asked types is pending, there is no next due time."""
        await store.put(new("a", type="unknown"), letter("d"))
        await store.running("b")
        claimed = await store.claim()
        assert (claimed.rows, claimed.next_due_ms, claimed.suspects) == ([], None, False)
        assert (await store.claim(types=[])).rows == []

    async def test_unknown_types_neither_hide_nor_hinder(self, store: Store) -> None:
        """Older rows of a type that nobody here knows are left alone, and the others come as if they were not there."""
        for start in range(0, 500, 100):
            await store.put(*(new(f"u{n:03}", type="unknown") for n in range(start, start + 100)))
        store.pass_ms(10)
        await store.put(new("a"))
        claimed = await store.claim(limit=1)
        assert ([row.id for row in claimed.rows], claimed.next_due_ms) == (["a"], None)
        assert (await store.claimed(types=["unknown"], limit=2) == ["u000", "u001"]) or not self.ordered

    async def test_what_left_the_line_does_not_hide_what_stands_in_it(self, store: Store) -> None:
        """After rows at the head were claimed by id, cancelled or put off, those behind them still come in order."""
        await store.put(new("a"), new("b"), new("c"), new("d", due_ms=50_000), new("e", type="u", due_ms=10))
        await store.claim(ids=["a"])
        await store.must(changes.cancel(await store.row("b"), op(), KEEP_MS))
        [row] = (await store.claim(ids=["c"])).rows
        await store.must(changes.postpone(row, op(), 40_000))
        store.pass_ms(20)
        claimed = await store.claim(types=["t", "u"])
        assert [row.id for row in claimed.rows] == ["e"]
        store.pass_ms(60_000)
        assert await store.claimed(types=["t", "u"]) == ["c", "d"]

    async def test_a_row_that_comes_back_stands_in_line_by_its_new_due_time(self, store: Store) -> None:
        """A released row keeps its place; one that tries again is due after its delay."""
        row = await store.running("a")
        store.pass_ms(5)
        await store.put(new("b"))
        await store.must(changes.release(row, op()))
        [row, _] = (await store.claim()).rows
        assert row.id == "a"
        await store.must(changes.try_again(row, op(), failure(), 1_000))
        assert await store.claimed() == []
        store.pass_ms(1_000)
        assert await store.claimed() == ["a"]

    async def test_the_first_are_started_and_the_rest_held(self, store: Store) -> None:
        """Of one claim the first `start` rows are started, the others only held, so that a crash blames what ran."""
        await store.put(*(new(f"{n}") for n in range(4)))
        rows = (await store.claim(start=2)).rows
        told = [row.started for row in rows]
        if not self.ordered:  # a part may have had fewer rows than were to be started there
            assert told == sorted(told, reverse=True)
            assert (len(told), sum(told) <= 2) == (4, True)
            return
        assert told == [True, True, False, False]
        await store.must(changes.start(rows[2], op()))
        assert [(await store.row(f"{n}")).started for n in range(4)] == [True, True, True, False]

    async def test_asked_for_ids_are_claimed_due_or_not(self, store: Store) -> None:
        """A claim by id takes the row before its due time, and says in a word why another one cannot be had."""
        await store.put(new("p", due_ms=99_000), new("e", expires_ms=1_000), letter("d"))
        await store.running("r")
        await store.must(changes.succeed(await store.running("s"), op(), KEEP_MS))
        await store.gone("g")
        store.pass_ms(1_000)
        ids = ["p", "e", "d", "r", "s", "g", "nobody"]
        claimed = await store.claim(ids=ids, types=[], limit=len(ids))
        assert [row.id for row in claimed.rows] == ["p"]
        assert dict(claimed.words) == {
            "e": "expired",
            "d": "dead",
            "r": "running",
            "s": "succeeded",
            "g": "missing",
            "nobody": "missing",
        }

    async def test_every_asked_for_id_is_answered(self, store: Store) -> None:
        """A full claim by id names each id once, in its rows or in its words."""
        ids = [f"{n:02}" for n in range(100)]
        await store.put(*(new(id_) for id_ in ids[:50]))
        claimed = await store.claim(ids=ids, limit=100)
        assert [row.id for row in claimed.rows] == ids[:50]
        assert dict(claimed.words) == dict.fromkeys(ids[50:], "missing")

    def test_no_claim_asks_for_more_ids_than_it_may_take(self) -> None:
        """More ids than `limit` are refused before any backend sees them, so that none is left without an answer."""
        with pytest.raises(ValueError, match="2 ids"):
            Claim(op=op(), ids=["a", "b"])

    async def test_what_is_expired_is_not_claimed(self, store: Store) -> None:
        """A row whose expiry has come is left for the sweep, and does not hide the rows behind it."""
        await store.put(new("a", expires_ms=1_000), new("b"))
        store.pass_ms(999)
        assert await store.claimed(limit=1) == ["a"]
        await store.put(new("c", expires_ms=1, due_at_ms=0))
        store.pass_ms(1)
        assert await store.claimed() == ["b"]

    async def test_a_repeated_claim_answers_with_the_same_rows(self, store: Store) -> None:
        """Sent again after a reply that never came, a claim leases no further row: same ids, tokens, bodies."""
        await store.put(*(new(f"{n}") for n in range(4)))
        lost = await store.claim(op="again", limit=2)
        repeat = await store.claim(op="again", limit=2)
        assert repeat.rows == lost.rows
        states = self.as_ordered([str(await store.state(f"{n}")) for n in range(4)])
        assert states == self.as_ordered(["running", "running", "pending", "pending"])
        assert await store.apply(changes.succeed(repeat.rows[0], op(), KEEP_MS)) == [DONE]

    async def test_a_claim_of_no_types_answers_what_its_op_had_got(self, store: Store) -> None:
        """Where all types are paused after an answer was lost, what it leased is met by its op; nothing new is leased."""
        await store.put(new("a"), new("b"))
        lost = await store.claim(op="again", limit=1)
        assert len(lost.rows) == 1
        assert (await store.claim(op="again", types=[], limit=2)).rows == lost.rows
        assert (await store.claim(types=[], limit=2)).rows == []

    async def test_a_repeated_claim_by_id_answers_with_the_same_row(self, store: Store) -> None:
        """Sent again, a claim by id is not told that its own row runs elsewhere."""
        await store.put(new("a"))
        lost = await store.claim(op="again", ids=["a", "nobody"])
        repeat = await store.claim(op="again", ids=["a", "nobody"])
        assert repeat.rows == lost.rows
        assert [row.id for row in repeat.rows] == ["a"]
        assert dict(repeat.words) == {"nobody": "missing"}

    async def test_a_claim_brings_the_last_failure(self, store: Store) -> None:
        """A claimed row comes with its last failure, so that its processor can see it."""
        row = await store.running()
        await store.must(changes.try_again(row, op(), failure(1), 0))
        [row] = (await store.claim()).rows
        await store.must(changes.try_again(row, op(), failure(2), 0))
        [row] = (await store.claim()).rows
        assert (row.attempts, [told.attempt for told in row.history]) == (2, [2])

    async def test_suspects_are_hidden_and_told(self, store: Store) -> None:
        """A row whose workers vanished too often is left out and told by `suspects`; others are claimed as ever."""
        await self._lose(store, "a", 2)
        await store.put(new("b"))
        claimed = await store.claim(max_losses=2)
        assert ([row.id for row in claimed.rows], claimed.suspects) == (["b"], True)
        claimed = await store.claim(max_losses=3)
        assert ([row.id for row in claimed.rows], claimed.suspects) == (["a"], False)

    async def test_a_suspect_is_claimed_alone(self, store: Store) -> None:
        """An `alone` claim takes one suspect and marks it, and leaves what is no suspect."""
        await store.put(new("b"))
        await self._lose(store, "a", 2)
        [row] = (await store.claim(limit=1, max_losses=2, alone=True)).rows
        assert (row.id, row.alone) == ("a", True)
        assert (await store.claim(limit=1, max_losses=2, alone=True)).rows == []
        assert await store.state("b") == "pending"

    async def test_a_claim_by_id_marks_suspects_alone(self, store: Store) -> None:
        """Only what is to be judged by its next loss is marked: of its neighbours in one claim nobody is alone."""
        await self._lose(store, "a", 2)
        await store.put(new("b"))
        await self._lose(store, "c", 1)
        claimed = await store.claim(ids=["a", "b", "c"], limit=3, max_losses=2, alone=True)
        assert {row.id: row.alone for row in claimed.rows} == {"a": True, "b": False, "c": False}
        assert {id_: (await store.row(id_)).alone for id_ in "abc"} == {"a": True, "b": False, "c": False}
        repeated = await store.claim(op=claimed.rows[0].op, ids=["a", "b", "c"], limit=3, max_losses=2, alone=True)
        assert {row.id: row.alone for row in repeated.rows} == {"a": True, "b": False, "c": False}

    async def test_a_claim_by_id_can_be_alone(self, store: Store) -> None:
        """One attempt asked for by id runs a suspect as alone."""
        await self._lose(store, "a", 2)
        [row] = (await store.claim(ids=["a"], max_losses=2, alone=True)).rows
        assert row.alone

    @staticmethod
    async def _lose(store: Store, id_: str, times: int) -> None:
        await store.put(new(id_))
        for _ in range(times):
            [row] = (await store.claim(ids=[id_], lease_ms=1)).rows
            store.pass_ms(1)
            await store.must(changes.lapse(row, op(), on_uncertain="retry", max_lease_losses=9))

    async def test_claims_at_the_same_time_never_share_a_row(self, store: Store) -> None:
        """However many claim at once, each row has one owner, and none is left behind."""
        await store.put(*(new(f"{n:02}") for n in range(60)))
        taken: list[str] = []

        async def claimer(name: str) -> None:
            while rows := (await store.claim(limit=3, owner=name)).rows:
                taken.extend(row.id for row in rows)

        async with anyio.create_task_group() as group:
            for n in range(6):
                group.start_soon(claimer, f"w{n}")
        assert sorted(taken) == [f"{n:02}" for n in range(60)]

    async def test_only_the_stores_clock_counts(self, store: Store) -> None:
        """What a step means by now is one reading of the store's clock: every time it stores or answers agrees."""
        store.pass_ms(12_345)
        now_ms = store.clock.now_ms()
        await store.put(new("a", due_ms=0))
        claimed = await store.backend.claim(store.queue, Claim(op=op(), types=["t"], lease_ms=7))
        [row] = claimed.rows
        assert (row.created_ms, row.due_ms, row.lease_ms, claimed.now_ms) == (now_ms, now_ms, now_ms + 7, now_ms)
        assert (await store.backend.inspect()).now_ms == now_ms
        assert (await store.counts()).now_ms == now_ms
