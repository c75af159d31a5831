"""What a change does: row, key, history, tally, counters and event together."""

from __future__ import annotations

import attrs
import pytest

from ..model.record import Reason
from ..rules import changes
from .material import KEEP_MS, LEASE_MS, Promises, Store, failure, letter, new, op


class ApplyPromises(Promises):
    """Promises about the effects of ``Backend.apply``."""

    async def test_success_drops_the_payload_and_is_remembered(self, store: Store) -> None:
        """A succeeded row counts its attempt, keeps no payload and no failures, and is known for its keep."""
        row = await store.running()
        await store.must(changes.try_again(row, op(), failure(), 0))
        [row] = (await store.claim()).rows
        store.pass_ms(10)
        now_ms = store.clock.now_ms()
        await store.must(changes.succeed(row, op(), KEEP_MS))
        row = await store.row()
        assert (row.state, row.attempts, row.ended_ms, row.keep_until_ms) == ("succeeded", 2, now_ms, now_ms + KEEP_MS)
        assert (row.body, row.history, row.error_type, row.fingerprint) == (None, [], None, None)
        assert (row.token, row.lease_ms, row.owner) == (None, None, None)
        lifetime = (await store.counts()).lifetime
        assert lifetime["succeeded", "t", ""] == 1
        assert lifetime["retry_attempts", "t", ""] == lifetime["retry_success", "t", ""] == 1

    @pytest.mark.parametrize("keep_ms", [KEEP_MS, None])
    async def test_death_makes_a_letter(self, store: Store, keep_ms: int | None) -> None:
        """A dead row keeps payload and failures, says why and since when, and for how long it is kept."""
        row = await store.running(keep_ms=1)
        store.pass_ms(10)
        now_ms = store.clock.now_ms()
        await store.must(changes.die(row, op(), Reason.REJECTED, failure(), keep_ms))
        row = await store.row()
        assert (row.state, row.reason, row.attempts, row.ended_ms) == ("dead", "rejected", 1, now_ms)
        assert row.keep_until_ms == (None if keep_ms is None else now_ms + keep_ms)
        assert row.body == b"body of a"
        assert (row.fingerprint, row.error_type, row.worker, row.release) == (
            "f00d",
            "builtins.ValueError",
            "w1",
            "1.0",
        )
        assert row.history == [failure(at_ms=now_ms)]
        assert (row.token, row.lease_ms, row.owner, row.started) == (None, None, None, False)
        counted = await store.counts()
        assert {key: n for key, n in counted.tally.items() if n} == {("dead", 1, "t", "rejected"): 1}
        assert counted.lifetime["dead", "t", "rejected"] == 1
        assert counted.lifetime["failures", "t", "builtins.ValueError"] == 1
        assert counted.oldest_dead_ms == now_ms

    async def test_another_attempt_waits_its_delay(self, store: Store) -> None:
        """A failed attempt counts, is kept in the history, and the row is due after the delay."""
        row = await store.running(expires_ms=99)
        await store.must(changes.try_again(row, op(), failure(), 500))
        row = await store.row()
        assert (row.state, row.attempts, row.due_ms) == ("pending", 1, store.clock.now_ms() + 500)
        assert (row.error_type, len(row.history), row.expires_ms) == ("builtins.ValueError", 1, None)
        assert (row.token, row.lease_ms, row.owner) == (None, None, None)

    async def test_a_postponed_row_lost_no_attempt(self, store: Store) -> None:
        """Postponing counts in `postpones` alone."""
        row = await store.running()
        await store.must(changes.postpone(row, op(), 500))
        row = await store.row()
        assert (row.state, row.attempts, row.postpones, row.due_ms) == ("pending", 0, 1, store.clock.now_ms() + 500)
        assert row.history == []
        assert (await store.counts()).lifetime["postponed", "t", ""] == 1

    async def test_a_released_row_is_as_if_never_claimed(self, store: Store) -> None:
        """Released, a row is due as before, without attempt, loss or failure."""
        await store.put(new("a", expires_ms=9_000, due_ms=5))
        before = await store.row()
        [row] = (await store.claim(ids=["a"])).rows
        await store.must(changes.release(row, op()))
        row = await store.row()
        assert attrs.evolve(row, op=None, keep_ms=None) == attrs.evolve(before, op=None, keep_ms=None)

    async def test_a_discarded_row_leaves_only_a_tombstone(self, store: Store) -> None:
        """Discarded: no payload, no failures, no key, not counted in any state; the id is known for its keep."""
        row = await store.running(key="k")
        await store.must(changes.discard(row, op(), KEEP_MS, "not wanted"))
        row = await store.row()
        assert (row.state, row.body, row.history, row.key) == ("gone", None, [], None)
        assert row.keep_until_ms == store.clock.now_ms() + KEEP_MS
        counted = await store.counts()
        assert not any(counted.tally.values())
        assert counted.lifetime["discarded", "t", ""] == 1
        assert (await store.claim(ids=["a"])).words == {"a": "missing"}

    async def test_an_extended_lease_ends_later(self, store: Store) -> None:
        """A lease that is extended is counted from now, and is not answered by a sweep before its new end."""
        row = await store.running()
        store.pass_ms(LEASE_MS - 1)
        await store.must(changes.extend(row, op(), LEASE_MS))
        assert (await store.row()).lease_ms == store.clock.now_ms() + LEASE_MS
        store.pass_ms(LEASE_MS - 1)
        assert await store.sweep() == []
        store.pass_ms(1)
        assert await store.sweep() == ["a"]

    async def test_an_attempt_that_outlives_its_timeout_keeps_its_lease(self, store: Store) -> None:
        """The failure is recorded while the row stays leased; its next attempt waits until the thread has ended."""
        row = await store.running()
        await store.must(changes.outlive(row, op(), failure(message="timed out")))
        row = await store.row()
        assert (row.state, row.attempts, row.started, len(row.history)) == ("running", 1, False, 1)
        await store.must(changes.yield_thread(row, op(), 500))
        row = await store.row()
        assert (row.state, row.attempts, row.due_ms) == ("pending", 1, store.clock.now_ms() + 500)

    async def test_a_lapsed_lease_counts_a_loss_where_it_had_started(self, store: Store) -> None:
        """A vanished worker costs a loss, no attempt; the row is due at once and its expiry is off."""
        await store.put(new("a", expires_ms=LEASE_MS * 9, due_ms=5))
        await store.claim(ids=["a"], owner="w9", lease_ms=LEASE_MS)
        store.pass_ms(LEASE_MS)
        [row] = await store.backend.sweep(store.queue, 100)
        await store.must(changes.lapse(row, op(), on_uncertain="retry", max_lease_losses=3))
        row = await store.row()
        assert (row.state, row.attempts, row.lease_losses, row.expires_ms) == ("pending", 0, 1, None)
        assert (row.due_ms, row.lease_ms, row.owner) == (store.clock.now_ms(), None, None)
        assert (await store.counts()).lifetime["lost", "t", ""] == 1

    async def test_a_held_row_loses_nothing_by_a_lapse(self, store: Store) -> None:
        """What was claimed and not started is put back as it was."""
        await store.put(new("a"))
        [row] = (await store.claim(start=0)).rows
        store.pass_ms(LEASE_MS)
        await store.must(changes.lapse(row, op(), on_uncertain="dead", max_lease_losses=1))
        row = await store.row()
        assert (row.state, row.lease_losses) == ("pending", 0)

    async def test_a_pill_dies_of_a_loss_while_alone(self, store: Store) -> None:
        """Only a loss while it ran alone makes a row dead as `worker_lost`, with the claimer's keep."""
        await store.put(new("a"))
        [row] = (await store.claim(ids=["a"], alone=True, keep_ms=KEEP_MS, owner="w9")).rows
        store.pass_ms(LEASE_MS)
        await store.must(changes.lapse(row, op(), on_uncertain="retry", max_lease_losses=1))
        row = await store.row()
        assert (row.state, row.reason, row.error_type) == ("dead", "worker_lost", "deadletter.WorkerLost")
        assert row.keep_until_ms == store.clock.now_ms() + KEEP_MS
        assert "w9" in row.history[0].message

    async def test_an_expired_row_dies(self, store: Store) -> None:
        """What nobody tried before its expiry becomes a letter that says so."""
        await store.put(new("a", expires_ms=10, keep_ms=KEEP_MS))
        store.pass_ms(10)
        await store.must(changes.expire(await store.row(), op()))
        row = await store.row()
        assert (row.state, row.reason, row.attempts) == ("dead", "expired", 0)
        assert row.keep_until_ms == store.clock.now_ms() + KEEP_MS

    async def test_a_replay_gives_a_letter_another_life(self, store: Store) -> None:
        """A replayed letter is pending with its history, a new generation, no losses, no end and no expiry."""
        await store.put(letter("a", key="k", expires_ms=5, keep_ms=KEEP_MS))
        store.pass_ms(50)
        now_ms = store.clock.now_ms()
        note = failure(1, message="payload edited", error_type="deadletter.Edited")
        change = changes.replay(await store.row(), op(), delay_ms=5, type="u", body=b"edited", note=note)
        await store.must(change)
        row = await store.row()
        assert (row.state, row.type, row.body, row.key) == ("pending", "u", b"edited", "k")
        assert (row.generation, row.replays, row.attempts, row.lease_losses) == (1, 1, 0, 0)
        assert (row.ended_ms, row.keep_until_ms, row.expires_ms, row.reason) == (None, None, None, None)
        assert (row.due_ms, row.since_ms, row.created_ms) == (now_ms + 5, now_ms, now_ms - 50)
        assert [told.message for told in row.history] == ["no 1", "payload edited"]
        assert row.digest == "digest of a"  # as first enqueued: an edit makes no conflict
        assert {key: n for key, n in (await store.counts()).tally.items() if n} == {("pending", 1, "u", ""): 1}
        store.pass_ms(5)
        assert await store.claimed() == []
        assert await store.claimed(types=["u"]) == ["a"]

    async def test_a_replay_may_keep_its_attempts(self, store: Store) -> None:
        """Without a reset the attempts go on counting."""
        await store.must(changes.replay(await store.dead(), op(), reset=False))
        row = await store.row()
        assert (row.attempts, row.type, row.body, len(row.history)) == (1, "t", b"body of a", 1)

    async def test_a_replay_clears_lease_losses(self, store: Store) -> None:
        """A pill that was mended is no suspect any more: it may lose its worker again before it runs alone."""
        await store.put(new("a"))
        [row] = (await store.claim(ids=["a"], alone=True)).rows
        store.pass_ms(LEASE_MS)
        await store.must(changes.lapse(row, op(), on_uncertain="retry", max_lease_losses=1))
        row = await store.row()
        assert (row.state, row.lease_losses) == ("dead", 1)
        await store.must(changes.replay(row, op()))
        row = await store.row()
        assert (row.lease_losses, row.alone) == (0, False)
        assert await store.claimed(max_losses=1) == ["a"]

    async def test_a_replayed_letter_may_die_again(self, store: Store) -> None:
        """Each death of each generation is one letter, scanned once under its newest death."""
        await store.must(changes.replay(await store.dead(), op()))
        store.pass_ms(7)
        [row] = (await store.claim()).rows
        await store.must(changes.die(row, op(), Reason.REJECTED, failure(2), KEEP_MS))
        [row] = await store.scanned(history=20)
        assert (row.ended_ms, row.reason, row.generation) == (store.clock.now_ms(), "rejected", 1)
        assert [told.attempt for told in row.history] == [1, 2]
        assert (await store.counts()).oldest_dead_ms == store.clock.now_ms()

    @pytest.mark.parametrize("first", ["purge", "replay"])
    async def test_purge_and_replay_have_one_winner(self, store: Store, first: str) -> None:
        """Whichever of purge and replay comes first wins; the other finds nothing of its own."""
        row = await store.dead()
        made = [changes.purge(row, op(), KEEP_MS), changes.replay(row, op())]
        made = made if first == "purge" else made[::-1]
        assert (await store.apply(*made))[0] == "done"
        assert (await store.apply(attrs.evolve(made[1], op=op())))[0] != "done"
        assert await store.state() == (None if first == "purge" else "pending")

    async def test_a_purge_does_not_reach_the_next_generation(self, store: Store) -> None:
        """A letter that was replayed and died again is another letter than the one the purge saw."""
        row = await store.dead()
        await store.must(changes.replay(row, op()))
        await store.must(changes.die((await store.claim()).rows[0], op(), Reason.REJECTED, failure(), KEEP_MS))
        assert await store.apply(changes.purge(row, op(), KEEP_MS)) == ["stale"]
        assert await store.state() == "dead"

    @pytest.mark.parametrize("state", ["pending", "running", "dead", "succeeded"])
    async def test_an_erased_task_leaves_no_trace(self, store: Store, state: str) -> None:
        """Erased in whatever state: no payload, no failure, no key; only the id, as a tombstone."""
        if state == "dead":
            await store.dead(key="k")
        elif state == "pending":
            await store.put(new("a", key="k"))
        else:
            row = await store.running(key="k")
            if state == "succeeded":
                await store.must(changes.succeed(row, op(), KEEP_MS))
        await store.must(changes.erase(await store.row(), op(), KEEP_MS))
        row = await store.row()
        assert (row.state, row.body, row.key, row.history, row.error_type) == ("gone", None, None, [], None)
        assert not any((await store.counts()).tally.values())
        assert await store.claimed() == []
        assert await store.scanned(state=state) == []

    async def test_a_lapsed_guard_is_taken_over_once(self, store: Store) -> None:
        """A guard's lapsed lease goes to the first who takes it; who held it before is a stranger now."""
        await store.put(new("g", state="running", token="old", lease_ms=LEASE_MS, owner="w1"))
        row = await store.row("g")
        store.pass_ms(LEASE_MS)
        heirs = [changes.take_over(row, op(), token, LEASE_MS, "w2") for token in ("new", "newer")]
        assert await store.apply(*heirs) == ["done", "stale"]
        row = await store.row("g")
        assert (row.token, row.owner, row.lease_ms) == ("new", "w2", store.clock.now_ms() + LEASE_MS)
        assert await store.apply(changes.complete("g", "old", op(), b"late", KEEP_MS)) == ["stale"]
        await store.must(changes.complete("g", "new", op(), b"result", KEEP_MS))
        assert (await store.row("g")).body == b"result"

    async def test_an_unreadable_row_keeps_its_bytes(self, store: Store) -> None:
        """What cannot be decoded is quarantined as a letter, its bytes untouched."""
        row = await store.running(body=b"\xff\x00")
        await store.must(changes.quarantine(row, op(), "not JSON", KEEP_MS))
        row = await store.row()
        assert (row.state, row.reason, row.body, row.attempts) == ("dead", "undecodable", b"\xff\x00", 0)

    async def test_the_history_keeps_the_last_twenty(self, store: Store) -> None:
        """Of many failures the oldest are dropped, and the order stays."""
        await store.put(new("a"))
        for n in range(1, 24):
            [row] = (await store.claim()).rows
            await store.must(changes.try_again(row, op(), failure(n, traceback=f"frames {n % 3}"), 0))
        row = await store.row()
        assert [told.attempt for told in row.history] == list(range(4, 24))
        assert [told.traceback for told in row.history] == [f"frames {n % 3}" for n in range(4, 24)]
        assert row.attempts == 23

    async def test_counters_are_raised_where_a_row_is_stored(self, store: Store) -> None:
        """Counters that come with a new row are raised with it, and a duplicate is counted instead of them."""
        given = new("a", count=[("captured", "t", "")])
        await store.put(given)
        await store.insert(given)
        lifetime = (await store.counts()).lifetime
        assert (lifetime["captured", "t", ""], lifetime["duplicates", "t", "pending"]) == (1, 1)

    async def test_counts_know_ages_and_what_is_overdue(self, store: Store) -> None:
        """The oldest pending and dead are told, and what has been due for over a minute, by type."""
        now_ms = store.clock.now_ms()
        empty = await store.counts()
        assert (empty.oldest_pending_ms, empty.oldest_dead_ms, dict(empty.overdue)) == (None, None, {})
        await store.put(new("a"), letter("d"))
        store.pass_ms(60_000)
        await store.put(new("b", type="u"), letter("e"))
        assert (await store.counts()).overdue.get("t", 0) == 0
        store.pass_ms(1)
        counted = await store.counts()
        assert (counted.oldest_pending_ms, counted.oldest_dead_ms, dict(counted.overdue)) == (now_ms, now_ms, {"t": 1})
        await store.claim()
        await store.must(changes.purge(await store.row("d"), op(), KEEP_MS))
        counted = await store.counts()
        assert (counted.oldest_pending_ms, counted.oldest_dead_ms) == (now_ms + 60_000, now_ms + 60_000)
