"""Which letters go before their own stamp says so: those beyond the limits of a ``Retention``.

A pass reads the tally, and the letters of each rule only where some are too many or too old: oldest death first, in
steps of 100, each its own ``scan``, tally and ``apply``. The tally is read after the scan, and each purge is fenced by the
generation that the scan saw. So a pass that ends anywhere is gone on with by the next one, and where two workers step at
once, both name the same oldest letters: what one has purged is missing to the other, and nothing newer goes instead.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

import attrs

from ..model.errors import BackendError
from ..model.retention import Retention
from ..model.row import BATCH, DEAD, FORMAT, Row, Scan, Verdict
from ..rules import changes

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.retention")

_PAUSE = 60.0
_SEARCHES = 16  # types that are scanned each by itself; more of them cost less in one walk over all letters


@attrs.define
class _Share:
    """The letters that obey one rule."""

    queue: DeadLetterQueue
    retention: Retention
    glob: str | None  # None: of all types that no glob matches

    @property
    def rule(self) -> Retention:
        """What limits them."""
        return self.retention if self.glob is None else self.retention.by_type[self.glob]

    def has(self, type_: str) -> bool:
        """Whether a type's letters belong to it."""
        return self.retention.glob(type_) == self.glob

    async def look(self) -> _Look:
        """Read the tally."""
        counts = await self.queue.backend.counts(self.queue.name)
        found: dict[str, int] = {}
        for (state, _, type_, _), n in counts.tally.items():
            if state == DEAD and n > 0 and self.has(type_):
                found[type_] = found.get(type_, 0) + n
        limit, age = self.rule.count, self.rule.age
        return _Look(
            types=list(found),
            surplus=0 if limit is None else max(0, sum(found.values()) - limit),
            aged_ms=-1 if age is None else counts.now_ms - round(age.total_seconds() * 1000),
        )


@attrs.frozen
class _Look:
    """What the tally says of a share: its types, how many letters are too many, and which death is too long ago."""

    types: Sequence[str]
    surplus: int
    aged_ms: int


async def retain(queue: DeadLetterQueue, retention: Retention) -> int:
    """Make one pass; answer how many letters went."""
    gone = 0
    for glob in (*retention.by_type, None):
        share = _Share(queue, retention, glob)
        if share.rule.limits:
            gone += await _limit(share)
    return gone


async def retain_once(queue: DeadLetterQueue) -> None:
    """Make one pass where the queue was given limits; a store that is away is told, and left to the next one."""
    if queue.options.retention is None:
        return
    try:
        gone = await retain(queue, queue.options.retention)
    except BackendError as error:
        log.warning("cannot apply the retention: %s", error)
        return
    if gone:
        log.info("%d letters of queue %s went by its retention", gone, queue.name)


async def retain_until_cancelled(queue: DeadLetterQueue) -> None:
    """Make a pass each minute."""
    while queue.options.retention is not None:
        await retain_once(queue)
        await queue.clock.sleep(_PAUSE)


async def _limit(share: _Share) -> int:
    """Purge what is beyond one rule, the oldest death first."""
    first = await share.look()
    if not first.types or (not first.surplus and share.rule.age is None):
        return 0
    gone = held = 0  # held: written by a newer version, so that they stay, and count
    async with aclosing(_oldest(share, first.types, None if first.surplus else first.aged_ms)) as batches:
        async for rows in batches:
            surplus = max(0, (await share.look()).surplus - held)
            aged = sum((row.ended_ms or 0) <= first.aged_ms for row in rows)
            going = rows[: max(aged, surplus)]
            gone += await _purge(share, going, surplus)
            held += sum(row.format > FORMAT for row in going)
            if len(going) < len(rows):
                break
    return gone


async def _purge(share: _Share, rows: Sequence[Row], surplus: int) -> int:
    """Purge, the first ``surplus`` since they are too many, the others since they are too old."""
    queue, rule = share.queue, share.rule
    why = [f"beyond the newest {rule.count}" if at < surplus else f"older than {rule.age}" for at in range(len(rows))]
    keep_ms = queue.options.keep_finished_ms
    batch = [changes.purge(row, queue.chance.name(), keep_ms, said) for row, said in zip(rows, why, strict=True)]
    verdicts = await queue.apply(batch) if batch else []
    return sum(verdict in (Verdict.DONE, Verdict.REPEATED) for verdict in verdicts)


async def _oldest(share: _Share, types: Sequence[str], until_ms: int | None) -> AsyncGenerator[list[Row], None]:
    """The share's letters in batches of at most 100, oldest death first."""
    everything = len(types) > _SEARCHES or not share.retention.by_type
    async with AsyncExitStack() as stack:
        lines = [
            await stack.enter_async_context(aclosing(_line(share, type_, until_ms)))
            for type_ in ([None] if everything else types)
        ]
        batch: list[Row] = []
        async for row in await stack.enter_async_context(aclosing(_merged(lines))):
            batch.append(row)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


async def _line(share: _Share, type_: str | None, until_ms: int | None) -> AsyncGenerator[Row, None]:
    backend = share.queue.backend
    scan = Scan(
        newest_first=False, limit=min(BATCH, backend.scan_limit), type=type_, until_ms=until_ms, history=0, body=False
    )
    while True:
        page = await backend.scan(share.queue.name, scan)
        for row in page.rows:
            if row.type == type_ or (type_ is None and share.has(row.type)):
                yield row
        if page.after is None:
            return
        scan = attrs.evolve(scan, after=page.after)


async def _merged(lines: Sequence[AsyncGenerator[Row, None]]) -> AsyncGenerator[Row, None]:
    """The rows of several sorted lines as one."""
    heads: list[tuple[tuple[int, str], int, Row]] = []

    async def draw(n: int) -> None:
        row = await anext(lines[n], None)
        if row is not None:
            heapq.heappush(heads, ((row.time_ms, row.id), n, row))

    for n in range(len(lines)):
        await draw(n)
    while heads:
        _, n, row = heapq.heappop(heads)
        yield row
        await draw(n)
