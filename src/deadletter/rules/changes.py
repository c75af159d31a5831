"""The named constructors of Change: everything that can happen to a stored task, each once.

They take the row as it was seen (its token or generation becomes the fence) and a fresh op id.
"""

from __future__ import annotations

from typing import Literal

from ..model.record import Reason
from ..model.row import DEAD, GONE, PENDING, RUNNING, SUCCEEDED, Change, FailureRow, Row
from .fingerprint import text_fingerprint


def _again(row: Row) -> list[tuple[str, str, str]]:
    """What counts an attempt that is not its task's first."""
    retried = row.attempts > 0 or row.replays > 0 or row.lease_losses > 0
    return [("retry_attempts", row.type, "")] if retried else []


def start(row: Row, op: str) -> Change:
    """A held row's processor is about to run: from here on, a vanished worker counts as a loss."""
    return Change(id=row.id, op=op, was=RUNNING, token=row.token, to=RUNNING, started=True)


def extend(row: Row, op: str, lease_ms: int) -> Change:
    """The lease now ends ``lease_ms`` from now."""
    return Change(id=row.id, op=op, was=RUNNING, token=row.token, to=RUNNING, lease_ms=lease_ms)


def succeed(row: Row, op: str, keep_ms: int | None) -> Change:
    """Done; known for ``keep_ms`` more."""
    again = _again(row)
    count = [("succeeded", row.type, ""), *again, *([("retry_success", row.type, "")] if again else [])]
    return Change(
        id=row.id,
        op=op,
        was=RUNNING,
        token=row.token,
        late=True,
        to=SUCCEEDED,
        attempts=1,
        keep_ms=keep_ms,
        count=count,
    )


def _failed(row: Row, failure: FailureRow) -> list[tuple[str, str, str]]:
    return [("failures", row.type, failure.error_type), *_again(row)]


def try_again(row: Row, op: str, failure: FailureRow, delay_ms: int) -> Change:
    """Failed; another attempt in ``delay_ms``."""
    return Change(
        id=row.id,
        op=op,
        was=RUNNING,
        token=row.token,
        late=True,
        to=PENDING,
        due_ms=delay_ms,
        attempts=1,
        failure=failure,
        count=_failed(row, failure),
    )


def die(row: Row, op: str, reason: Reason, failure: FailureRow, keep_ms: int | None) -> Change:
    """Failed for good: a dead letter, kept for ``keep_ms``."""
    return Change(
        id=row.id,
        op=op,
        was=RUNNING,
        token=row.token,
        late=True,
        to=DEAD,
        attempts=1,
        reason=reason,
        failure=failure,
        keep_ms=keep_ms,
        count=[*_failed(row, failure), ("dead", row.type, reason)],
        event="dead",
    )


def outlive(row: Row, op: str, failure: FailureRow) -> Change:
    """Ran past its timeout in a thread that cannot be stopped.

    The attempt failed, the lease stays until the thread ends.
    """
    return Change(
        id=row.id,
        op=op,
        was=RUNNING,
        token=row.token,
        to=RUNNING,
        attempts=1,
        started=False,  # what happens to the thread from here on is no new loss
        failure=failure,
        count=_failed(row, failure),
    )


def yield_thread(row: Row, op: str, delay_ms: int) -> Change:
    """The thread that outlived its timeout has ended: the next attempt may come."""
    return Change(id=row.id, op=op, was=RUNNING, token=row.token, late=True, to=PENDING, due_ms=delay_ms)


def postpone(row: Row, op: str, delay_ms: int) -> Change:
    """Put off by its processor: no attempt consumed."""
    return Change(
        id=row.id,
        op=op,
        was=RUNNING,
        token=row.token,
        late=True,
        to=PENDING,
        due_ms=delay_ms,
        postpones=1,
        count=[("postponed", row.type, "")],
    )


def release(row: Row, op: str) -> Change:
    """Given back unfinished by its worker: as if it had not been claimed."""
    return Change(id=row.id, op=op, was=RUNNING, token=row.token, late=True, to=PENDING)


def discard(row: Row, op: str, keep_ms: int, why: str) -> Change:
    """Ended by its processor without success and without a letter; a tombstone for ``keep_ms``."""
    return Change(
        id=row.id,
        op=op,
        was=RUNNING,
        token=row.token,
        late=True,
        to=GONE,
        attempts=1,
        keep_ms=keep_ms,
        free_key=True,
        count=[("discarded", row.type, ""), *_again(row)],
        event="discarded",
        why=why,
    )


def lapse(row: Row, op: str, *, on_uncertain: Literal["retry", "dead"], max_lease_losses: int) -> Change:
    """The lease ran out: again, or dead.

    Only a row whose processor had started counts a loss, and only a loss while it ran alone makes it dead: a poison
        pill never
    takes its neighbours along.
    """
    if not row.started:
        return Change(id=row.id, op=op, was=RUNNING, token=row.token, lapsed=True, to=PENDING)
    losses = row.lease_losses + 1
    if on_uncertain == "dead":
        why = f"its worker {row.owner or '?'} vanished in mid-attempt, and whether its effect happened is not known"
        return _lost(row, op, Reason.UNCERTAIN, "deadletter.Uncertain", why)
    if row.alone and losses >= max_lease_losses:
        why = (
            f"its workers vanished {losses} times in mid-attempt, the last time ({row.owner or '?'}) while it ran alone"
        )
        return _lost(row, op, Reason.WORKER_LOST, "deadletter.WorkerLost", why)
    return Change(
        id=row.id,
        op=op,
        was=RUNNING,
        token=row.token,
        lapsed=True,
        to=PENDING,
        due_ms=0,
        lease_losses=1,
        count=[("lost", row.type, "")],
        event="lost",
    )


def _lost(row: Row, op: str, reason: Reason, error_type: str, message: str) -> Change:
    return Change(
        id=row.id,
        op=op,
        was=RUNNING,
        token=row.token,
        lapsed=True,
        to=DEAD,
        lease_losses=1,
        reason=reason,
        keep_ms=row.keep_ms,
        failure=_noted(row, error_type, message),
        count=[("lost", row.type, ""), ("dead", row.type, reason)],
        event="dead",
    )


def _noted(row: Row, error_type: str, message: str) -> FailureRow:
    return FailureRow(
        attempt=row.attempts + 1,
        error_type=error_type,
        message=message,
        fingerprint=text_fingerprint(row.type, error_type, ""),
        worker=row.owner,
        release=row.release,
    )


def expire(row: Row, op: str) -> Change:
    """Nothing ended before its expiry: dead."""
    message = "no attempt ended before its expires_in had passed"
    return Change(
        id=row.id,
        op=op,
        was=PENDING,
        lapsed=True,
        to=DEAD,
        reason=Reason.EXPIRED,
        keep_ms=row.keep_ms,
        failure=_noted(row, "deadletter.Expired", message),
        count=[("dead", row.type, Reason.EXPIRED)],
        event="dead",
    )


def quarantine(row: Row, op: str, message: str, keep_ms: int | None) -> Change:
    """A claimed row that cannot be read: a dead letter that keeps its bytes."""
    return Change(
        id=row.id,
        op=op,
        was=RUNNING,
        token=row.token,
        late=True,
        to=DEAD,
        reason=Reason.UNDECODABLE,
        keep_ms=keep_ms,
        failure=_noted(row, "deadletter.Undecodable", message),
        count=[("dead", row.type, Reason.UNDECODABLE)],
        event="dead",
    )


def replay(
    row: Row,
    op: str,
    *,
    reset: bool = True,
    delay_ms: int = 0,
    type: str | None = None,
    body: bytes | None = None,
    note: FailureRow | None = None,
    why: str = "",
) -> Change:
    """A dead letter goes back to pending: at least one more attempt, losses and expiry cleared, its key still bound."""
    return Change(
        id=row.id,
        op=op,
        was=DEAD,
        generation=row.generation,
        to=PENDING,
        due_ms=delay_ms,
        reset=reset,
        revive=True,
        type=type,
        body=body,
        failure=note,
        count=[("replayed", row.type, "")],
        event="replayed",
        why=why,
    )


def cancel(row: Row, op: str, keep_ms: int) -> Change:
    """A pending task away; a tombstone for ``keep_ms``."""
    return _bury(row, op, PENDING, keep_ms, "cancelled", "")


def purge(row: Row, op: str, keep_ms: int, why: str = "") -> Change:
    """A dead letter away; a tombstone for ``keep_ms``. Fenced by generation: what was replayed meanwhile stays."""
    return _bury(row, op, DEAD, keep_ms, "purged", why)


def erase(row: Row, op: str, keep_ms: int, why: str = "") -> Change:
    """Every trace of a task away, whatever its state; a tombstone for ``keep_ms``."""
    return _bury(row, op, row.state, keep_ms, "erased", why)


def _bury(row: Row, op: str, was: str, keep_ms: int, word: str, why: str) -> Change:
    return Change(
        id=row.id,
        op=op,
        was=was,
        token=row.token if was == RUNNING else None,
        generation=row.generation,
        to=GONE,
        keep_ms=keep_ms,
        free_key=True,
        count=[(word, row.type, "")],
        event=word,
        why=why,
    )


def take_over(row: Row, op: str, token: str, lease_ms: int, owner: str) -> Change:
    """A guard's lease ran out: it is ours now."""
    return Change(
        id=row.id,
        op=op,
        was=RUNNING,
        token=row.token,
        lapsed=True,
        to=RUNNING,
        lease_ms=lease_ms,
        new_token=token,
        owner=owner,
    )


def complete(task_id: str, token: str, op: str, result: bytes, keep_ms: int) -> Change:
    """A guarded effect happened: its result is kept for ``keep_ms``."""
    return Change(id=task_id, op=op, was=RUNNING, token=token, to=SUCCEEDED, keep_ms=keep_ms, body=result)


def abandon(task_id: str, token: str, op: str) -> Change:
    """A guarded effect did not happen: the key is free."""
    return Change(id=task_id, op=op, was=RUNNING, token=token, to=GONE, keep_ms=0, free_key=True)


def note(row: Row, op: str, body: bytes, lease_ms: int) -> Change:
    """What a leased row holds is replaced, and its lease now ends ``lease_ms`` from now: a monitor's book."""
    return Change(id=row.id, op=op, was=RUNNING, token=row.token, to=RUNNING, lease_ms=lease_ms, body=body)


def announce(row: Row, op: str, why: str) -> Change:
    """A pause, told to who subscribes; its row stays as it is."""
    return Change(id=row.id, op=op, was=PENDING, generation=row.generation, to=PENDING, event="paused", why=why)


def lift(row: Row, op: str, why: str) -> Change:
    """A pause is over: nothing of it stays, and its glob may be paused again at once."""
    return Change(
        id=row.id,
        op=op,
        was=PENDING,
        generation=row.generation,
        to=GONE,
        keep_ms=0,
        free_key=True,
        event="resumed",
        why=why,
    )


def go_on(row: Row, op: str, body: bytes, lease_ms: int) -> Change:
    """An operation is about to do a step: what it has done so far, and its lease renewed."""
    return Change(id=row.id, op=op, was=RUNNING, token=row.token, to=RUNNING, lease_ms=lease_ms, body=body)


def put_back(row: Row, op: str, body: bytes) -> Change:
    """Its process lets an operation go, with what it has done so far: another may go on at once."""
    return Change(id=row.id, op=op, was=RUNNING, token=row.token, to=PENDING, body=body)


def call_off(row: Row, op: str, body: bytes, keep_ms: int) -> Change:
    """An operation does no further step: whoever has it meets this fence."""
    return Change(id=row.id, op=op, was=row.state, token=row.token, to=SUCCEEDED, keep_ms=keep_ms, body=body)


def amend(row: Row, op: str, body: bytes, keep_ms: int) -> Change:
    """An operation that was called off in the middle of a step did this much."""
    return Change(id=row.id, op=op, was=SUCCEEDED, to=SUCCEEDED, keep_ms=keep_ms, body=body)


def shelve(row: Row, op: str) -> Change:
    """Its worker lets go while a thread of it still runs: the lease stays for now, and its lapse is no loss."""
    return Change(id=row.id, op=op, was=RUNNING, token=row.token, to=RUNNING, started=False)
