"""What crosses the backend seam: flat scalars and opaque bytes.

Times that end in ``_ms`` and stand on a Row are milliseconds of the *server's* clock. Those on NewRow, Claim and
Change are durations from "now" of the step that applies them, so that no caller's clock is ever compared with stored
time; the few absolute ones say ``_at_ms``.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Mapping, Sequence

import attrs

from .record import State

BATCH = 100  # the most rows that one atomic step touches
FORMAT = 1  # of a row; a row with a higher number was written by a newer version and is left alone

GONE = "gone"  # a tombstone: the id was discarded, cancelled, purged or erased
PENDING, RUNNING, SUCCEEDED, DEAD = State.PENDING, State.RUNNING, State.SUCCEEDED, State.DEAD


@attrs.define(kw_only=True)
class FailureRow:
    """A failure as it is stored. A backend may keep equal ``traceback`` texts once."""

    attempt: int
    at_ms: int = 0  # set by the machine: the server's clock
    duration_ms: int | None = None
    error_type: str = ""
    message: str = ""
    traceback: str = ""
    fingerprint: str = ""
    worker: str | None = None
    release: str | None = None
    traceparent: str | None = None  # of the attempt's span, so that the next attempt's can refer to it


@attrs.define
class Row:
    """A stored task. Mutable: the machine works on the copy that a backend hands it.

    The field order is the column order of the SQL backends (body last), so that a row is made from a tuple at once.
    """

    id: str
    type: str
    priority: int  # rank: 0 high, 1 normal, 2 low
    state: str
    token: str | None = None
    op: str | None = None  # the last change's or claim's; a repeat answers "repeated"
    generation: int = 0  # raised by each replay
    attempts: int = 0
    lease_losses: int = 0
    postpones: int = 0
    replays: int = 0
    started: bool = False
    alone: bool = False
    created_ms: int = 0
    since_ms: int = 0  # creation or the last replay: what RetryFor counts from
    due_ms: int = 0
    ended_ms: int | None = None  # death or success
    expires_ms: int | None = None  # dead as "expired" where nothing ended by then
    lease_ms: int | None = None  # the lease ends
    keep_until_ms: int | None = None  # an ended row is forgotten then; None = never
    keep_ms: int | None = None  # how long its letter is kept once dead; None = for ever
    key: str | None = None  # hash of queue, type and idempotency key
    digest: str = ""  # of type and payload as first enqueued; a store may keep so much that equal ones are told
    owner: str | None = None  # the worker that has it
    reason: str | None = None
    fingerprint: str | None = None
    error_type: str | None = None  # error_type, worker, release of its last failure
    worker: str | None = None
    release: str | None = None
    redact: str = ""  # hidden payload paths, newline-separated
    format: int = FORMAT
    body: bytes | None = None
    history: list[FailureRow] = attrs.field(factory=list)  # as many as were asked for, oldest first

    def twin(self) -> Row:
        """A copy that shares nothing that changes; several times faster than ``copy.copy`` on slots."""
        row = Row(*_values(self))
        row.history = list(self.history)
        return row

    @property
    def time_ms(self) -> int:
        """What a scan sorts by: death for a dead letter, else creation."""
        return self.ended_ms if self.state == DEAD and self.ended_ms is not None else self.created_ms


LEAN = (  # what a lean scan brings
    *("id", "type", "priority", "state", "created_ms", "ended_ms"),
    *("reason", "fingerprint", "error_type", "worker", "release", "format"),
)
_values = operator.attrgetter(*(field.name for field in attrs.fields(Row)))


@attrs.define(kw_only=True)  # frozen in spirit; freezing costs 4 µs a row
class NewRow:
    """A row to insert.

    ``state`` is PENDING, DEAD (a capture, with its failure) or RUNNING (with ``token``, ``lease_ms``, ``owner``: the
    effect guard's begin in one call). Import and spool give absolute ``created_at_ms`` and ``ended_at_ms``.
    """

    id: str
    type: str
    priority: int = 1
    key: str | None = None
    digest: str = ""
    body: bytes = b""
    state: str = PENDING
    due_ms: int = 0
    due_at_ms: int | None = None  # instead of due_ms
    expires_ms: int | None = None
    keep_ms: int | None = None
    token: str | None = None
    lease_ms: int | None = None
    owner: str | None = None
    redact: str = ""
    release: str | None = None
    reason: str | None = None
    attempts: int = 0
    lease_losses: int = 0
    postpones: int = 0
    replays: int = 0
    history: Sequence[FailureRow] = ()
    created_at_ms: int | None = None
    ended_at_ms: int | None = None
    count: Sequence[tuple[str, str, str]] = ()  # counters to raise where it is inserted


class Inserted(enum.StrEnum):
    """What became of a NewRow."""

    STORED = "stored"
    EXISTS = "exists"  # same id or same key, same digest: nothing was stored
    TASK_CONFLICT = "task_conflict"  # same id, other digest
    KEY_CONFLICT = "key_conflict"  # same key, other digest


@attrs.frozen
class Insertion:
    """The verdict on a NewRow and the row that its id or key is bound to."""

    verdict: Inserted
    id: str
    state: str
    generation: int = 0
    token: str | None = None
    lease_ms: int | None = None
    now_ms: int = 0
    body: bytes | None = None  # of the bound row where it already existed and succeeded: the guard's stored answer


@attrs.frozen(kw_only=True)
class Claim:
    """A wish for leases.

    Attributes:
        op: new per call; the same op answers with the same rows while they are still leased to it.
        limit: at most this many rows (≤ BATCH).
        types: concrete types; or ``ids``: these rows, due or not, at most ``limit``, so that each has its answer.
        order: priority ranks, the first wins.
        lease_ms: how long the lease lasts.
        owner: the worker's name.
        start: the first n rows are claimed as started, the rest as held.
        max_losses: rows with this many lease losses or more are suspects: hidden, and told by ``Claimed.suspects``.
        alone: claim one suspect (limit 1), marked ``alone``; with ``ids``, mark those of them that are suspects (without
            ``max_losses`` all).
        keep_ms: the claimer's dlq_ttl, stamped on the row for whoever finds it dead.
    """

    op: str
    limit: int = 1
    types: Sequence[str] = ()
    ids: Sequence[str] | None = None
    order: Sequence[int] = (0, 1, 2)
    lease_ms: int = 60_000
    owner: str = ""
    start: int = BATCH
    max_losses: int | None = None
    alone: bool = False
    keep_ms: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.ids is not None and len(self.ids) > self.limit:
            raise ValueError(f"a claim of {len(self.ids)} ids with a limit of {self.limit}; raise the limit to match")


@attrs.frozen(kw_only=True)
class Claimed:
    """What a claim got.

    Attributes:
        rows: with body and their last failure.
        words: for each asked id that is not in rows: ``missing``, ``running``, ``succeeded``, ``dead``, ``expired``,
            ``newer``.
        now_ms: the server's clock.
        next_due_ms: when the next pending row of these types is due (may lie in the past); None = nothing pending.
        suspects: a due row was hidden since its workers vanished too often.
    """

    rows: list[Row]
    words: Mapping[str, str] = attrs.field(factory=dict)
    now_ms: int = 0
    next_due_ms: int | None = None
    suspects: bool = False


class Verdict(enum.StrEnum):
    """What became of a Change."""

    DONE = "done"
    REPEATED = "repeated"  # the same op was applied before
    STALE = "stale"  # its fence does not hold: somebody else was first
    MISSING = "missing"  # no such row


@attrs.define(kw_only=True)  # frozen in spirit; freezing costs 4 µs a change
class Change:
    """A transition as data: a fence and an effect. Made only by the constructors of ``rules.changes``.

    The fence: ``id`` and ``was`` must hold; ``token`` and ``generation`` where given; ``lapsed`` also wants the
        lease (of a
    running row) or the expiry (of a pending one) to lie in the past; ``late`` lets a settle through whose lease
    lapsed, as long as
    nobody has claimed the row since (its token is still the record's). ``op`` is new per change: the row remembers
    the last
    one, and a repeat answers ``repeated``.

    The effect: everything else. None leaves a field as it is, unless said otherwise.
    """

    id: str
    op: str
    was: str
    token: str | None = None
    generation: int | None = None
    lapsed: bool = False
    late: bool = False

    to: str
    due_ms: int | None = None  # from now
    lease_ms: int | None = None  # from now; only where to is RUNNING
    keep_ms: int | None = None  # from now; only where the row ends; None = for ever
    attempts: int = 0  # added
    lease_losses: int = 0  # added
    postpones: int = 0  # added
    reset: bool = False  # attempts to 0
    revive: bool = False  # a replay: raises replays, clears losses, expiry, reason and end
    started: bool | None = None
    new_token: str | None = None  # a leased row changes hands (takeover of a lapsed one)
    owner: str | None = None  # with new_token
    type: str | None = None
    reason: str | None = None
    body: bytes | None = None
    failure: FailureRow | None = None  # appended to the history, at most 20 are kept
    free_key: bool = False
    count: Sequence[tuple[str, str, str]] = ()  # (counter, type, detail) to raise by one each
    event: str | None = None  # an EventKind to store
    why: str = ""  # the event's detail


@attrs.frozen(kw_only=True)
class Scan:
    """A bounded look at rows of one state, in (time, id) order.

    The narrowing fields may be used or ignored by a backend: ``Query.matches()`` always decides.
    """

    state: str = DEAD
    newest_first: bool = True
    after: tuple[int, str] | None = None  # (time_ms, id) of the last row seen
    since_ms: int | None = None  # time ≥ this
    until_ms: int | None = None  # time ≤ this
    limit: int = BATCH
    history: int = 1  # what each row brings: 0 nothing, 1 its last failure, 20 all, the notes of edits among them
    body: bool = True
    lean: bool = False  # of the other columns only those that tell, judge or group a row (``LEAN``); more does no harm
    type: str | None = None  # exact
    priority: int | None = None
    fingerprint: str | None = None
    reason: str | None = None
    error_type: str | None = None
    release: str | None = None
    text: str | None = None  # casefolded; a row whose error type, message and tracebacks do not hold it may be left out


@attrs.frozen(kw_only=True)
class Slice:
    """Rows of one scan step.

    Attributes:
        rows: at most ``limit``.
        after: where the next step goes on; None where nothing is left.
        now_ms: the server's clock.
    """

    rows: list[Row]
    after: tuple[int, str] | None
    now_ms: int


@attrs.frozen
class Counted:
    """How many rows match a scan.

    Attributes:
        matched: among those that were looked at.
        whole: whether these are all there are.
    """

    matched: int
    whole: bool


@attrs.frozen(kw_only=True)
class Grouped:
    """Dead letters with one fingerprint, type or reason.

    Attributes:
        key: that.
        count: how many.
        first_ms: the earliest death.
        newest: the letter that died last, as a lean scan brings it.
        releases: of all of them.
    """

    key: str
    count: int
    first_ms: int
    newest: Row
    releases: frozenset[str]


@attrs.frozen(kw_only=True)
class Counts:
    """What the tally knows, without reading rows.

    Attributes:
        tally: (state, rank, type, reason or "") → n.
        lifetime: (counter, type, detail) → n, since the queue was made.
        oldest_pending_ms: the earliest ``created`` of pending rows; oldest_dead_ms: the earliest death.
        overdue: type → pending rows that have been due for over 60 s (counted up to 10,000 a type).
        now_ms: the server's clock.
    """

    tally: Mapping[tuple[str, int, str, str], int]
    lifetime: Mapping[tuple[str, str, str], int]
    oldest_pending_ms: int | None
    oldest_dead_ms: int | None
    overdue: Mapping[str, int]
    now_ms: int


@attrs.frozen
class EventRow:
    """A stored event; ``seq`` rises within a queue, and ``missed`` says how many before it are gone."""

    seq: int
    kind: str
    at_ms: int
    task_id: str | None = None
    type: str | None = None
    count: int = 1
    detail: Mapping[str, str] = attrs.field(factory=dict)
    missed: int = 0

    def following(self, seq: int) -> EventRow:
        """The same, where events are numbered one by one, for a listener who had all up to ``seq``."""
        missed = self.seq - seq - 1
        return attrs.evolve(self, missed=missed) if missed > 0 else self


@attrs.frozen
class Hint:
    """Something changed that a sleeping worker may want to see. May be lost; never the only way."""


@attrs.frozen(kw_only=True)
class Finding:
    """Something that ``doctor`` tells: ``level`` is ok, note, warning or error."""

    level: str
    text: str


@attrs.frozen(kw_only=True)
class Inspection:
    """What a store says of itself.

    Attributes:
        backend: its kind, such as ``"sqlite"``; version: of the software that keeps it.
        now_ms: the server's clock.
        durability: what survives what, in words.
        findings: what an operator should know.
        queues: the names of the queues that it holds, reserved ones among them; empty where it cannot tell.
    """

    backend: str
    version: str
    now_ms: int
    durability: str
    findings: Sequence[Finding] = ()
    queues: Sequence[str] = ()
