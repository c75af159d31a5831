"""Commands that look: ls, show, search, groups, stats."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Literal

import attrs

from ..model.query import Query
from ..model.record import Failure, State, Stats, TaskRecord
from ..views import group_item, stats_item
from ..views import groups as see_groups
from .exits import DONE, BadUse
from .flags import Flags, Where
from .output import emit, harmless, moment, pairs, say, span, table, when
from .progress import progress
from .session import Session, session

_PAGE = 1000
_PATIENCE = 2.0  # seconds between two words on how far a search came


async def ls(*, limit: int = 50, where: Where | None = None, flags: Flags | None = None) -> int:
    """List tasks, newest first; without --state dead letters.

    Example: deadletter ls --type 'email.*' --newer-than 1h

    Args:
        limit: Show at most so many.
    """
    return await _list((where or Where()).query(), limit, flags)


async def search(text: str, /, *, limit: int = 50, where: Where | None = None, flags: Flags | None = None) -> int:
    """List the dead letters whose error type, message or traceback holds a text, in any case.

    Example: deadletter search 'connection refused' --newer-than 1d

    Args:
        text: What to look for.
        limit: Show at most so many.
    """
    query = (where or Where()).query()
    if query.error_contains is not None:
        raise BadUse("search TEXT and --error-contains are the same condition; give one of them")
    return await _list(attrs.evolve(query, error_contains=text), limit, flags)


async def show(id: str, /, *, flags: Flags | None = None) -> int:
    """Show a task with its whole story.

    Example: deadletter show 0193a5f2-7c1e-7d4b-9c55-0a3f6f1f2e11

    Args:
        id: The task's id.
    """
    async with session(flags, server=True) as desk:
        record = await desk.seen.get(id)
        desk.answer(desk.item(record), lambda: pairs(_story(record)))
    return DONE


async def groups(
    *,
    by: Literal["fingerprint", "type", "reason", "error_type", "worker", "release"] = "fingerprint",
    limit: int = 50,
    where: Where | None = None,
    flags: Flags | None = None,
) -> int:
    """Show dead letters by cause, largest group first.

    Example: deadletter groups --newer-than 1d

    Args:
        by: What the letters of a group share.
        limit: Show at most so many groups.
    """
    query = (where or Where()).query()
    async with session(flags, server=True) as desk:
        found = await see_groups(desk.queue, desk.viewer, query, by=by)
        shown = found[: _positive(limit)]
        if desk.json:
            for group in shown:
                emit(group_item(group))
        else:
            rows = (
                (
                    _cut(group.key) or "-",
                    str(group.count),
                    _cut(group.type),
                    when(group.last_seen),
                    _short(group.error_type, group.message),
                )
                for group in shown
            )
            table((by.upper(), "COUNT", "TYPE", "LAST", "ERROR"), rows)
        if not found:
            await desk.remark_if_unknown()
    _rest(len(shown), len(found))
    return DONE


async def stats(*, flags: Flags | None = None) -> int:
    """Show the queue at a glance: counts, ages, workers, what is overdue.

    Example: deadletter stats --json
    """
    async with session(flags, server=True) as desk:
        found = await desk.queue.stats()
        desk.answer(stats_item(found), lambda: pairs(_figures(found, desk)))
        await desk.remark_if_unknown()
    return DONE


async def _list(query: Query, limit: int, flags: Flags | None) -> int:
    async with session(flags, server=True) as desk:
        shown, total, at_least = await _first(desk, query, _positive(limit))
        if desk.json:
            for record in shown:
                emit(desk.item(record, whole=False))
        else:
            table(("ID", "TYPE", _time_of(query), "TRIES", "WHY", "ERROR"), map(_line, shown))
        if not shown:
            await desk.remark_if_unknown()
    _rest(len(shown), total, at_least)
    return DONE


async def _first(desk: Session, query: Query, limit: int) -> tuple[list[TaskRecord], int | None, int]:
    """The first records that match, paged; and how many match in all."""
    page = await desk.seen.list(query, limit=min(limit, _PAGE), patience=_PATIENCE)
    shown, total, at_least = list(page.items), page.total, page.total_at_least
    of = None if page.searched is None else page.searched.of
    with progress("searching", total=of, quiet=page.searched is None) as tell:
        while page.next_cursor is not None and len(shown) < limit:
            if page.searched is not None and page.searched.looked_at is not None:
                tell(page.searched.looked_at)
            left = min(limit - len(shown), _PAGE)
            page = await desk.seen.list(query, cursor=page.next_cursor, limit=left, patience=_PATIENCE)
            shown += page.items
    if page.next_cursor is None:
        total = len(shown)
    return shown, total, max(at_least, len(shown))


async def each(desk: Session, query: Query, limit: int | None) -> AsyncIterator[TaskRecord]:
    """Every record that matches, up to a limit."""
    if limit == 0:
        return
    count = 0
    async for record in desk.seen.scan(query):
        yield record
        count += 1
        if count == limit:
            return


def _positive(limit: int) -> int:
    if limit < 1:
        raise BadUse(f"--limit: {limit} is no number of lines; give 1 or more")
    return limit


def _rest(shown: int, total: int | None, at_least: int = 0) -> None:
    if total is None and at_least > shown:
        say(f"{shown} shown of at least {at_least}; --limit shows more")
    elif total is not None and total > shown:
        say(f"{shown} shown of {total}; --limit shows more")


def _time_of(query: Query) -> str:
    return {State.DEAD: "DIED", State.PENDING: "DUE"}.get(query.state or State.DEAD, "MADE")


def _line(record: TaskRecord) -> tuple[str, ...]:
    at = {State.DEAD: record.died_at, State.PENDING: record.due_at}.get(record.state, record.created_at)
    failure = record.failure
    error = "" if failure is None else _short(failure.error_type, failure.message)
    return (
        record.id,
        _cut(record.task.type),
        when(at),
        str(record.attempts),
        str(record.reason or record.state),
        error,
    )


def _short(error_type: str, message: str) -> str:
    name = error_type.rpartition(".")[2]
    first = message.strip().partition("\n")[0]
    text = f"{name}: {first}" if first else name
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= 200 else text[:199] + "…"


def _story(record: TaskRecord) -> Iterable[tuple[str, str]]:
    task = record.task
    yield "id", record.id
    yield "type", task.type
    yield "queue", record.queue
    yield "state", f"{record.state} ({record.reason})" if record.reason else str(record.state)
    yield "priority", str(task.priority)
    yield "attempts", _attempts(record)
    yield "created", moment(record.created_at)
    if record.state is State.PENDING:
        yield "due", moment(record.due_at)
    if record.died_at is not None:
        yield "died", moment(record.died_at)
    if record.expires_at is not None:
        yield "kept until" if record.state in (State.DEAD, State.SUCCEEDED) else "expires", moment(record.expires_at)
    if task.idempotency_key is not None:
        yield "key", harmless(task.idempotency_key)
    for name, text in task.metadata.items():
        yield "metadata", harmless(f"{name}={text}")
    yield "payload", json.dumps(task.payload, indent=2, ensure_ascii=False)
    if not record.replayable:
        yield "replayable", "no: its arguments could not be kept; retry it with --payload"
    yield from _failures(record.history)


def _attempts(record: TaskRecord) -> str:
    told = {"replays": record.replays, "lease losses": record.lease_losses, "postpones": record.postpones}
    return ", ".join([str(record.attempts), *(f"{name} {count}" for name, count in told.items() if count)])


def _failures(history: Iterable[Failure]) -> Iterable[tuple[str, str]]:
    last = None
    for last in history:
        took = "" if last.duration is None else f" after {last.duration:.3g} s"
        place = f" on {last.worker}" if last.worker else ""
        under = f", release {last.release}" if last.release else ""
        head = harmless(f"{moment(last.at)}{took}{place}{under}")
        yield f"attempt {last.attempt}", f"{head}\n{harmless(last.error_type)}: {last.message}"
    if last is not None and last.fingerprint:
        yield "cause", last.fingerprint
    if last is not None and last.traceback:
        yield "traceback", last.traceback.rstrip("\n")


def _figures(stats: Stats, desk: Session) -> Iterable[tuple[str, str]]:
    yield "queue", f"{desk.queue.name} on {desk.queue.backend.url}"
    for state, count in stats.by_state.items():
        yield state, str(count)
    if stats.oldest_pending is not None:
        yield "oldest pending", span(stats.oldest_pending)
    if stats.oldest_dead is not None:
        yield "oldest dead", span(stats.oldest_dead)
    for label, counts in (
        ("dead by type", stats.by_type),
        ("dead by reason", stats.by_reason),
        ("dead by priority", stats.by_priority),
        ("pending by type", stats.pending_by_type),
        ("overdue", stats.overdue),
        ("since the start", stats.lifetime),
    ):
        if any(counts.values()):
            yield label, _counted(counts)
    for glob, why in stats.paused.items():
        yield "paused", harmless(f"{glob}: {why}")
    if stats.spooled:
        yield "spooled", str(stats.spooled)
    workers = (harmless(f"{worker.name}: {', '.join(worker.types)}") for worker in stats.workers)
    yield "workers", "\n".join(workers) or "none"


def _counted(counts: Mapping[str, int]) -> str:
    largest = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return "\n".join(f"{count:>7} {harmless(name)}" for name, count in largest if count)
