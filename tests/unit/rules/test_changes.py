from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from deadletter.model.record import Reason
from deadletter.model.row import Change, FailureRow, Row
from deadletter.rules import changes

FAILURE = FailureRow(attempt=1, error_type="E")
SEEN = Row(
    id="a", type="t", priority=1, state="running", token="tok", generation=4, owner="w1", keep_ms=9, release="1.0"
)
TRIED = {
    "attempts": attrs.evolve(SEEN, attempts=1),
    "replays": attrs.evolve(SEEN, replays=1),
    "lease_losses": attrs.evolve(SEEN, lease_losses=1),
}


def lapse(row: Row, **options: Any) -> Change:
    return changes.lapse(row, "o", **{"on_uncertain": "retry", "max_lease_losses": 3, **options})


SETTLES: dict[str, Callable[[Row], Change]] = {
    "succeed": lambda row: changes.succeed(row, "o", 5),
    "try_again": lambda row: changes.try_again(row, "o", FAILURE, 5),
    "die": lambda row: changes.die(row, "o", Reason.REJECTED, FAILURE, 5),
    "yield_thread": lambda row: changes.yield_thread(row, "o", 5),
    "postpone": lambda row: changes.postpone(row, "o", 5),
    "release": lambda row: changes.release(row, "o"),
    "discard": lambda row: changes.discard(row, "o", 5, "why"),
    "quarantine": lambda row: changes.quarantine(row, "o", "not JSON", 5),
}
HOLDS: dict[str, Callable[[Row], Change]] = {
    "start": lambda row: changes.start(row, "o"),
    "extend": lambda row: changes.extend(row, "o", 5),
    "outlive": lambda row: changes.outlive(row, "o", FAILURE),
    "shelve": lambda row: changes.shelve(row, "o"),
    "complete": lambda row: changes.complete(row.id, "tok", "o", b"result", 5),
    "abandon": lambda row: changes.abandon(row.id, "tok", "o"),
}
SWEEPS: dict[str, Callable[[Row], Change]] = {
    "lapse of a held row": lapse,
    "lapse": lambda row: lapse(attrs.evolve(row, started=True)),
    "uncertain": lambda row: lapse(attrs.evolve(row, started=True), on_uncertain="dead"),
    "lost alone": lambda row: lapse(attrs.evolve(row, started=True, alone=True), max_lease_losses=1),
    "take_over": lambda row: changes.take_over(row, "o", "heir", 5, "w2"),
}
ENDS: dict[str, Callable[[Row], Change]] = {
    "replay": lambda row: changes.replay(row, "o"),
    "purge": lambda row: changes.purge(row, "o", 5),
    "cancel": lambda row: changes.cancel(row, "o", 5),
    "erase": lambda row: changes.erase(row, "o", 5),
}


@pytest.mark.parametrize("make", SETTLES.values(), ids=SETTLES)
def test_a_settle_is_its_holders_and_may_be_late(make: Callable[[Row], Change]) -> None:
    change = make(SEEN)
    assert (change.id, change.op, change.was, change.token, change.late, change.lapsed) == (
        "a",
        "o",
        "running",
        "tok",
        True,
        False,
    )


@pytest.mark.parametrize("make", HOLDS.values(), ids=HOLDS)
def test_what_needs_a_lease_is_never_late(make: Callable[[Row], Change]) -> None:
    change = make(SEEN)
    assert (change.was, change.token, change.late, change.lapsed) == ("running", "tok", False, False)


@pytest.mark.parametrize("make", SWEEPS.values(), ids=SWEEPS)
def test_a_sweep_wants_the_lease_that_it_saw_to_have_lapsed(make: Callable[[Row], Change]) -> None:
    change = make(SEEN)
    assert (change.was, change.token, change.late, change.lapsed) == ("running", "tok", False, True)


@pytest.mark.parametrize("make", ENDS.values(), ids=ENDS)
def test_what_an_operator_does_is_about_one_generation(make: Callable[[Row], Change]) -> None:
    assert make(SEEN).generation == 4


def test_an_expiry_wants_a_pending_row_whose_time_has_passed() -> None:
    change = changes.expire(attrs.evolve(SEEN, state="pending", token=None), "o")
    assert (change.was, change.lapsed, change.to, change.reason, change.keep_ms) == (
        "pending",
        True,
        "dead",
        "expired",
        9,
    )
    assert change.count == [("dead", "t", "expired")]
    assert change.failure is not None
    told = (change.failure.error_type, change.failure.message)
    assert told == ("deadletter.Expired", "no attempt ended before its expires_in had passed")


def test_a_row_that_cannot_be_read_dies_of_an_error_of_ours() -> None:
    change = changes.quarantine(SEEN, "o", "no JSON", 9)
    assert change.failure is not None
    assert (change.failure.error_type, change.failure.message) == ("deadletter.Undecodable", "no JSON")


@pytest.mark.parametrize("seen", TRIED.values(), ids=TRIED)
def test_any_attempt_but_the_first_is_a_retry(seen: Row) -> None:
    """Counted where the attempt ends, and where it succeeds also as one that did."""
    assert ("retry_attempts", "t", "") not in changes.succeed(SEEN, "o", 5).count
    assert ("retry_attempts", "t", "") not in changes.try_again(SEEN, "o", FAILURE, 5).count
    assert changes.succeed(seen, "o", 5).count == [
        ("succeeded", "t", ""),
        ("retry_attempts", "t", ""),
        ("retry_success", "t", ""),
    ]
    for make in (SETTLES["try_again"], SETTLES["die"], HOLDS["outlive"]):
        assert list(make(seen).count)[:2] == [("failures", "t", "E"), ("retry_attempts", "t", "")]


@pytest.mark.parametrize(
    ("make", "attempts"),
    [*((SETTLES[name], 1) for name in ("succeed", "try_again", "die", "discard")), (HOLDS["outlive"], 1)]
    + [(SETTLES[name], 0) for name in ("yield_thread", "postpone", "release", "quarantine")],
)
def test_an_attempt_counts_where_it_ended(make: Callable[[Row], Change], attempts: int) -> None:
    assert make(SEEN).attempts == attempts


def test_a_death_says_why_and_is_told() -> None:
    change = SETTLES["die"](SEEN)
    assert (change.to, change.reason, change.failure, change.keep_ms, change.event) == (
        "dead",
        "rejected",
        FAILURE,
        5,
        "dead",
    )
    assert change.count == [("failures", "t", "E"), ("dead", "t", "rejected")]


def test_a_held_row_loses_nothing() -> None:
    change = lapse(SEEN, on_uncertain="dead", max_lease_losses=1)
    assert (change.to, change.lease_losses, change.failure, change.event) == ("pending", 0, None, None)


@pytest.mark.parametrize(
    ("fields", "options", "to"),
    [
        ({}, {}, "pending"),
        ({"lease_losses": 9}, {}, "pending"),
        ({"alone": True, "lease_losses": 1}, {}, "pending"),
        ({"alone": True, "lease_losses": 2}, {}, "dead"),
        ({}, {"on_uncertain": "dead"}, "dead"),
    ],
    ids=["first loss", "many among others", "alone but few", "alone and one too many", "uncertain"],
)
def test_only_a_loss_while_alone_kills(fields: dict[str, Any], options: dict[str, Any], to: str) -> None:
    """A poison pill never takes its neighbours along: however often they were lost beside it."""
    change = lapse(attrs.evolve(SEEN, started=True, **fields), **options)
    assert (change.to, change.lease_losses) == (to, 1)
    assert ("lost", "t", "") in change.count


@pytest.mark.parametrize("owner", ["w1", None])
@pytest.mark.parametrize(
    ("options", "reason", "error_type"),
    [
        ({"on_uncertain": "dead"}, "uncertain", "deadletter.Uncertain"),
        ({"max_lease_losses": 1}, "worker_lost", "deadletter.WorkerLost"),
    ],
)
def test_a_lost_row_dies_with_the_keep_of_its_claimer(
    options: dict[str, Any], reason: str, error_type: str, owner: str | None
) -> None:
    change = lapse(attrs.evolve(SEEN, started=True, alone=True, attempts=1, owner=owner), **options)
    assert (change.to, change.reason, change.keep_ms, change.event) == ("dead", reason, 9, "dead")
    assert change.failure is not None
    assert (change.failure.error_type, change.failure.attempt, change.failure.worker) == (error_type, 2, owner)
    assert (owner or "?") in change.failure.message
    assert len(change.failure.fingerprint) == 16


def test_an_attempt_that_outlives_its_timeout_keeps_its_lease() -> None:
    """And a worker that vanishes from then on loses nothing more."""
    change = HOLDS["outlive"](SEEN)
    assert (change.to, change.started, change.failure) == ("running", False, FAILURE)


def test_a_shelved_row_keeps_its_lease_and_loses_nothing() -> None:
    change = HOLDS["shelve"](SEEN)
    assert (change.to, change.started, change.lease_ms, change.attempts) == ("running", False, None, 0)


def test_a_replay_may_edit() -> None:
    note = FailureRow(attempt=0, message="edited")
    change = changes.replay(
        attrs.evolve(SEEN, state="dead"), "o", reset=False, delay_ms=7, type="u", body=b"new", note=note, why="fixed"
    )
    assert (change.was, change.to, change.revive, change.reset, change.due_ms) == ("dead", "pending", True, False, 7)
    assert (change.type, change.body, change.failure, change.why, change.free_key) == (
        "u",
        b"new",
        note,
        "fixed",
        False,
    )
    assert changes.replay(SEEN, "o").reset


@pytest.mark.parametrize(
    ("make", "was", "word"), [(ENDS["purge"], "dead", "purged"), (ENDS["cancel"], "pending", "cancelled")]
)
def test_what_goes_away_frees_its_key_and_leaves_a_tombstone(
    make: Callable[[Row], Change], was: str, word: str
) -> None:
    change = make(SEEN)
    assert (change.was, change.to, change.free_key, change.keep_ms) == (was, "gone", True, 5)
    assert (change.event, change.count, change.token) == (word, [(word, "t", "")], None)


@pytest.mark.parametrize("state", ["pending", "running", "succeeded", "dead"])
def test_an_erasure_takes_any_state_and_respects_a_lease(state: str) -> None:
    change = changes.erase(attrs.evolve(SEEN, state=state), "o", 5)
    assert (change.was, change.to, change.event) == (state, "gone", "erased")
    assert change.token == ("tok" if state == "running" else None)


def test_a_guard_keeps_its_result_or_frees_its_key() -> None:
    complete, abandon = HOLDS["complete"](SEEN), HOLDS["abandon"](SEEN)
    assert (complete.to, complete.body, complete.keep_ms, complete.free_key) == ("succeeded", b"result", 5, False)
    assert (abandon.to, abandon.keep_ms, abandon.free_key) == ("gone", 0, True)


def test_a_takeover_hands_the_lease_on() -> None:
    change = SWEEPS["take_over"](SEEN)
    assert (change.to, change.new_token, change.owner, change.lease_ms) == ("running", "heir", "w2", 5)


def test_a_pause_is_told_and_lifted_about_the_row_that_was_seen() -> None:
    told, lifted = changes.announce(SEEN, "o", "down"), changes.lift(SEEN, "o", "down")
    assert (told.was, told.to, told.event, told.why) == ("pending", "pending", "paused", "down")
    assert (lifted.was, lifted.to, lifted.event, lifted.why) == ("pending", "gone", "resumed", "down")
    assert (lifted.free_key, lifted.keep_ms) == (True, 0), "its glob may be paused again at once"
    assert {told.generation, lifted.generation} == {SEEN.generation}
