"""What an alert needs to know of the store: samples, what is left of a cause, and the day's reckoning."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from ..engine.pauses import paused
from ..engine.presence import present
from ..model.query import glob_match
from ..model.record import TaskRecord
from ..model.row import DEAD, PENDING, Counts, Row, Scan
from ..rules.redaction import hiding
from .drafts import at, cause_facts, largest
from .grouping import Book, Cause, Said

if TYPE_CHECKING:
    from ..engine.queue import DeadLetterQueue

_PRIORITIES = ("high", "normal", "low")
_MOST = 100_000  # letters that a summary looks at
_TOP = 5
_DAY_MS = 24 * 3600 * 1000

LIFETIME = ("dead", "replayed", "retry_success", "purged", "aged_out")


async def sample(queue: DeadLetterQueue, task_id: str) -> TaskRecord | None:
    """A letter as anybody may see it: its hidden values are out of sight. None where it is one no more."""
    row = await queue.row(task_id)
    if row is None or row.state != DEAD:
        return None
    record = queue.record(row)
    return hiding((*record.redact, *queue.options.hidden_paths)).record(record)


async def causes(queue: DeadLetterQueue, book: Book, said: Sequence[Said], most: int) -> list[dict[str, Any]]:
    """The facts of causes; of the first ``most`` with their sample."""
    ordered = sorted(said, key=lambda each: (-each.fresh, -each.cause.count))
    found = []
    for n, each in enumerate(ordered):
        found.append(cause_facts(each, await sample(queue, each.cause.sample_id) if n < most else None))
        book.name(each.cause, found[-1]["error_type"])
    return found


async def any_left(queue: DeadLetterQueue, cause: Cause) -> int:
    """1 where letters of a cause are left, 0 where none is."""
    scan = Scan(fingerprint=cause.key, limit=1, history=0, body=False, lean=True)
    while True:
        page = await queue.backend.scan(queue.name, scan)
        if any(row.fingerprint == cause.key for row in page.rows):
            return 1
        if page.after is None:
            return 0
        scan = attrs.evolve(scan, after=page.after, limit=100)


def letters(counts: Counts) -> tuple[int, dict[str, int], dict[str, int], dict[str, int]]:
    """How many letters there are; by type, priority, reason."""
    by_type: dict[str, int] = {}
    by_priority: dict[str, int] = dict.fromkeys(_PRIORITIES, 0)
    by_reason: dict[str, int] = {}
    for (state, rank, type_, reason), n in counts.tally.items():
        if state == DEAD and n > 0:
            by_type[type_] = by_type.get(type_, 0) + n
            by_priority[_PRIORITIES[rank]] += n
            by_reason[str(reason)] = by_reason.get(str(reason), 0) + n  # an enum is no key in JSON
    return sum(by_type.values()), by_type, by_priority, by_reason


async def unattended(queue: DeadLetterQueue, counts: Counts) -> dict[str, int]:
    """Due tasks by type that no live worker knows, and that nobody paused."""
    if not any(counts.overdue.values()):
        return {}
    globs = [pause.types for pause in await paused(queue)]
    known = {type_ for worker in await present(queue) for type_ in worker.types}
    return {
        type_: n
        for type_, n in counts.overdue.items()
        if n and type_ not in known and not any(glob_match(glob, type_) for glob in globs)
    }


def lifetime(counts: Counts) -> dict[str, int]:
    """The counters that a summary tells the growth of."""
    found: dict[str, int] = dict.fromkeys(LIFETIME, 0)
    for (name, _, _), n in counts.lifetime.items():
        if name in found:
            found[name] += n
    return found


@attrs.define
class _Group:
    newest: Row
    count: int = 0


async def reckoning(
    queue: DeadLetterQueue, counts: Counts, before: Mapping[str, int], keep: Callable[[], Awaitable[object]]
) -> dict[str, Any]:
    """The facts of a daily summary. ``keep`` is awaited between the steps of a long look."""
    total, by_type, by_priority, by_reason = letters(counts)
    grown = {name: max(0, n - before.get(name, 0)) for name, n in lifetime(counts).items()}
    going: dict[str, int] = {}
    groups: dict[str, _Group] = {}
    looked = 0
    scan = Scan(history=0, body=False, limit=min(queue.backend.scan_limit, 500))
    while looked < _MOST:
        page = await queue.backend.scan(queue.name, scan)
        looked += len(page.rows)
        for row in page.rows:
            if row.keep_until_ms is not None and row.keep_until_ms <= page.now_ms + _DAY_MS:
                going[row.type] = going.get(row.type, 0) + 1
            groups.setdefault(row.fingerprint or "", _Group(row)).count += 1
        if page.after is None:
            break
        scan = attrs.evolve(scan, after=page.after)
        await keep()
    top = sorted(groups.values(), key=lambda group: (-group.count, group.newest.id))[:_TOP]
    return {
        "count": total,
        "by_type": largest(by_type),
        "by_priority": by_priority,
        "by_reason": largest(by_reason),
        "died": grown["dead"],
        "replayed": grown["replayed"],
        "recovered": grown["retry_success"],
        "purged": grown["purged"],
        "aged_out": grown["aged_out"],
        "oldest_at": at(counts.oldest_dead_ms),
        "pending": sum(n for (state, _, _, _), n in counts.tally.items() if state == PENDING),
        "overdue": sum(counts.overdue.values()),
        "paused": [pause.types for pause in await paused(queue)][:20],
        "going_within_24h": sum(going.values()),
        "going_by_type": largest(going),
        "causes": [
            {
                "type": group.newest.type,
                "error_type": group.newest.error_type or group.newest.reason or "",
                "count": group.count,
                "fingerprint": group.newest.fingerprint or "",
            }
            for group in top
        ],
        "at_least": looked >= _MOST,  # groups and what goes are of the newest letters alone
    }
