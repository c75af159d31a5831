"""What a user sees of what is stored."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from .task import Task

EDITED = "deadletter.Edited"  # the error_type of a history entry that notes an edit: no failure


class State(enum.StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"


class Reason(enum.StrEnum):
    """Why a task is dead."""

    RETRIES_EXHAUSTED = "retries_exhausted"
    REJECTED = "rejected"
    PERMANENT = "permanent"
    EXPIRED = "expired"
    WORKER_LOST = "worker_lost"
    UNCERTAIN = "uncertain"
    CAPTURED = "captured"
    NOT_REPLAYABLE = "not_replayable"
    UNDECODABLE = "undecodable"


@attrs.frozen(kw_only=True)
class Failure:
    """One attempt that failed, or what was noted about the letter.

    Attributes:
        attempt: its number, from 1.
        at: when it ended.
        duration: seconds that it ran, None where nobody measured.
        error_type: fully qualified name of the exception's class.
        message: at most 2,000 characters.
        traceback: at most 16,000 characters, kept from both ends.
        fingerprint: the same for the same cause.
        worker: who ran it.
        release: version of the user's code.
        traceparent: the attempt in your traces (W3C), where it was traced.
    """

    attempt: int
    at: datetime
    duration: float | None = None
    error_type: str
    message: str
    traceback: str = ""
    fingerprint: str = ""
    worker: str | None = None
    release: str | None = None
    traceparent: str | None = None


@attrs.frozen(kw_only=True)
class TaskRecord:
    """A task and its whole story.

    Attributes:
        task: what was given (an edit included).
        state: where it stands.
        attempts: the finished ones.
        due_at: not tried before this time.
        created_at, died_at, expires_at: when it was stored, died, goes.
        reason: why it is dead.
        failure: the last one.
        history: the last 20, oldest first.
        lease_losses: how often its worker vanished in mid-attempt.
        postpones: how often a processor put it off.
        replays: how often it was sent back from the dead letters.
        replayable: False where its arguments could not be kept.
        queue: the name of its queue.
        redact: payload paths that are hidden in every view.
        readable: False where its body cannot be read here: another codec wrote it, or it is broken.
        earlier: its payloads before each edit, oldest first.
    """

    task: Task
    state: State
    attempts: int
    due_at: datetime
    created_at: datetime
    died_at: datetime | None = None
    expires_at: datetime | None = None
    reason: Reason | None = None
    history: Sequence[Failure] = ()
    lease_losses: int = 0
    postpones: int = 0
    replays: int = 0
    replayable: bool = True
    queue: str = "default"
    redact: Sequence[str] = ()
    readable: bool = True
    earlier: Sequence[Mapping[str, Any]] = ()

    @property
    def failure(self) -> Failure | None:
        """The last failure; the note of an edit is none."""
        return next((entry for entry in reversed(self.history) if entry.error_type != EDITED), None)

    @property
    def id(self) -> str:
        """The task's id."""
        return self.task.id


@attrs.frozen(kw_only=True)
class Searched:
    """How far a search came whose patience ended before its page was full.

    Attributes:
        looked_at: how many tasks it has looked at since its first page; null where the store cannot tell.
        of: how many there are to look at; null likewise.
        back_to: when the last of them died; for tasks that live, when it was made.
    """

    looked_at: int | None = None
    of: int | None = None
    back_to: datetime


@attrs.frozen(kw_only=True)
class Page:
    """A page of records, newest first.

    Attributes:
        items: the records.
        next_cursor: give it to the next call; None on the last page.
        total: how many match in all, where that is known exactly.
        total_at_least: a lower bound that is always known.
        searched: None for a page that is full, or the last; else how far the search came: the next page goes on there.
    """

    items: Sequence[TaskRecord]
    next_cursor: str | None = None
    total: int | None = None
    total_at_least: int = 0
    searched: Searched | None = None


@attrs.frozen(kw_only=True)
class FailureGroup:
    """Dead letters with one cause.

    Attributes:
        key: what they share (a fingerprint, type, reason, ...).
        count: how many.
        first_seen, last_seen: the first and last death.
        type, error_type, message: of the newest one.
        releases: the releases they died under, sorted.
        sample_id: the newest one's id.
    """

    key: str
    count: int
    first_seen: datetime
    last_seen: datetime
    type: str
    error_type: str
    message: str
    releases: Sequence[str]
    sample_id: str


@attrs.frozen(kw_only=True)
class BulkResult:
    """What a bulk operation did.

    Attributes:
        matched: how many it looked at and found to match.
        changed: how many it changed (0 in a dry run).
        failed: how many it could not change, since they were changed meanwhile or cannot be replayed.
        cutoff: deaths after this time were left alone; give it to the next call to resume.
    """

    matched: int
    changed: int
    failed: int
    cutoff: datetime


@attrs.frozen(kw_only=True)
class WorkerInfo:
    """A worker that was seen lately.

    Attributes:
        name: unique per worker.
        types: the types that it knows.
        last_seen: its last sign of life.
    """

    name: str
    types: Sequence[str]
    last_seen: datetime


@attrs.frozen(kw_only=True)
class Pause:
    r"""Types that no worker claims until they are resumed.

    Attributes:
        types: a type or a glob (only ``*``; ``\*`` is a literal one).
        why: as it was given.
        since: when it began.
    """

    types: str
    why: str
    since: datetime


@attrs.frozen(kw_only=True)
class Stats:
    """The queue at a glance.

    Attributes:
        by_state, by_priority, by_type, by_reason: counts; the last three of dead letters.
        pending_by_type: pending tasks by type.
        lifetime: counters since the queue was made, right over all processes.
        oldest_pending, oldest_dead: age in seconds, None where there is none.
        overdue: tasks that have been due for more than 60 s, by type.
        workers: who was seen lately.
        paused: globs that no worker claims, with the reason given.
        spooled: captures that wait in the local spool.
    """

    by_state: Mapping[str, int]
    by_priority: Mapping[str, int]
    by_type: Mapping[str, int]
    by_reason: Mapping[str, int]
    pending_by_type: Mapping[str, int]
    lifetime: Mapping[str, int]
    oldest_pending: float | None = None
    oldest_dead: float | None = None
    overdue: Mapping[str, int] = attrs.field(factory=dict)
    workers: Sequence[WorkerInfo] = ()
    paused: Mapping[str, str] = attrs.field(factory=dict)
    spooled: int = 0
