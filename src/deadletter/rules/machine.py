"""The one machine that every stored task obeys.

Memory and the SQL backends load rows, call these functions inside their transaction, and store what came out; Redis
states the same in Lua and is compared with it. A task's life::

    insert ──▶ PENDING ──take──▶ RUNNING ──apply──▶ SUCCEEDED | DEAD | PENDING again | GONE
                  ▲                                    │
                  └────────────── replay ──────────────┘

The functions change the rows they are given, so a backend hands them copies or rows that it will store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from ..model.record import EDITED
from ..model.row import (
    DEAD,
    FORMAT,
    GONE,
    PENDING,
    RUNNING,
    SUCCEEDED,
    Change,
    Claim,
    EventRow,
    FailureRow,
    Inserted,
    Insertion,
    NewRow,
    Row,
    Verdict,
)

HISTORY = 20  # failures that a letter keeps


@attrs.define
class Journal:
    """What a step changes beside its rows: the tally, the lifetime counters, events, and failures to delete.

    A store that counts letters by cause takes ``causes``, too: (fingerprint, type, reason, release) → n.
    """

    tally: dict[tuple[str, int, str, str], int] = attrs.field(factory=dict)
    causes: dict[tuple[str, str, str, str], int] = attrs.field(factory=dict)
    lifetime: dict[tuple[str, str, str], int] = attrs.field(factory=dict)
    events: list[EventRow] = attrs.field(factory=list)  # seq is given by the backend
    wiped: list[str] = attrs.field(factory=list)  # ids whose stored failures go
    work: bool = False  # a row became pending: sleeping workers may want it

    def absorb(self, other: Journal) -> None:
        """Take over what another journal noted."""
        for key, n in other.tally.items():
            self.tally[key] = self.tally.get(key, 0) + n
        for cause, n in other.causes.items():
            self.causes[cause] = self.causes.get(cause, 0) + n
        for name, n in other.lifetime.items():
            self.lifetime[name] = self.lifetime.get(name, 0) + n
        self.events += other.events
        self.wiped += other.wiped
        self.work = self.work or other.work

    def count(self, name: str, type_: str, detail: str = "", n: int = 1) -> None:
        """Raise a lifetime counter."""
        key = (name, type_, detail)
        self.lifetime[key] = self.lifetime.get(key, 0) + n

    def enter(self, row: Row, n: int = 1) -> None:
        """Add the row to the tally (n = -1: take it out)."""
        if row.state != GONE:
            key = (row.state, row.priority, row.type, row.reason or "")
            self.tally[key] = self.tally.get(key, 0) + n
            if row.state == DEAD:
                cause = (row.fingerprint or "", row.type, row.reason or "", row.release or "")
                self.causes[cause] = self.causes.get(cause, 0) + n

    def tell(
        self, kind: str, now_ms: int, detail: Mapping[str, str], *, id_: str | None = None, type_: str, n: int = 1
    ) -> None:
        """Note an event: of one row, or of ``n`` rows of one type."""
        self.events.append(EventRow(0, kind, now_ms, id_, type_, n, {k: v for k, v in detail.items() if v}))


def brought(history: Sequence[FailureRow], n: int) -> list[FailureRow]:
    """What a caller gets who asked for ``n`` of a history: for 1 the last failure, which the note of an edit is not."""
    if n == 1:
        return [failure for failure in history if failure.error_type != EDITED][-1:]
    return list(history[-n:]) if n else []


def forgotten(row: Row, now_ms: int) -> bool:
    """Whether the row is past its keep, so that it only waits to be swept."""
    return row.keep_until_ms is not None and row.keep_until_ms <= now_ms and row.state in (SUCCEEDED, DEAD, GONE)


def forget(row: Row, journal: Journal) -> None:
    """Note that a row past its keep is being deleted."""
    journal.enter(row, -1)
    journal.wiped.append(row.id)
    if row.state == DEAD:
        journal.count("aged_out", row.type)


@attrs.frozen
class Admission:
    """What became of a call's new rows: ``stored`` is empty where any of them conflicts."""

    insertions: list[Insertion]
    stored: list[Row]
    forgotten: list[Row]  # rows past their keep that made room: the backend deletes them first


def admit(
    news: Sequence[NewRow], ids: dict[str, Row], keys: dict[str, Row], now_ms: int, journal: Journal
) -> Admission:
    """Decide on the new rows of one call, all or nothing.

    ``ids`` and ``keys`` hold the rows that the call's ids and keys are bound to; they are changed on the way, so
    that equal
    ids and keys within one call meet each other too.
    """
    insertions: list[Insertion] = []
    stored: list[Row] = []
    gone: list[Row] = []
    draft = Journal()
    for new in news:
        for book, name in ((ids, new.id), (keys, new.key)):
            bound = book.get(name) if name is not None else None
            if bound is not None and forgotten(bound, now_ms):
                forget(bound, draft)
                if any(bound is row for row in stored):  # kept for no time at all, and met again by the same call
                    stored = [row for row in stored if row is not bound]
                else:
                    gone.append(bound)
                ids.pop(bound.id, None)
                if bound.key is not None:
                    keys.pop(bound.key, None)
        insertion = _judge(new, ids.get(new.id), keys.get(new.key) if new.key is not None else None, now_ms)
        insertions.append(insertion)
        if insertion.verdict is Inserted.STORED:
            row = build(new, now_ms, draft)
            stored.append(row)
            ids[row.id] = row
            if row.key is not None:
                keys[row.key] = row
        elif insertion.verdict is Inserted.EXISTS:
            draft.count("duplicates", new.type, str(insertion.state))
        else:
            return Admission(insertions, [], [])
    journal.absorb(draft)
    return Admission(insertions, stored, gone)


def _judge(new: NewRow, by_id: Row | None, by_key: Row | None, now_ms: int) -> Insertion:
    bound = by_id or by_key
    if bound is None:
        lease_ms = now_ms + new.lease_ms if new.lease_ms is not None else None
        return Insertion(Inserted.STORED, new.id, new.state, 0, new.token, lease_ms, now_ms)
    if bound.digest == new.digest:  # of type and payload as first enqueued, so an edit makes no conflict
        verdict = Inserted.EXISTS
    else:
        verdict = Inserted.TASK_CONFLICT if by_id is not None else Inserted.KEY_CONFLICT
    body = bound.body if bound.state == SUCCEEDED else None
    return Insertion(verdict, bound.id, bound.state, bound.generation, bound.token, bound.lease_ms, now_ms, body)


def build(new: NewRow, now_ms: int, journal: Journal) -> Row:
    """The row that a NewRow becomes."""
    dead = new.state == DEAD
    last = next(iter(brought(new.history, 1)), None) if new.history else None
    created_ms = new.created_at_ms if new.created_at_ms is not None else now_ms
    ended_ms = (new.ended_at_ms if new.ended_at_ms is not None else now_ms) if dead else None
    for failure in new.history:
        failure.at_ms = failure.at_ms or now_ms
    row = Row(
        id=new.id,
        type=new.type,
        priority=new.priority,
        state=new.state,
        token=new.token,
        attempts=new.attempts,
        lease_losses=new.lease_losses,
        postpones=new.postpones,
        replays=new.replays,
        started=new.state == RUNNING,
        created_ms=created_ms,
        since_ms=now_ms,
        due_ms=new.due_at_ms if new.due_at_ms is not None else now_ms + new.due_ms,
        ended_ms=ended_ms,
        expires_ms=now_ms + new.expires_ms if new.expires_ms is not None else None,
        lease_ms=now_ms + new.lease_ms if new.lease_ms is not None else None,
        keep_until_ms=(ended_ms or now_ms) + new.keep_ms if dead and new.keep_ms is not None else None,
        keep_ms=new.keep_ms,
        key=new.key,
        digest=new.digest,
        owner=new.owner,
        reason=new.reason,
        fingerprint=last.fingerprint if last else None,
        error_type=last.error_type if last else None,
        worker=last.worker if last else None,
        release=last.release if last else new.release,
        redact=new.redact,
        body=new.body,
        history=list(new.history[-HISTORY:]),
    )
    journal.enter(row)
    for name, type_, detail in new.count:
        journal.count(name, type_, detail)
    if dead:
        journal.tell("dead", now_ms, _cause(row), id_=row.id, type_=row.type)
    elif row.state == PENDING:
        journal.work = True
    return row


def claimable(row: Row, now_ms: int) -> str | None:
    """Why an asked-for row cannot be taken (a word of Claimed.words), or None."""
    if row.state == GONE:
        return "missing"
    if row.format > FORMAT:
        return "newer"
    if row.state != PENDING:
        return str(row.state)
    if row.expires_ms is not None and row.expires_ms <= now_ms:
        return "expired"
    return None


def take(row: Row, claim: Claim, index: int, now_ms: int, journal: Journal) -> None:
    """Lease a pending row to the claim: its ``index``-th."""
    journal.enter(row, -1)
    row.state = RUNNING
    row.token = f"{claim.op}-{row.id}"
    row.op = claim.op
    row.lease_ms = now_ms + claim.lease_ms
    row.owner = claim.owner
    row.started = index < claim.start
    row.alone = claim.alone and row.lease_losses >= (claim.max_losses or 0)
    row.keep_ms = claim.keep_ms
    journal.enter(row)


def fence(row: Row | None, change: Change, now_ms: int) -> Verdict | None:  # noqa: PLR0911 - one question a line
    """The verdict that a change meets before it is looked at further; None where its fence holds."""
    if row is None:
        return Verdict.MISSING
    if row.op == change.op:
        return Verdict.REPEATED
    if row.state == GONE:
        return Verdict.MISSING
    held = row.state == change.was
    if not held and change.late and row.state == PENDING and row.token is not None:
        held = row.token == change.token
    if not held or row.format > FORMAT:
        return Verdict.STALE
    if change.token is not None and row.token != change.token:
        return Verdict.STALE
    if change.generation is not None and row.generation != change.generation:
        return Verdict.STALE
    if change.lapsed:
        limit_ms = row.lease_ms if row.state == RUNNING else row.expires_ms
        if limit_ms is None or limit_ms > now_ms:
            return Verdict.STALE
    return None


def apply(row: Row | None, change: Change, now_ms: int, journal: Journal) -> Verdict:
    """Apply a change to a row whose fence holds: the only way in which a stored row ever changes."""
    refused = fence(row, change, now_ms)
    if refused is not None or row is None:
        return refused or Verdict.MISSING
    journal.enter(row, -1)
    row.op = change.op
    _count(row, change, now_ms)
    _move(row, change, now_ms, journal)
    if change.failure is not None:
        _fail(row, change, now_ms)
    if change.free_key:
        row.key = None
    journal.enter(row)
    for counter in change.count:
        journal.count(*counter)
    if change.event is not None:
        journal.tell(change.event, now_ms, {**_cause(row), "why": change.why}, id_=row.id, type_=row.type)
    return Verdict.DONE


def _cause(row: Row) -> dict[str, str]:
    return {"reason": row.reason or "", "fingerprint": row.fingerprint or ""}


def _count(row: Row, change: Change, now_ms: int) -> None:
    row.attempts += change.attempts
    row.lease_losses += change.lease_losses
    row.postpones += change.postpones
    if change.attempts or change.lease_losses:
        row.expires_ms = None  # "expired" is for what never got a chance
    if change.reset:
        row.attempts = 0
    if change.revive:
        row.replays += 1
        row.generation += 1
        row.lease_losses = 0
        row.expires_ms = row.ended_ms = row.keep_until_ms = row.reason = None
        row.alone = False
        row.since_ms = now_ms
    if change.type is not None:
        row.type = change.type
    if change.body is not None:
        row.body = change.body


def _move(row: Row, change: Change, now_ms: int, journal: Journal) -> None:
    row.state = change.to
    if change.due_ms is not None:
        row.due_ms = now_ms + change.due_ms
    if change.reason is not None:
        row.reason = change.reason
    if change.started is not None:
        row.started = change.started
    if change.to == RUNNING:
        if change.lease_ms is not None:
            row.lease_ms = now_ms + change.lease_ms
        if change.new_token is not None:
            row.token, row.owner = change.new_token, change.owner
        return
    row.lease_ms = row.owner = None
    row.started = False
    if not change.lapsed:
        row.token = None  # after a lapse it stays, so that a late settle can still be told from a stranger's
    if change.to == PENDING:
        journal.work = True
    else:
        _end(row, change, now_ms, journal)


def _end(row: Row, change: Change, now_ms: int, journal: Journal) -> None:
    row.ended_ms = now_ms
    row.expires_ms = None
    row.keep_until_ms = now_ms + change.keep_ms if change.keep_ms is not None else None
    if change.to != DEAD:
        row.body = change.body
        if row.error_type is not None or row.history:
            journal.wiped.append(row.id)
            row.history = []
        row.fingerprint = row.error_type = row.worker = row.reason = None


def _fail(row: Row, change: Change, now_ms: int) -> None:
    failure = change.failure
    assert failure is not None  # noqa: S101 - for the type checker; the caller checked
    failure.at_ms = now_ms
    row.history.append(failure)
    del row.history[:-HISTORY]
    if change.revive:  # the note of an edit: what it died of stays
        return
    row.fingerprint = failure.fingerprint
    row.error_type = failure.error_type
    row.worker = failure.worker
    row.release = failure.release


__all__ = [
    "HISTORY",
    "Journal",
    "admit",
    "apply",
    "brought",
    "build",
    "claimable",
    "fence",
    "forget",
    "forgotten",
    "take",
]
