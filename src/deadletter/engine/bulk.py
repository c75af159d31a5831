"""Many letters at a time: scan → matches → changes of 100, each fenced by generation, so that a race has one winner."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING

import attrs

from ..model.errors import InvalidQuery
from ..model.query import Query
from ..model.record import BulkResult, State
from ..model.row import BATCH, DEAD, Change, Row, Scan, Verdict
from ..model.task import from_ms
from ..model.task import to_ms as at_ms
from ..rules import changes
from .sieve import Sieve

if TYPE_CHECKING:
    from .queue import DeadLetterQueue


@attrs.frozen
class Plan:
    """What a bulk call was asked for.

    ``begin`` is awaited with the size of each step right before it; what it raises ends the call.
    """

    query: Query
    limit: int | None
    rate: float | None
    dry_run: bool
    everything: bool
    cutoff: datetime | None
    progress: Callable[[BulkResult], object] | None
    begin: Callable[[int], Awaitable[object]] | None = None

    def check(self, *, any_state: bool = False) -> None:
        """Refuse what cannot be meant."""
        if not any_state and self.query.state not in (None, State.DEAD):
            raise InvalidQuery(f"state: {self.query.state} cannot be meant; this works on dead letters")
        if not (self.query.has_condition or self.limit is not None or self.everything):
            raise InvalidQuery("query: it has no condition; narrow it, give a limit, or say everything=True")
        if self.limit is not None and (not isinstance(self.limit, int) or self.limit < 0):
            raise InvalidQuery(f"limit: {self.limit!r} is no count; give 0 or more")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise InvalidQuery(f"rate: {self.rate!r} is no rate; give tasks per second, more than 0")
        if self.cutoff is not None and self.cutoff.tzinfo is None:
            raise InvalidQuery(f"cutoff: {self.cutoff!r} has no time zone; give the cutoff of an earlier result")


async def retry_all(queue: DeadLetterQueue, plan: Plan) -> BulkResult:
    """See DeadLetterQueue.retry_all."""

    def replay(row: Row) -> Change | None:
        return changes.replay(row, queue.chance.name()) if queue.record(row).replayable else None

    return await _run(queue, plan, replay)


async def purge(queue: DeadLetterQueue, plan: Plan, why: str) -> BulkResult:
    """See DeadLetterQueue.purge."""
    keep_ms = queue.options.keep_finished_ms
    return await _run(queue, plan, lambda row: changes.purge(row, queue.chance.name(), keep_ms, why))


async def _run(queue: DeadLetterQueue, plan: Plan, change: Callable[[Row], Change | None]) -> BulkResult:
    plan.check()
    now_ms = (await queue.backend.inspect()).now_ms
    cutoff = plan.cutoff or from_ms(now_ms)
    result = BulkResult(matched=0, changed=0, failed=0, cutoff=cutoff)
    bucket = Bucket(queue, plan.rate)
    async with aclosing(matching(queue, plan.query, DEAD, until_ms=at_ms(cutoff), now_ms=now_ms)) as found:
        async for rows in found:
            left = None if plan.limit is None else plan.limit - result.matched
            if left == 0:
                break
            for batch in bucket.batches(rows[:left]):
                if not plan.dry_run:
                    await bucket.draw(len(batch))
                    if plan.begin is not None:
                        await plan.begin(len(batch))
                result = await _step(queue, batch, change, result, dry_run=plan.dry_run)
                if plan.progress is not None:
                    plan.progress(result)
    return result


async def _step(
    queue: DeadLetterQueue,
    rows: Sequence[Row],
    change: Callable[[Row], Change | None],
    so_far: BulkResult,
    *,
    dry_run: bool,
) -> BulkResult:
    matched = so_far.matched + len(rows)
    if dry_run:
        return attrs.evolve(so_far, matched=matched)
    batch = [made for row in rows if (made := change(row)) is not None]
    verdicts = await queue.apply(batch) if batch else []
    changed = sum(verdict in (Verdict.DONE, Verdict.REPEATED) for verdict in verdicts)
    return attrs.evolve(
        so_far, matched=matched, changed=so_far.changed + changed, failed=so_far.failed + len(rows) - changed
    )


async def matching(
    queue: DeadLetterQueue, query: Query, state: str, *, until_ms: int | None = None, now_ms: int
) -> AsyncGenerator[list[Row], None]:
    """Lists of at most 100 rows that match, oldest first."""
    wanted = attrs.evolve(query, state=State(state)).resolved(from_ms(now_ms))
    if wanted.ids is not None:
        named = await _named(queue, wanted, until_ms)
        for at in range(0, len(named), BATCH):
            yield named[at : at + BATCH]
        return
    sieve = Sieve(queue, wanted)
    fields = sieve.fields
    if until_ms is not None:
        fields["until_ms"] = min(until_ms, fields.get("until_ms") or until_ms)
    scan = Scan(newest_first=False, limit=min(BATCH, queue.backend.scan_limit), history=sieve.history, **fields)
    while True:
        page = await queue.backend.scan(queue.name, scan)
        rows = sieve.of(page.rows)
        if rows:
            yield rows
        if page.after is None:
            return
        scan = attrs.evolve(scan, after=page.after)


async def _named(queue: DeadLetterQueue, wanted: Query, until_ms: int | None) -> list[Row]:
    """The rows with the query's ids that match it, oldest first: loaded, as a scan would look at every row."""
    ids = list(dict.fromkeys(wanted.ids or ()))
    found: list[Row] = []
    for at in range(0, len(ids), BATCH):
        rows = await queue.backend.load(queue.name, ids[at : at + BATCH])
        found += [row for row in rows if row is not None and row.state == wanted.state]
    in_time = [row for row in found if until_ms is None or row.time_ms <= until_ms]
    return sorted(filter(lambda row: wanted.matches(queue.record(row)), in_time), key=lambda row: (row.time_ms, row.id))


class Bucket:
    """A token bucket of one second's worth, so that a rate holds from the first task on."""

    def __init__(self, queue: DeadLetterQueue, rate: float | None) -> None:
        self._clock = queue.clock
        self._rate = rate
        self._next = queue.clock.monotonic()

    def batches(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        """The rows in steps short enough for the rate: at most a fifth of a second each."""
        size = BATCH if self._rate is None else max(1, min(BATCH, int(self._rate / 5)))
        return [rows[at : at + size] for at in range(0, len(rows), size)]

    async def draw(self, n: int) -> None:
        """Wait until ``n`` tasks may go."""
        if self._rate is None:
            return
        now = self._clock.monotonic()
        if self._next > now:
            await self._clock.sleep(self._next - now)
        self._next = max(self._next, now) + n / self._rate
