"""The machine by itself; what it promises together with a store is said by the conformance suite."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.model.record import Reason
from deadletter.model.row import FORMAT, GONE, Change, Claim, FailureRow, Inserted, NewRow, Row, Verdict
from deadletter.rules import changes, machine

NOW = 1_000_000


def row(**fields: Any) -> Row:
    return Row(**{"id": "a", "type": "t", "priority": 1, "state": "pending", "digest": "d", "body": b"body", **fields})


def running(**fields: Any) -> Row:
    return row(**{"state": "running", "token": "tok", "owner": "w", "lease_ms": NOW + 10, "started": True, **fields})


def dead(**fields: Any) -> Row:
    told = {"state": "dead", "reason": "rejected", "ended_ms": NOW, "error_type": "E", "fingerprint": "f"}
    return row(**{**told, "history": [failure()], **fields})


def failure(**fields: Any) -> FailureRow:
    told = {"error_type": "E", "message": "no", "fingerprint": "f", "worker": "w", "release": "1"}
    return FailureRow(**{"attempt": 1, **told, **fields})


def new(**fields: Any) -> NewRow:
    return NewRow(**{"id": "a", "type": "t", "digest": "d", "body": b"body", **fields})


def admitted(*news: NewRow, stored: tuple[Row, ...] = ()) -> tuple[machine.Admission, machine.Journal]:
    journal = machine.Journal()
    ids = {bound.id: bound for bound in stored}
    keys = {bound.key: bound for bound in stored if bound.key is not None}
    return machine.admit(news, ids, keys, NOW, journal), journal


class TestAdmit:
    def test_a_new_row_is_stored_and_counted(self) -> None:
        admission, journal = admitted(new(count=[("captured", "t", "")]))
        [insertion] = admission.insertions
        assert (insertion.verdict, insertion.now_ms) == (Inserted.STORED, NOW)
        assert journal.tally == {("pending", 1, "t", ""): 1}
        assert journal.lifetime == {("captured", "t", ""): 1}
        assert journal.work
        assert not journal.events

    def test_a_letter_is_told_and_wakes_nobody(self) -> None:
        admission, journal = admitted(new(state="dead", reason="captured", history=[failure()], keep_ms=5))
        [stored] = admission.stored
        assert (stored.ended_ms, stored.keep_until_ms, stored.started) == (NOW, NOW + 5, False)
        [event] = journal.events
        assert (event.kind, event.detail) == ("dead", {"reason": "captured", "fingerprint": "f"})
        assert not journal.work

    def test_a_guard_begins_running(self) -> None:
        admission, journal = admitted(new(state="running", token="tok", lease_ms=5, release="9"))
        assert admission.insertions[0].lease_ms == admission.stored[0].lease_ms == NOW + 5
        assert admission.stored[0].release == "9"
        assert not journal.work

    def test_absolute_times_stay(self) -> None:
        told = [failure(at_ms=3)]
        admission, _ = admitted(
            new(state="dead", history=told, created_at_ms=1, ended_at_ms=4, due_at_ms=2, keep_ms=10, expires_ms=7)
        )
        [stored] = admission.stored
        assert (stored.created_ms, stored.due_ms, stored.ended_ms, stored.keep_until_ms) == (1, 2, 4, 14)
        assert (stored.history[0].at_ms, stored.expires_ms) == (3, NOW + 7)

    def test_a_letter_keeps_the_last_twenty_failures(self) -> None:
        admission, _ = admitted(new(state="dead", history=[failure(attempt=n) for n in range(25)]))
        assert [told.attempt for told in admission.stored[0].history] == list(range(5, 25))

    @pytest.mark.parametrize("state", ["pending", "running", "succeeded", "dead", "gone"])
    def test_what_is_bound_already_exists(self, state: str) -> None:
        """The stored answer is given only where there is one: of a succeeded row."""
        admission, journal = admitted(new(), stored=(row(state=state, generation=3),))
        [insertion] = admission.insertions
        assert (insertion.verdict, insertion.state, insertion.generation) == (Inserted.EXISTS, state, 3)
        assert insertion.body == (b"body" if state == "succeeded" else None)
        assert admission.stored == []
        assert (journal.tally, journal.lifetime) == ({}, {("duplicates", "t", state): 1})

    @pytest.mark.parametrize(
        ("given", "verdict"),
        [
            (new(digest="other"), Inserted.TASK_CONFLICT),
            (new(id="b", key="k", digest="other"), Inserted.KEY_CONFLICT),
            (new(digest="other", key="k"), Inserted.TASK_CONFLICT),
        ],
    )
    def test_a_conflict_leaves_no_note(self, given: NewRow, verdict: Inserted) -> None:
        """Nothing of the call is stored, counted or told, what came before the conflict included."""
        admission, journal = admitted(new(id="c"), given, new(id="d"), stored=(row(key="k"),))
        assert [insertion.verdict for insertion in admission.insertions] == [Inserted.STORED, verdict]
        assert (admission.stored, admission.forgotten) == ([], [])
        assert journal == machine.Journal()

    def test_rows_of_one_call_meet_by_id_and_by_key(self) -> None:
        admission, journal = admitted(new(key="k"), new(), new(id="b", key="k"))
        assert [insertion.id for insertion in admission.insertions] == ["a", "a", "a"]
        assert len(admission.stored) == 1
        assert journal.lifetime == {("duplicates", "t", "pending"): 2}

    @pytest.mark.parametrize("copies", [False, True])
    def test_what_is_past_its_keep_makes_room_once(self, copies: bool) -> None:
        """A row bound by id and by key at once is forgotten once, also where a backend read it twice."""
        old = row(state="succeeded", key="k", keep_until_ms=NOW)
        journal = machine.Journal()
        keys = {"k": attrs.evolve(old) if copies else old}
        admission = machine.admit([new(key="k", digest="other")], {"a": old}, keys, NOW, journal)
        assert [insertion.verdict for insertion in admission.insertions] == [Inserted.STORED]
        assert admission.forgotten == [old]
        assert journal.tally == {("succeeded", 1, "t", ""): -1, ("pending", 1, "t", ""): 1}
        assert journal.wiped == ["a"]

    def test_a_letter_kept_for_no_time_that_is_met_again_by_its_own_call(self) -> None:
        """It was never stored, so it is not forgotten either: one row stays, and is counted once."""
        given = new(state="dead", reason="captured", key="k", keep_ms=0)
        admission, journal = admitted(given, attrs.evolve(given, id="b"), given)
        assert [insertion.verdict for insertion in admission.insertions] == [Inserted.STORED] * 3
        assert ([stored.id for stored in admission.stored], admission.forgotten) == (["a"], [])
        assert {key: n for key, n in journal.tally.items() if n} == {("dead", 1, "t", "captured"): 1}
        assert journal.lifetime == {("aged_out", "t", ""): 2}

    def test_a_forgotten_tombstone_has_no_key_to_free(self) -> None:
        old = row(state="gone", keep_until_ms=NOW)
        admission, journal = admitted(new(digest="other"), stored=(old,))
        assert (admission.forgotten, journal.tally) == ([old], {("pending", 1, "t", ""): 1})

    def test_a_forgotten_letter_frees_its_key_for_another_id(self) -> None:
        old = dead(key="k", keep_until_ms=NOW - 1)
        admission, journal = admitted(new(id="b", key="k", digest="other"), stored=(old,))
        assert (admission.forgotten, len(admission.stored)) == ([old], 1)
        assert journal.lifetime == {("aged_out", "t", ""): 1}


class TestForgotten:
    @pytest.mark.parametrize("state", ["succeeded", "dead", "gone"])
    def test_an_ended_row_goes_with_its_keep(self, state: str) -> None:
        assert not machine.forgotten(row(state=state, keep_until_ms=NOW + 1), NOW)
        assert machine.forgotten(row(state=state, keep_until_ms=NOW), NOW)
        assert not machine.forgotten(row(state=state), NOW)

    @pytest.mark.parametrize("state", ["pending", "running"])
    def test_a_live_row_is_never_forgotten(self, state: str) -> None:
        assert not machine.forgotten(row(state=state, keep_until_ms=NOW - 9), NOW)

    def test_a_tombstone_is_in_no_tally(self) -> None:
        journal = machine.Journal()
        machine.forget(row(state="gone"), journal)
        assert (journal.tally, journal.lifetime, journal.wiped) == ({}, {}, ["a"])


class TestClaim:
    @pytest.mark.parametrize(
        ("stored", "word"),
        [
            (row(), None),
            (row(expires_ms=NOW + 1), None),
            (row(expires_ms=NOW), "expired"),
            (row(state="gone"), "missing"),
            (row(state="running"), "running"),
            (row(state="dead"), "dead"),
            (row(state="succeeded"), "succeeded"),
            (row(format=FORMAT + 1), "newer"),
        ],
    )
    def test_a_word_says_why_not(self, stored: Row, word: str | None) -> None:
        assert machine.claimable(stored, NOW) == word

    def test_a_lease_has_a_token_of_its_own(self) -> None:
        claim = Claim(op="o", lease_ms=5, owner="w", start=1, alone=True, keep_ms=9)
        journal = machine.Journal()
        taken = [row(id="a", keep_ms=1), row(id="b")]
        for index, each in enumerate(taken):
            machine.take(each, claim, index, NOW, journal)
        assert [each.token for each in taken] == ["o-a", "o-b"]
        assert [each.started for each in taken] == [True, False]
        for each in taken:
            assert (each.state, each.op, each.owner, each.alone) == ("running", "o", "w", True)
            assert (each.lease_ms, each.keep_ms) == (NOW + 5, 9)
        assert journal.tally == {("pending", 1, "t", ""): -2, ("running", 1, "t", ""): 2}


def verdict(stored: Row | None, change: Change) -> Verdict:
    """The verdict; a refusal must leave row and journal alone."""
    before, journal = attrs.evolve(stored) if stored is not None else None, machine.Journal()
    answer = machine.apply(stored, change, NOW, journal)
    if answer is not Verdict.DONE:
        assert stored == before
        assert journal == machine.Journal()
    return answer


class TestFence:
    def test_nothing_is_made_of_nothing(self) -> None:
        assert verdict(None, changes.succeed(running(), "o", 1)) is Verdict.MISSING
        assert verdict(row(state="gone"), changes.succeed(running(), "o", 1)) is Verdict.MISSING

    def test_the_last_op_is_remembered(self) -> None:
        """Also by a tombstone: whoever sent the discard twice is told that it was done."""
        assert verdict(row(state="gone", op="o"), changes.discard(running(), "o", 1, "")) is Verdict.REPEATED
        assert verdict(running(op="o"), changes.succeed(running(), "o", 1)) is Verdict.REPEATED

    @pytest.mark.parametrize(
        "stored",
        [
            row(),
            dead(),
            running(token="other"),
            running(format=FORMAT + 1),
            row(token="other"),
        ],
        ids=["pending", "dead", "token", "newer", "late stranger"],
    )
    def test_a_settle_of_somebody_else_is_stale(self, stored: Row) -> None:
        assert verdict(stored, changes.succeed(running(), "o", 1)) is Verdict.STALE

    def test_a_late_settle_wants_its_own_token(self) -> None:
        assert verdict(row(token="tok"), changes.succeed(running(), "o", 1)) is Verdict.DONE
        assert verdict(row(token="tok"), changes.extend(running(), "o", 1)) is Verdict.STALE
        assert verdict(dead(token="tok"), changes.succeed(running(), "o", 1)) is Verdict.STALE

    def test_a_generation_is_a_fence(self) -> None:
        assert verdict(dead(generation=1), changes.purge(dead(), "o", 1)) is Verdict.STALE
        assert verdict(dead(generation=1), changes.purge(dead(generation=1), "o", 1)) is Verdict.DONE

    @pytest.mark.parametrize("limit_ms", [NOW, NOW - 1])
    def test_what_lapsed_may_be_swept(self, limit_ms: int) -> None:
        stored = running(lease_ms=limit_ms)
        assert verdict(stored, changes.lapse(stored, "o", on_uncertain="retry", max_lease_losses=3)) is Verdict.DONE
        stored = row(expires_ms=limit_ms)
        assert verdict(stored, changes.expire(stored, "o")) is Verdict.DONE

    @pytest.mark.parametrize("limit_ms", [NOW + 1, None])
    def test_what_has_not_lapsed_may_not(self, limit_ms: int | None) -> None:
        stored = running(lease_ms=limit_ms)
        assert verdict(stored, changes.lapse(stored, "o", on_uncertain="retry", max_lease_losses=3)) is Verdict.STALE
        stored = row(expires_ms=limit_ms)
        assert verdict(stored, changes.expire(stored, "o")) is Verdict.STALE


def applied(stored: Row, change: Change) -> machine.Journal:
    journal = machine.Journal()
    assert machine.apply(stored, change, NOW, journal) is Verdict.DONE
    return journal


class TestApply:
    def test_an_event_says_why(self) -> None:
        journal = applied(running(), changes.discard(running(), "o", 1, "not wanted"))
        [event] = journal.events
        assert (event.kind, event.task_id, event.type, event.at_ms) == ("discarded", "a", "t", NOW)
        assert event.detail == {"why": "not wanted"}

    def test_a_lapse_keeps_the_token_for_a_late_settle(self) -> None:
        stored = running(lease_ms=NOW)
        applied(stored, changes.lapse(stored, "o", on_uncertain="retry", max_lease_losses=3))
        assert (stored.token, stored.lease_ms, stored.owner) == ("tok", None, None)
        applied(stored, changes.release(running(), "p"))
        assert stored.token is None

    @pytest.mark.parametrize(
        "change",
        [changes.succeed(running(), "o", 1), changes.discard(running(), "o", 1, "")],
        ids=["succeed", "discard"],
    )
    def test_failures_go_with_what_they_were_about(self, change: Change) -> None:
        """Also where a backend read the row without its failures: then its error type says that there are some."""
        stored = running(error_type="E", fingerprint="f", worker="w")
        assert applied(stored, change).wiped == ["a"]
        assert (stored.error_type, stored.fingerprint, stored.worker) == (None, None, None)
        stored = running(history=[failure()])
        assert applied(stored, change).wiped == ["a"]
        assert stored.history == []
        assert applied(running(), change).wiped == []

    def test_a_takeover_changes_hands(self) -> None:
        stored = running(lease_ms=NOW)
        applied(stored, changes.take_over(stored, "o", "heir", 7, "w2"))
        assert (stored.token, stored.owner, stored.lease_ms, stored.state) == ("heir", "w2", NOW + 7, "running")

    def test_a_replay_starts_over(self) -> None:
        stored = dead(attempts=3, lease_losses=2, keep_until_ms=NOW + 9, key="k", alone=True)
        note = failure(error_type="edited", fingerprint="g")
        change = changes.replay(dead(), "o", delay_ms=5, type="u", body=b"new", note=note)
        journal = applied(stored, change)
        assert (stored.state, stored.type, stored.body, stored.key) == ("pending", "u", b"new", "k")
        assert (stored.attempts, stored.lease_losses, stored.replays, stored.generation) == (0, 0, 1, 1)
        assert (stored.ended_ms, stored.keep_until_ms, stored.reason, stored.alone) == (None, None, None, False)
        assert (stored.due_ms, stored.since_ms) == (NOW + 5, NOW)
        assert journal.tally == {("dead", 1, "t", "rejected"): -1, ("pending", 1, "u", ""): 1}

    def test_the_note_of_an_edit_is_no_cause_of_death(self) -> None:
        """It stands in the history; the letter is still grouped by what it died of."""
        stored = dead()
        applied(stored, changes.replay(dead(), "o", note=failure(error_type="edited", fingerprint="g")))
        assert [told.error_type for told in stored.history] == ["E", "edited"]
        assert (stored.error_type, stored.fingerprint) == ("E", "f")

    def test_a_failure_is_stamped_and_is_the_last(self) -> None:
        stored = running(history=[failure(attempt=n) for n in range(20)])
        applied(stored, changes.try_again(running(), "o", failure(attempt=20, error_type="F", release="2"), 5))
        assert [told.attempt for told in stored.history] == list(range(1, 21))
        assert (stored.history[-1].at_ms, stored.error_type, stored.release) == (NOW, "F", "2")

    def test_a_held_row_starts_and_a_shelved_one_has_not(self) -> None:
        """Neither touches the lease: only what says so extends it."""
        stored = running(started=False)
        applied(stored, changes.start(stored, "o"))
        assert (stored.started, stored.lease_ms, stored.token) == (True, NOW + 10, "tok")
        applied(stored, changes.shelve(stored, "p"))
        assert (stored.started, stored.lease_ms, stored.token) == (False, NOW + 10, "tok")

    def test_only_work_wakes(self) -> None:
        assert applied(running(), changes.release(running(), "o")).work
        assert applied(dead(), changes.replay(dead(), "o")).work
        assert not applied(running(), changes.extend(running(), "o", 5)).work
        assert not applied(running(), changes.succeed(running(), "o", 5)).work


def test_a_journal_takes_over_another() -> None:
    ours, theirs = machine.Journal(), machine.Journal()
    for journal in (ours, theirs):
        machine.forget(dead(), journal)
        journal.tell("purged", NOW, {"why": "old", "reason": ""}, type_="t", n=2)
    theirs.work = True
    ours.absorb(theirs)
    assert ours.tally == {("dead", 1, "t", "rejected"): -2}
    assert ours.lifetime == {("aged_out", "t", ""): 2}
    assert [(event.count, event.detail) for event in ours.events] == [(2, {"why": "old"})] * 2
    assert (ours.wiped, ours.work) == (["a", "a"], True)
    ours.absorb(machine.Journal())
    assert ours.work


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.integers(0, 20)), max_size=40))
def test_the_tally_is_always_a_recount(steps: list[tuple[int, bool, int]]) -> None:
    """Whatever happens to a row, what the journals add up to is where it stands.

    And its fence lets one attempt through.
    """
    journal = machine.Journal()
    stored, now_ms = machine.build(new(), NOW, journal), NOW
    for number, (way, honest, passed_ms) in enumerate(steps):
        now_ms += passed_ms
        seen = attrs.evolve(stored) if honest else attrs.evolve(stored, token="stranger", generation=-1)
        op = f"o{number}"
        if way == 0 and machine.claimable(stored, now_ms) is None:
            machine.take(stored, Claim(op=op, lease_ms=10), 0, now_ms, journal)
            continue
        made = [
            changes.cancel(seen, op, 5),
            changes.succeed(seen, op, 5),
            changes.die(seen, op, Reason.REJECTED, failure(), 5),
            changes.try_again(seen, op, failure(), 5),
            changes.lapse(seen, op, on_uncertain="dead", max_lease_losses=2),
            changes.replay(seen, op, type="u"),
            changes.purge(seen, op, 5),
            changes.erase(seen, op, 5),
            changes.release(seen, op),
        ][way]
        answer = machine.apply(stored, made, now_ms, journal)
        assert honest or stored.state == GONE or answer is not Verdict.DONE or made.token is made.generation is None
    expected = Counter({(str(stored.state), stored.priority, stored.type, stored.reason or ""): 1})
    assert {key: n for key, n in journal.tally.items() if n} == ({} if stored.state == GONE else dict(expected))


def test_letters_are_counted_by_cause_and_two_journals_add_up() -> None:
    letter = Row("a", "t", 1, "dead", created_ms=0, due_ms=0, reason="permanent", fingerprint="f", release="r")
    bare = Row("b", "t", 1, "dead", created_ms=0, due_ms=0)
    one, other = machine.Journal(), machine.Journal()
    for row in (letter, letter, bare):
        one.enter(row)
    other.enter(letter, -1)
    one.absorb(other)
    assert one.causes == {("f", "t", "permanent", "r"): 1, ("", "t", "", ""): 1}
