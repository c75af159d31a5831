"""Reading without changing anything: pages, groups, stats."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import attrs

from ..model.errors import InvalidQuery
from ..model.query import Query, decode_cursor, encode_cursor, glob_match
from ..model.record import FailureGroup, Page, Searched, State, Stats, TaskRecord
from ..model.row import BATCH, DEAD, GONE, PENDING, Counts, Row, Scan
from ..model.task import from_ms
from .pauses import paused
from .presence import present
from .sieve import Sieve

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

COUNTED = 10_000  # rows that a page looks through to say how many match in all
LONGEST_PAGE = 1000
_STEP = 500  # rows of one scan
_INDEXED = ("state", "fingerprint", "since_ms", "until_ms")
_ALL = 1 << 62  # of a count that an index answers

_BY: dict[str, Callable[[Row], str]] = {
    "fingerprint": lambda row: row.fingerprint or "",
    "type": lambda row: row.type,
    "reason": lambda row: row.reason or "",
    "error_type": lambda row: row.error_type or "",
    "worker": lambda row: row.worker or "",
    "release": lambda row: row.release or "",
}
_RANKS = {"high": 0, "normal": 1, "low": 2}


async def page(
    queue: DeadLetterQueue, query: Query, *, cursor: str | None, limit: int, patience: float | None = None
) -> Page:
    """See DeadLetterQueue.list."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= LONGEST_PAGE:
        raise InvalidQuery(f"limit: {limit!r} is no page size; give 1 to {LONGEST_PAGE}")
    if patience is not None and not 0 <= patience < float("inf"):
        raise InvalidQuery(f"patience: {patience!r} is no time to look; give seconds, 0 or more")
    after = decode_cursor(cursor) if cursor is not None else None
    if query.ids is not None:
        return await _named(queue, query, after, limit)
    if query.state is None:
        raise InvalidQuery("state: a list is of one state; give pending, running, succeeded or dead")
    until = None if patience is None else queue.clock.monotonic() + patience
    counts = await queue.backend.counts(queue.name)
    wanted = query.resolved(from_ms(counts.now_ms))
    sieve = Sieve(queue, wanted)
    found = await _newest(queue, sieve, after, limit, until)
    complete = after is None and found.after is None
    total, at_least = await _total(queue, wanted, sieve, counts, found, complete=complete, until=until)
    return Page(
        items=await _whole(queue, found.rows, partial=sieve.body and sieve.lean),
        next_cursor=None if found.after is None else encode_cursor(found.after),
        total=total,
        total_at_least=max(at_least, len(found.rows) + found.more),
        searched=None if found.after is None or found.more else await _searched(queue, sieve, found.after),
    )


@attrs.frozen
class _Found:
    """The first rows after a place.

    Attributes:
        rows: those.
        after: where the next page goes on; None where nothing is left.
        more: whether a row is known to be there.
    """

    rows: list[Row]
    after: tuple[int, str] | None = None
    more: bool = False


async def _newest(
    queue: DeadLetterQueue, sieve: Sieve, after: tuple[int, str] | None, limit: int, until: float | None
) -> _Found:
    """At most ``limit`` rows after a place, looked for until a monotonic time."""
    found: list[Row] = []
    fields = {} if sieve.body else {"history": 1, "body": True, "lean": False}  # few have the payload that is asked for
    async with aclosing(_steps(queue, sieve, after=after, limit=limit + 1, **fields)) as steps:
        async for rows, reached in steps:
            found += rows
            if len(found) > limit:
                last = found[limit - 1]
                return _Found(found[:limit], (last.time_ms, last.id), more=True)
            if reached is not None and until is not None and queue.clock.monotonic() >= until:
                return _Found(found, reached)
    return _Found(found)


async def _searched(queue: DeadLetterQueue, sieve: Sieve, reached: tuple[int, str]) -> Searched:
    """How far a search has come: by time alone, which every index has in order."""
    fields = sieve.fields
    whole = Scan(state=fields["state"], since_ms=fields.get("since_ms"), until_ms=fields.get("until_ms"))
    done = attrs.evolve(whole, since_ms=max(reached[0], whole.since_ms or reached[0]))
    looked_at, of = [await queue.backend.count(queue.name, scan, _ALL) for scan in (done, whole)]
    return Searched(
        looked_at=None if looked_at is None else looked_at.matched,
        of=None if of is None else of.matched,
        back_to=from_ms(reached[0]),
    )


async def _steps(
    queue: DeadLetterQueue, sieve: Sieve, **fields: Any
) -> AsyncGenerator[tuple[list[Row], tuple[int, str] | None], None]:
    """The rows that a query means, newest first, and how far each step came; the first is as small as its ``limit``."""
    most = min(queue.backend.scan_limit, _STEP)
    fields = {"history": sieve.history, "body": sieve.body, "lean": sieve.lean, "limit": most, **fields}
    scan = Scan(newest_first=True, **sieve.fields, **{**fields, "limit": min(most, fields["limit"])})
    while True:
        found = await queue.backend.scan(queue.name, scan)
        yield sieve.of(found.rows), found.after
        if found.after is None:
            return
        scan = attrs.evolve(scan, after=found.after, limit=most)


async def _whole(queue: DeadLetterQueue, rows: Sequence[Row], *, partial: bool = False) -> list[TaskRecord]:
    """Their records with the whole history; what has left its state meanwhile as it was found, unless only partly."""
    found: list[TaskRecord] = []
    for at in range(0, len(rows), BATCH):
        step = rows[at : at + BATCH]
        loaded = await queue.backend.load(queue.name, [row.id for row in step], history=20)
        for row, now in zip(step, loaded, strict=True):
            if now is not None and now.state == row.state:
                found.append(queue.record(now))
            elif not partial:
                found.append(queue.record(row))
    return found


async def _named(queue: DeadLetterQueue, query: Query, after: tuple[int, str] | None, limit: int) -> Page:
    counts = await queue.backend.counts(queue.name)
    rows = await _loaded(queue, query.resolved(from_ms(counts.now_ms)))
    left = [row for row in rows if after is None or (row.time_ms, row.id) < after]
    shown = left[:limit]
    cursor = encode_cursor((shown[-1].time_ms, shown[-1].id)) if len(left) > limit else None
    return Page(items=await _whole(queue, shown), next_cursor=cursor, total=len(rows), total_at_least=len(rows))


async def _loaded(queue: DeadLetterQueue, wanted: Query) -> list[Row]:
    """The rows with a query's ids that match it, newest first: loaded, as a scan would look at every row."""
    ids = list(dict.fromkeys(wanted.ids or ()))
    rows: list[Row] = []
    for at in range(0, len(ids), BATCH):
        loaded = await queue.backend.load(queue.name, ids[at : at + BATCH])
        rows += [row for row in loaded if row is not None and row.state != GONE and wanted.matches(queue.record(row))]
    return sorted(rows, key=lambda row: (row.time_ms, row.id), reverse=True)


async def _total(
    queue: DeadLetterQueue,
    wanted: Query,
    sieve: Sieve,
    counts: Counts,
    found: _Found,
    *,
    complete: bool,
    until: float | None,
) -> tuple[int | None, int]:
    """How many match in all: from the tally where it answers, else by looking through a bounded number of rows."""
    exact = _tallied(wanted, counts)
    if exact is not None:
        return exact, exact
    if complete:
        return len(found.rows), len(found.rows)
    if sieve.countable:
        counted = await queue.backend.count(queue.name, Scan(**sieve.fields), COUNTED)
        if counted is not None:
            return (counted.matched if counted.whole else None), counted.matched
    if await _too_many(queue, wanted, sieve, counts):
        return None, 0
    matched = looked = 0
    async with aclosing(_steps(queue, sieve, limit=_STEP)) as steps:
        async for rows, _ in steps:
            matched += len(rows)
            looked += _STEP
            if looked >= COUNTED or (until is not None and queue.clock.monotonic() >= until):
                return None, matched
    return matched, matched


async def _too_many(queue: DeadLetterQueue, wanted: Query, sieve: Sieve, counts: Counts) -> bool:
    """Whether more rows would have to be looked through than may be, as far as that can be told without looking."""
    bare = Query(state=wanted.state, type=wanted.type, priority=wanted.priority, reason=wanted.reason)
    if (_tallied(bare, counts) or 0) <= COUNTED:
        return False
    fields = {name: value for name, value in sieve.fields.items() if name in _INDEXED}
    counted = await queue.backend.count(queue.name, Scan(**fields), COUNTED)
    return counted is not None and (counted.matched > COUNTED or not counted.whole)


def _tallied(wanted: Query, counts: Counts) -> int | None:
    narrowed = {
        field.name
        for field in attrs.fields(Query)
        if field.init and field.name != "state" and getattr(wanted, field.name) is not None
    }
    if narrowed - {"type", "priority", "reason"}:
        return None
    rank = _RANKS[wanted.priority] if wanted.priority is not None else None
    return sum(
        n
        for (state, priority, type_, reason), n in counts.tally.items()
        if state == wanted.state
        and (rank is None or rank == priority)
        and (wanted.type is None or glob_match(wanted.type, type_))
        and (wanted.reason is None or wanted.reason == reason)
    )


async def scan(queue: DeadLetterQueue, query: Query) -> AsyncIterator[TaskRecord]:
    """See DeadLetterQueue.scan."""
    await queue.open()
    if query.ids is not None:
        for record in (await _named(queue, query, None, len(query.ids) or 1)).items:
            yield record
        return
    now_ms = (await queue.backend.inspect()).now_ms
    states = [query.state] if query.state is not None else list(State)
    for state in states:
        wanted = attrs.evolve(query, state=state).resolved(from_ms(now_ms))
        sieve = Sieve(queue, wanted)
        fields = {} if sieve.body else {"history": 20, "body": True, "lean": False}
        async with aclosing(_steps(queue, sieve, **fields)) as steps:
            async for rows, _ in steps:
                for record in await _whole(queue, rows, partial=True) if sieve.body else map(queue.record, rows):
                    yield record


@attrs.define
class _Group:
    """A group as it is counted; rows come newest first."""

    newest: Row
    first_ms: int
    count: int = 0
    releases: set[str] = attrs.field(factory=set)


async def groups(queue: DeadLetterQueue, query: Query, *, by: str) -> Sequence[FailureGroup]:
    """See DeadLetterQueue.groups."""
    key_of = _BY.get(by)
    if key_of is None:
        raise InvalidQuery(f"by: {by!r} is not one of {', '.join(_BY)}")
    if query.state not in (None, State.DEAD):
        raise InvalidQuery(f"state: {query.state} has no groups; they are of dead letters")
    now_ms = (await queue.backend.inspect()).now_ms
    wanted = attrs.evolve(query, state=State.DEAD).resolved(from_ms(now_ms))
    sieve = Sieve(queue, wanted)
    indexed = None
    if sieve.countable and wanted.ids is None:
        indexed = await queue.backend.groups(queue.name, Scan(**sieve.fields), by)
    if indexed is not None:
        found = {group.key: _Group(group.newest, group.first_ms, group.count, {*group.releases}) for group in indexed}
    else:
        found = await _counted(queue, wanted, key_of)
    messages = await _messages(queue, [group.newest.id for group in found.values()])
    made = [
        FailureGroup(
            key=key,
            count=group.count,
            first_seen=from_ms(group.first_ms),
            last_seen=from_ms(group.newest.time_ms),
            type=group.newest.type,
            error_type=group.newest.error_type or "",
            message=messages.get(group.newest.id, ""),
            releases=sorted(group.releases),
            sample_id=group.newest.id,
        )
        for key, group in found.items()
    ]
    return sorted(made, key=lambda group: (-group.count, group.key))


async def _counted(queue: DeadLetterQueue, wanted: Query, key_of: Callable[[Row], str]) -> dict[str, _Group]:
    """Groups from every letter that is meant."""
    found: dict[str, _Group] = {}
    async for rows in _newest_first(queue, wanted):
        for row in rows:
            key = key_of(row)
            group = found.get(key)
            if group is None:
                group = found[key] = _Group(row, row.time_ms)
            group.count += 1
            group.first_ms = row.time_ms
            if row.release:
                group.releases.add(row.release)
    return found


async def _newest_first(queue: DeadLetterQueue, wanted: Query) -> AsyncGenerator[list[Row], None]:
    if wanted.ids is not None:
        yield await _loaded(queue, wanted)
        return
    async with aclosing(_steps(queue, Sieve(queue, wanted))) as steps:
        async for rows, _ in steps:
            yield rows


async def _messages(queue: DeadLetterQueue, ids: Sequence[str]) -> dict[str, str]:
    messages: dict[str, str] = {}
    for at in range(0, len(ids), BATCH):
        for row in await queue.backend.load(queue.name, ids[at : at + BATCH]):
            if row is not None and row.history:
                messages[row.id] = row.history[-1].message
    return messages


async def stats(queue: DeadLetterQueue) -> Stats:
    """See DeadLetterQueue.stats."""
    counts = await queue.backend.counts(queue.name)
    by_state = dict.fromkeys(map(str, State), 0)
    by_priority = dict.fromkeys(_RANKS, 0)
    by_type: dict[str, int] = {}
    by_reason: dict[str, int] = {}
    pending: dict[str, int] = {}
    for (state, rank, type_, reason), n in counts.tally.items():
        by_state[str(state)] = by_state.get(str(state), 0) + n
        if state == DEAD:
            by_priority[tuple(_RANKS)[rank]] += n
            by_type[type_] = by_type.get(type_, 0) + n
            by_reason[str(reason)] = by_reason.get(str(reason), 0) + n
        elif state == PENDING:
            pending[type_] = pending.get(type_, 0) + n
    lifetime: dict[str, int] = {}
    for (name, _, _), n in counts.lifetime.items():
        lifetime[name] = lifetime.get(name, 0) + n
    return Stats(
        by_state=by_state,
        by_priority=by_priority,
        by_type=by_type,
        by_reason=by_reason,
        pending_by_type=pending,
        lifetime=lifetime,
        oldest_pending=_age(counts.oldest_pending_ms, counts.now_ms),
        oldest_dead=_age(counts.oldest_dead_ms, counts.now_ms),
        overdue=dict(counts.overdue),
        workers=await present(queue),
        paused={pause.types: pause.why for pause in await paused(queue)},
        spooled=await queue.spooler.waiting() if queue.spooler is not None else 0,
    )


def _age(since_ms: int | None, now_ms: int) -> float | None:
    return None if since_ms is None else max(0, now_ms - since_ms) / 1000
