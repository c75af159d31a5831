"""Every trace of tasks away, whatever their state: pass after pass, until one finds nothing more to do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from ..model.query import Query
from ..model.record import BulkResult, State
from ..model.row import BATCH, DEAD, PENDING, RUNNING, SUCCEEDED, Row, Verdict
from ..model.task import from_ms
from ..rules import changes
from .bulk import Bucket, Plan, matching

if TYPE_CHECKING:
    from .queue import DeadLetterQueue


async def erase(queue: DeadLetterQueue, plan: Plan, why: str = "") -> BulkResult:
    """See DeadLetterQueue.erase; the plan's cutoff is nothing to it."""
    plan.check(any_state=True)
    now_ms = (await queue.backend.inspect()).now_ms
    erasing = _Erasing(queue, plan, why, now_ms)
    return await (erasing.count() if plan.dry_run else erasing.run())


def states_of(query: Query) -> Sequence[State]:
    """The states that an erase with this query means."""
    return [*State] if query.state in (None, State.DEAD) else [query.state]


class _Erasing:
    def __init__(self, queue: DeadLetterQueue, plan: Plan, why: str, now_ms: int) -> None:
        self._queue, self._plan, self._why, self._now_ms = queue, plan, why, now_ms
        self._states = states_of(plan.query)
        self._bucket = Bucket(queue, plan.rate)
        self._erased = self._gone = 0  # by us, and by themselves while they ran
        self._left: set[str] = set()  # met by this pass, and not erased
        self._running: set[str] = set()

    async def count(self) -> BulkResult:
        """How many match."""
        found = 0
        for state in self._states:
            async with aclosing(matching(self._queue, self._plan.query, state, now_ms=self._now_ms)) as met:
                async for rows in met:
                    found += len(rows)
                    if self._plan.progress is not None:
                        self._plan.progress(self._result(found))
                    if self._plan.limit is not None and found >= self._plan.limit:
                        return self._result(self._plan.limit)
        return self._result(found)

    async def run(self) -> BulkResult:
        """Erase them."""
        if self._queue.spooler is not None:
            self._erased += len(await self._queue.spooler.erase(self._plan.query, self._states, self._now_ms))
        while self._room != 0 and await self._pass():
            continue  # what changed its state during a pass is met by the next
        return self._result(self._matched)

    async def _pass(self) -> bool:
        """Bury what matches now; answer whether that was anything."""
        before = self._erased
        self._left.clear()
        for state in self._states:
            async with aclosing(matching(self._queue, self._plan.query, state, now_ms=self._now_ms)) as met:
                async for rows in met:
                    if self._room == 0:
                        break
                    await self._take(state, rows[: self._room])
        await self._bury_ended()
        return self._erased > before

    @property
    def _room(self) -> int | None:
        """How many more may be taken; None for all."""
        limit = self._plan.limit
        return None if limit is None else max(0, limit - self._erased - len(self._running))

    async def _take(self, state: State, rows: Sequence[Row]) -> None:
        if state == RUNNING:
            self._running.update(row.id for row in rows)
            return
        for batch in self._bucket.batches(rows):
            await self._bury(batch)

    async def _bury(self, rows: Sequence[Row]) -> None:
        await self._bucket.draw(len(rows))
        if self._plan.begin is not None:
            await self._plan.begin(len(rows))
        keep_ms = self._queue.options.keep_finished_ms
        batch = [changes.erase(row, self._queue.chance.name(), keep_ms, self._why) for row in rows]
        verdicts = await self._queue.apply(batch)
        done = {change.id for change, verdict in zip(batch, verdicts, strict=True) if verdict is Verdict.DONE}
        self._erased += len(done)
        self._left.update(row.id for row in rows if row.id not in done)
        self._running -= done
        if self._plan.progress is not None:
            self._plan.progress(self._result(self._matched))

    async def _bury_ended(self) -> None:
        """Wait for the attempts that run, then bury what they left.

        A processor is never cut off in the middle of its effect.
        """
        wait = 0.01
        while self._running:
            await self._queue.sweep()  # an attempt whose worker vanished has ended, too
            ids = sorted(self._running)[:BATCH]
            rows = [row for row in await self._queue.backend.load(self._queue.name, ids) if row is not None]
            ended = [row for row in rows if row.state in (PENDING, SUCCEEDED, DEAD)]
            for batch in self._bucket.batches(ended):
                await self._bury(batch)
            gone = set(ids) - {row.id for row in rows if row.state == RUNNING} - {row.id for row in ended}
            self._gone += len(gone)
            self._running -= gone
            if self._running:
                await self._queue.clock.sleep(wait)
                wait = min(wait * 2, 1.0)

    @property
    def _matched(self) -> int:
        return self._erased + self._gone + len(self._left)

    def _result(self, matched: int) -> BulkResult:
        return BulkResult(matched=matched, changed=self._erased, failed=0, cutoff=from_ms(self._now_ms))
