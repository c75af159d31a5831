"""What may happen to one stored task: the contract of the seam said once more, apart from the machine and its Lua.

A task is a tuple, so that a search may hash what it has seen. When a step ran is known only within bounds, and so are
the times that it set: each is a pair (earliest, latest) in milliseconds of the server's clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from deadletter.backends.redis.records import shortened  # a store may keep no more of a digest
from deadletter.model.record import EDITED
from deadletter.model.row import (
    DEAD,
    GONE,
    PENDING,
    RUNNING,
    SUCCEEDED,
    Change,
    Claim,
    FailureRow,
    NewRow,
    Row,
    Verdict,
)

ENDED = (SUCCEEDED, DEAD, GONE)
NEVER = (1 << 60, 1 << 60)
HISTORY = 20  # failures that a letter keeps

Time = tuple[int, int]


class Known(NamedTuple):
    """One task; ``started`` is None where nobody can know it."""

    id: str
    type: str
    priority: int
    state: str
    digest: str
    key: str | None
    body: bytes | None
    due: Time
    expires: Time = NEVER
    lease: Time = NEVER
    keep: Time = NEVER
    keep_ms: int | None = None
    token: str | None = None
    op: str | None = None
    generation: int = 0
    attempts: int = 0
    losses: int = 0
    postpones: int = 0
    replays: int = 0
    started: bool | None = False
    alone: bool = False
    reason: str | None = None
    failures: tuple[tuple[str, str], ...] = ()


def born(new: NewRow, at: Time) -> Known:
    """What an insert stores."""
    dead, running = new.state == DEAD, new.state == RUNNING
    died = at if new.ended_at_ms is None else (new.ended_at_ms, new.ended_at_ms)
    return Known(
        id=new.id,
        type=new.type,
        priority=new.priority,
        state=str(new.state),
        digest=shortened(new.digest),
        key=new.key,
        body=new.body,
        due=_later(at, new.due_ms) if new.due_at_ms is None else (new.due_at_ms, new.due_at_ms),
        expires=_later(at, new.expires_ms),
        lease=_later(at, new.lease_ms),
        keep=_later(died, new.keep_ms) if dead else NEVER,
        keep_ms=new.keep_ms,
        token=new.token,
        attempts=new.attempts,
        losses=new.lease_losses,
        postpones=new.postpones,
        replays=new.replays,
        started=running,
        reason=_word(new.reason),
        failures=_told(new.history),
    )


def forgettable(known: Known | None, at: Time) -> bool:
    """Whether it may be past its keep, so that any step may find it gone."""
    return known is not None and known.keep[0] <= at[1] and known.state in ENDED


def claimable(known: Known, claim: Claim, at: Time) -> bool:
    """Whether a claim may take it."""
    if known.state != PENDING or known.expires[1] <= at[0]:
        return False
    if claim.ids is not None:
        return known.id in claim.ids
    suspect = claim.max_losses is not None and known.losses >= claim.max_losses
    return known.type in claim.types and known.due[0] <= at[1] and suspect == claim.alone


def taken(known: Known, claim: Claim, op: str, token: str, at: Time) -> Known:
    """What a claim makes of it: started if it was among the first, which is known only where all or none are."""
    started = None if 0 < claim.start < claim.limit else claim.start > 0
    return known._replace(
        state="running",
        op=op,
        token=token,
        lease=_later(at, claim.lease_ms),
        started=started,
        alone=claim.alone and known.losses >= (claim.max_losses or 0),
        keep_ms=claim.keep_ms,
    )


def word_fits(known: Known | None, word: str, at: Time) -> bool:
    """Whether a claim by id may say this of what it did not give."""
    if word == "missing":
        return known is None or known.state == GONE or forgettable(known, at)
    if known is None:
        return False
    if word == "expired":
        return known.state == PENDING and known.expires[0] <= at[1]
    return known.state == word


def verdicts(known: Known | None, change: Change, at: Time) -> Iterator[Verdict]:
    """The verdicts that a change may meet: more than one only where the time leaves it open."""
    if known is None:
        yield Verdict.MISSING
    elif known.op == change.op:
        yield Verdict.REPEATED
    elif known.state == GONE:
        yield Verdict.MISSING
    elif not _fenced(known, change):
        yield Verdict.STALE
    elif change.lapsed:
        limit = known.lease if known.state == RUNNING else known.expires
        if limit[0] <= at[1]:
            yield Verdict.DONE
        if limit[1] > at[0]:
            yield Verdict.STALE
    else:
        yield Verdict.DONE


def _fenced(known: Known, change: Change) -> bool:
    if known.state != change.was:
        came_late = change.late and known.state == PENDING and known.token is not None
        if not came_late or known.token != change.token:
            return False
    if change.token is not None and change.token != known.token:
        return False
    return change.generation is None or change.generation == known.generation


def changed(known: Known, change: Change, at: Time) -> Known:
    """What a change that was done makes of it."""
    new: dict[str, Any] = {"op": change.op, "state": str(change.to)}
    new["attempts"] = 0 if change.reset else known.attempts + change.attempts
    new["losses"] = known.losses + change.lease_losses
    new["postpones"] = known.postpones + change.postpones
    if change.attempts or change.lease_losses:
        new["expires"] = NEVER
    if change.revive:
        new |= {"replays": known.replays + 1, "generation": known.generation + 1, "losses": 0, "alone": False}
        new |= {"expires": NEVER, "keep": NEVER, "reason": None}
    if change.type is not None:
        new["type"] = change.type
    if change.body is not None:
        new["body"] = change.body
    if change.due_ms is not None:
        new["due"] = _later(at, change.due_ms)
    if change.reason is not None:
        new["reason"] = _word(change.reason)
    if change.failure is not None:
        new["failures"] = (*known.failures, *_told([change.failure]))[-HISTORY:]
    if change.free_key:
        new["key"] = None
    new |= _held(change, at) if change.to == RUNNING else _let_go(known, change, at)
    return known._replace(**new)


def _held(change: Change, at: Time) -> dict[str, Any]:
    new: dict[str, Any] = {}
    if change.started is not None:
        new["started"] = change.started
    if change.lease_ms is not None:
        new["lease"] = _later(at, change.lease_ms)
    if change.new_token is not None:
        new["token"] = change.new_token
    return new


def _let_go(known: Known, change: Change, at: Time) -> dict[str, Any]:
    new: dict[str, Any] = {"lease": NEVER, "started": False, "token": known.token if change.lapsed else None}
    if change.to == PENDING:
        return new
    new |= {"expires": NEVER, "keep": _later(at, change.keep_ms)}
    if change.to != DEAD:
        new |= {"body": change.body, "failures": (), "reason": None}
    return new


def as_seen(known: Known, row: Row, *, history: int, body: bool = True, lean: bool = False) -> Known | None:
    """What is known once a row was seen, its times among it; None where the row says otherwise."""
    told = (row.id, row.type, row.priority, str(row.state), _word(row.reason))
    if (*known[:4], known.reason) != told or not (lean or _wholly_as(known, row, history, body=body)):
        return None
    if lean:
        return known
    times = [_sharpened(known[at], ms) for at, ms in zip(range(7, 11), _times(row), strict=True)]
    if None in times:
        return None
    due, expires, lease, keep = times
    return known._replace(due=due, expires=expires, lease=lease, keep=keep, started=row.started)


def _wholly_as(known: Known, row: Row, history: int, *, body: bool) -> bool:
    stored = (
        *(
            shortened(row.digest),
            row.key,
            row.keep_ms,
            row.token,
            row.op,
            row.generation,
            row.attempts,
            row.lease_losses,
        ),
        *(row.postpones, row.replays, row.alone),
    )
    return (
        (*known[4:6], *known[11:19], known.alone) == stored
        and known.started in (None, row.started)
        and (not body or known.body == row.body)
        and _brought(known.failures, history) == _told(row.history)
    )


def _times(row: Row) -> tuple[int | None, ...]:
    return row.due_ms, row.expires_ms, row.lease_ms, row.keep_until_ms


def _sharpened(time: Time, ms: int | None) -> Time | None:
    if ms is None:
        return time if time == NEVER else None
    return (ms, ms) if time[0] <= ms <= time[1] and time != NEVER else None


def _later(at: Time, ms: int | None) -> Time:
    return NEVER if ms is None else (at[0] + ms, at[1] + ms)


def _word(reason: str | None) -> str | None:
    return None if reason is None else str(reason)


def _told(failures: Sequence[FailureRow]) -> tuple[tuple[str, str], ...]:
    return tuple((failure.error_type, failure.message) for failure in failures[-HISTORY:])


def _brought(failures: tuple[tuple[str, str], ...], n: int) -> tuple[tuple[str, str], ...]:
    if n == 1:
        return tuple(failure for failure in failures if failure[0] != EDITED)[-1:]
    return failures[-n:] if n else ()
