"""What an insert promises: all or nothing, safe to repeat, and one owner per id and key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from ..model.record import Reason
from ..model.row import Inserted, NewRow, Row
from ..rules import changes
from .material import DONE, KEEP_MS, LEASE_MS, Promises, Store, failure, letter, new, nonzero, op

STORED, EXISTS = Inserted.STORED, Inserted.EXISTS
TASK_CONFLICT, KEY_CONFLICT = Inserted.TASK_CONFLICT, Inserted.KEY_CONFLICT

HOSTILE = (
    "}{",
    "a:b",
    "*",
    "a?[b]",
    "'; DROP TABLE rows; --",
    '"quoted" `ticked`',
    "100%",
    "a_b",
    "\\n\\",
    "ünï🎈",
    "new\nline",
    "{{7*7}}",
    "<script>",
    "x" * 200,
)


class InsertPromises(Promises):
    """Promises of ``Backend.insert``."""

    async def test_a_new_row_is_stored_as_it_was_given(self, store: Store) -> None:
        """What is inserted can be loaded, field by field, with times on the store's clock."""
        now_ms = store.clock.now_ms()
        given = new("a", priority=2, key="k", due_ms=500, expires_ms=900, keep_ms=KEEP_MS, redact="card", release="1.2")
        [insertion] = await store.insert(given)
        assert (insertion.verdict, insertion.id, insertion.state) == (STORED, "a", "pending")
        row = await store.row()
        assert (row.id, row.type, row.priority, row.state, row.key) == ("a", "t", 2, "pending", "k")
        assert (row.digest, row.body, row.redact, row.release) == ("digest of a", b"body of a", "card", "1.2")
        assert (row.created_ms, row.since_ms, row.due_ms) == (now_ms, now_ms, now_ms + 500)
        assert (row.expires_ms, row.keep_ms, row.keep_until_ms) == (now_ms + 900, KEEP_MS, None)
        assert (row.attempts, row.generation, row.token, row.ended_ms, row.history) == (0, 0, None, None, [])

    async def test_the_same_id_and_digest_exists(self, store: Store) -> None:
        """A repeated insert answers `exists` with the row as it stands, and stores nothing."""
        row = await store.running()
        [insertion] = await store.insert(new("a", body=b"another encoding of the same payload"))
        assert (insertion.verdict, insertion.id, insertion.state) == (EXISTS, "a", "running")
        assert (insertion.token, insertion.lease_ms, insertion.generation) == (row.token, row.lease_ms, 0)
        assert (await store.row()).body == b"body of a"

    async def test_the_same_id_with_another_digest_is_a_conflict(self, store: Store) -> None:
        """An id names one task for as long as it is known: another payload under it is refused."""
        await store.put(new("a"))
        [insertion] = await store.insert(new("a", digest="other"))
        assert (insertion.verdict, insertion.id) == (TASK_CONFLICT, "a")

    @pytest.mark.parametrize("clash", ["id", "key"])
    async def test_one_conflict_stores_nothing_of_the_call(self, store: Store, clash: str) -> None:
        """All or nothing: where any row of a call conflicts, no row of it is stored, and no counter or tally moves.

        Where a queue is spread, that holds in each part, and the rest of the call may be repeated.
        """
        await store.put(new("a", key="k"))
        before = await store.counts()
        bad = new("a", key="k", digest="other") if clash == "id" else new("x", key="k")
        verdicts = [insertion.verdict for insertion in await store.insert(new("b", key="kb"), bad, new("c"))]
        assert (TASK_CONFLICT if clash == "id" else KEY_CONFLICT) in verdicts
        if not self.ordered:
            answers = [await store.insert(each) for each in (new("b", key="kb"), new("c"))]
            assert {answer.verdict for [answer] in answers} <= {STORED, EXISTS}
            assert [await store.state(id_) for id_ in "bcx"] == ["pending", "pending", None]
            return
        assert [await store.state(id_) for id_ in "bcx"] == [None, None, None]
        after = await store.counts()
        assert (after.tally, after.lifetime) == (before.tally, before.lifetime)
        await store.put(new("b", key="kb"))  # the key was not bound either

    async def test_rows_of_one_call_meet_each_other(self, store: Store) -> None:
        """The same id or key twice in one call is stored once: the second answers `exists`."""
        twin = new("b", key="k", digest="same")
        answers = await store.insert(new("a"), new("a"), twin, attrs.evolve(twin, id="c"))
        assert [(answer.verdict, answer.id) for answer in answers] == [
            (STORED, "a"),
            (EXISTS, "a"),
            (STORED, "b"),
            (EXISTS, "b"),
        ]
        assert await store.state("c") is None
        assert sum((await store.counts()).tally.values()) == 2

    async def test_rows_of_one_call_conflict_with_each_other(self, store: Store) -> None:
        """Two payloads under one id in one call are a conflict, and nothing of the call stays."""
        answers = await store.insert(new("a"), new("a", digest="other"))
        assert answers[-1].verdict is TASK_CONFLICT
        assert await store.state() is None
        assert (await store.claim()).rows == []

    async def test_a_call_without_rows_is_nothing(self, store: Store) -> None:
        """Empty calls answer empty."""
        assert await store.insert() == []
        assert await store.apply() == []
        assert await store.backend.load(store.queue, []) == []

    async def test_a_running_row_can_be_inserted(self, store: Store) -> None:
        """The effect guard begins in one call: inserted RUNNING, with its token, lease and owner."""
        now_ms = store.clock.now_ms()
        [insertion] = await store.insert(new("g", state="running", token="mine", lease_ms=LEASE_MS, owner="w"))
        assert (insertion.verdict, insertion.token, insertion.lease_ms) == (STORED, "mine", now_ms + LEASE_MS)
        row = await store.row("g")
        assert (row.state, row.token, row.owner, row.started) == ("running", "mine", "w", True)
        assert (await store.claim()).rows == []
        store.pass_ms(LEASE_MS)
        assert await store.sweep() == ["g"]

    async def test_a_guards_stored_answer_is_given_to_who_comes_later(self, store: Store) -> None:
        """A completed guard keeps its result, and an insert that meets it is answered with that result."""
        guard = new("g", state="running", token="mine", lease_ms=LEASE_MS)
        await store.put(guard)
        assert (await store.insert(guard))[0].body is None
        await store.must(changes.complete("g", "mine", op(), b"result", KEEP_MS))
        [later] = await store.insert(attrs.evolve(guard, token="other"))
        assert (later.verdict, later.state, later.body) == (EXISTS, "succeeded", b"result")

    async def test_a_captured_letter_is_inserted_dead(self, store: Store) -> None:
        """A letter arrives with its failures and its keep, is scanned at once and never claimed."""
        now_ms = store.clock.now_ms()
        await store.put(letter("a", keep_ms=KEEP_MS, attempts=2, history=[failure(1), failure(2, message="last")]))
        row = await store.row()
        assert (row.state, row.reason, row.attempts) == ("dead", "captured", 2)
        assert (row.ended_ms, row.keep_until_ms) == (now_ms, now_ms + KEEP_MS)
        assert (row.fingerprint, row.error_type, row.worker, row.release) == (
            "f00d",
            "builtins.ValueError",
            "w1",
            "1.0",
        )
        assert [told.message for told in row.history] == ["no 1", "last"]
        assert {told.at_ms for told in row.history} == {now_ms}
        assert [row.id for row in await store.scanned()] == ["a"]
        assert (await store.claim(ids=["a"])).words == {"a": "dead"}

    async def test_an_imported_letter_keeps_its_story(self, store: Store) -> None:
        """What an import counts is stored as given."""
        await store.put(letter("a", attempts=7, lease_losses=3, postpones=2, replays=1))
        row = await store.row()
        assert (row.attempts, row.lease_losses, row.postpones, row.replays) == (7, 3, 2, 1)

    async def test_an_imported_letter_keeps_its_times(self, store: Store) -> None:
        """Absolute times of an import are stored as given, failures included, and its keep counts from its death."""
        now_ms = store.clock.now_ms()
        history = [failure(at_ms=now_ms - 6_000)]
        given = letter("a", history=history, created_at_ms=now_ms - 9_000, ended_at_ms=now_ms - 5_000, keep_ms=KEEP_MS)
        await store.put(given)
        row = await store.row()
        assert (row.created_ms, row.ended_ms) == (now_ms - 9_000, now_ms - 5_000)
        assert row.keep_until_ms == now_ms - 5_000 + KEEP_MS
        assert [told.at_ms for told in row.history] == [now_ms - 6_000]

    async def test_an_absolute_due_time_is_kept(self, store: Store) -> None:
        """A task for a date is due at that date of the store's clock, whenever it was inserted."""
        await store.put(new("a", due_at_ms=store.clock.now_ms() + 1_000))
        store.pass_ms(999)
        assert await store.claimed() == []
        store.pass_ms(1)
        assert await store.claimed() == ["a"]

    @pytest.mark.parametrize("text", HOSTILE)
    async def test_hostile_names_are_only_names(self, store: Store, text: str) -> None:
        """Whatever an id, type, key or queue looks like, it is data: found as given, and nothing else is touched."""
        await store.put(new("bystander", type="bystander", key="bystander"))
        strange = Store(store.backend, store.clock, text[:100])
        await strange.put(new(text, type=text, key=text, redact=text, release=text))
        row = await strange.row(text)
        assert (row.id, row.type, row.key, row.redact, row.release) == (text, text, text, text, text)
        assert (await strange.insert(new("x", key=text)))[0].verdict is KEY_CONFLICT
        [row] = (await strange.claim(types=[text], owner=text)).rows
        await strange.must(changes.die(row, op(), Reason.PERMANENT, failure(message=text, error_type=text), None))
        [row] = await strange.scanned(type=text, error_type=text, history=20)
        assert (row.id, row.owner, row.history[0].message) == (text, None, text)
        assert nonzero_keys(await strange.counts()) == [("dead", 1, text, "permanent")]
        assert await store.claimed(types=["bystander"]) == ["bystander"]

    async def test_a_large_body_comes_back_whole(self, store: Store) -> None:
        """A megabyte of arbitrary bytes is stored and claimed unchanged."""
        body = bytes(range(256)) * 4_096
        await store.put(new("a", body=body))
        assert (await store.claim()).rows[0].body == body


def nonzero_keys(counted: Any) -> list[tuple[str, int, str, str]]:
    """What the tally counts at all."""
    return [key for key, n in counted.tally.items() if n]


def keyed(id: str, **fields: Any) -> NewRow:
    """A row that is bound to the key ``k``."""
    return new(id, **{"key": "k", "digest": "same", **fields})


End = Callable[[Store, Row], Any]


async def _purged(store: Store, row: Row) -> None:
    await store.must(changes.die(row, op(), Reason.PERMANENT, failure(), None))
    await store.must(changes.purge(await store.row(), op(), KEEP_MS))


async def _cancelled(store: Store, row: Row) -> None:
    await store.must(changes.release(row, op()))
    await store.must(changes.cancel(await store.row(), op(), KEEP_MS))


async def _discarded(store: Store, row: Row) -> None:
    await store.must(changes.discard(row, op(), KEEP_MS, "not wanted"))


async def _erased(store: Store, row: Row) -> None:
    await store.must(changes.erase(row, op(), KEEP_MS))


class KeyPromises(Promises):
    """Promises about idempotency keys."""

    async def test_a_key_is_bound_while_its_task_lives(self, store: Store) -> None:
        """Same key, same digest: the bound row is told, pending or running, and nothing is stored."""
        await store.put(keyed("a"))
        [pending] = await store.insert(keyed("b"))
        assert (pending.verdict, pending.id, pending.state) == (EXISTS, "a", "pending")
        await store.claim()
        [running] = await store.insert(keyed("c"))
        assert (running.verdict, running.id, running.state) == (EXISTS, "a", "running")
        assert [await store.state(id_) for id_ in "bc"] == [None, None]

    async def test_a_key_with_another_digest_is_a_conflict(self, store: Store) -> None:
        """Same key, other payload: a conflict that names the bound row."""
        await store.put(keyed("a"))
        [insertion] = await store.insert(keyed("b", digest="other"))
        assert (insertion.verdict, insertion.id) == (KEY_CONFLICT, "a")

    async def test_a_key_stays_bound_to_its_dead_task(self, store: Store) -> None:
        """A dead letter keeps its key, so that nothing is dropped or rerun in silence; its replay keeps it too."""
        row = await store.dead("a", key="k", digest="same")
        [dead] = await store.insert(keyed("b"))
        assert (dead.verdict, dead.id, dead.state, dead.generation) == (EXISTS, "a", "dead", 0)
        await store.must(changes.replay(row, op(), type="u", body=b"edited"))
        [replayed] = await store.insert(keyed("b"))
        assert (replayed.verdict, replayed.id, replayed.state, replayed.generation) == (EXISTS, "a", "pending", 1)

    async def test_a_key_is_remembered_after_success_for_its_keep(self, store: Store) -> None:
        """After success the key stays bound for its keep; then it is free, without any sweep."""
        row = await store.running("a", key="k", digest="same")
        await store.must(changes.succeed(row, op(), KEEP_MS))
        store.pass_ms(KEEP_MS - 1)
        [remembered] = await store.insert(keyed("b"))
        assert (remembered.verdict, remembered.id, remembered.state) == (EXISTS, "a", "succeeded")
        store.pass_ms(1)
        await store.put(keyed("c", digest="other"))
        assert await store.state("a") is None

    async def test_what_is_past_its_keep_makes_room_for_its_own_repeat(self, store: Store) -> None:
        """A task whose memory ran out is stored anew under the same id and key, and counted once."""
        row = await store.running("a", key="k", digest="same")
        await store.must(changes.succeed(row, op(), KEEP_MS))
        store.pass_ms(KEEP_MS)
        await store.put(keyed("a"))
        assert nonzero_keys(await store.counts()) == [("pending", 1, "t", "")]
        assert (await store.counts()).tally["pending", 1, "t", ""] == 1
        assert await store.claimed() == ["a"]

    @pytest.mark.parametrize("end", [_purged, _cancelled, _discarded, _erased], ids=lambda end: end.__name__[1:])
    async def test_a_key_is_free_in_the_step_that_takes_its_task_away(self, store: Store, end: End) -> None:
        """Purge, cancel, discard and erase free the key at once, while the id is remembered by a tombstone."""
        await end(store, await store.running("a", key="k", digest="same"))
        [repeat] = await store.insert(keyed("a"))
        assert (repeat.verdict, repeat.id, repeat.state) == (EXISTS, "a", "gone")
        await store.put(keyed("b", digest="other"))
        assert await store.state("a") is None

    async def test_a_letter_kept_for_no_time_makes_room_within_its_own_call(self, store: Store) -> None:
        """A letter without any keep that its own call meets again is stored once, and tally and sweep agree."""
        given = letter("a", key="k", keep_ms=0)
        verdicts = [insertion.verdict for insertion in await store.insert(given, attrs.evolve(given, id="b"), given)]
        assert verdicts == [STORED] * 3
        assert nonzero(await store.counts()) == {("dead", 1, "t", "captured"): 1}
        await store.sweep()
        assert nonzero(await store.counts()) == {}
        await store.put(new("c", key="k"))

    async def test_a_tombstone_is_forgotten_after_its_keep(self, store: Store) -> None:
        """A discarded id is stored anew once its tombstone is past its keep."""
        await store.gone("a", keep_ms=KEEP_MS)
        store.pass_ms(KEEP_MS)
        await store.put(new("a", digest="other"))
        assert await store.state() == "pending"

    async def test_an_abandoned_guard_is_free_at_once(self, store: Store) -> None:
        """A guarded effect that did not happen leaves its key free for the next who tries."""
        guard = new("g", state="running", token="mine", lease_ms=LEASE_MS, key="k")
        await store.put(guard)
        assert await store.apply(changes.abandon("g", "mine", op())) == [DONE]
        await store.put(attrs.evolve(guard, token="other"))
        assert (await store.row("g")).token == "other"

    async def test_keys_of_other_queues_are_other_keys(self, store: Store) -> None:
        """Queues with different names never see each other: not their ids, keys, rows, counts or events."""
        other = Store(store.backend, store.clock, "other")
        await store.put(keyed("a"))
        await other.put(keyed("a", digest="other"))
        [row] = (await store.claim()).rows
        assert row.digest == "same"
        assert await other.state() == "pending"
        assert await other.apply(changes.succeed(row, op(), KEEP_MS)) != [DONE]
        await store.must(changes.die(row, op(), Reason.PERMANENT, failure(), 1))
        assert await other.scanned() == []
        store.pass_ms(1)
        assert await other.sweep() == []
        assert await store.state() == "dead"
        assert nonzero_keys(await other.counts()) == [("pending", 1, "t", "")]
