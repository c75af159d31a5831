"""A queue spread over shards: every step of the seam, fanned out and put together again.

What holds on one shard alone: order (FIFO, priorities) among rows, and that an insert is all or nothing.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import anyio
import attrs

from ...model.errors import BackendUnavailable
from ...model.row import (
    BATCH,
    Change,
    Claim,
    Claimed,
    Counted,
    Counts,
    Grouped,
    Inserted,
    Insertion,
    NewRow,
    Row,
    Scan,
    Slice,
    Verdict,
)
from .events import SpreadEvents
from .grouping import joined
from .placement import Homes, place, unpacked
from .shard import Shard

log = logging.getLogger("deadletter.redis")

T = TypeVar("T")
_AGAIN_S = 60.0  # between two warnings
_CONFLICTS = (Inserted.TASK_CONFLICT, Inserted.KEY_CONFLICT)
_SPARE = 16  # rows of a scan that each shard may bring however small its share


class Spread:
    """The steps of a queue on several shards."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._homes = Homes(len(shards))
        self._turn = 0
        self._warned = float("-inf")

    async def insert(self, rows: Sequence[NewRow]) -> list[Insertion]:
        """See Backend.insert: all or nothing on each shard."""
        groups: dict[int, list[int]] = {}
        for at, new in enumerate(rows):
            groups.setdefault(place(new, len(self._shards)), []).append(at)
        told = await self._each({n: self._shards[n].insert([rows[at] for at in ats]) for n, ats in groups.items()})
        found: dict[int, Insertion] = {}
        for n, insertions in told.items():
            self._homes.learn(n, (insertion.id for insertion in insertions))
            found.update(zip(groups[n], insertions, strict=False))
        first = next((at for at in sorted(found) if found[at].verdict in _CONFLICTS), len(rows) - 1)
        return [found[at] for at in range(first + 1)]  # the others stop at the first conflict, too

    async def apply(self, changes: Sequence[Change]) -> list[Verdict]:
        """See Backend.apply; an id that its shard does not know changed nothing there, and is looked for elsewhere."""
        verdicts: list[Verdict] = [Verdict.MISSING] * len(changes)
        first = self._first_asked(change.id for change in changes)
        groups: dict[int, list[int]] = {}
        for at, change in enumerate(changes):
            groups.setdefault(first[change.id], []).append(at)
        await self._apply(changes, groups, verdicts)
        known = {change.id for change, told in zip(changes, verdicts, strict=True) if told is not Verdict.MISSING}
        lost = [at for at, change in enumerate(changes) if change.id not in known]
        if lost:
            others = {n: [at for at in lost if first[changes[at].id] != n] for n in range(len(self._shards))}
            await self._apply(changes, {n: ats for n, ats in others.items() if ats}, verdicts)
        return verdicts

    async def _apply(
        self, changes: Sequence[Change], groups: Mapping[int, Sequence[int]], verdicts: list[Verdict]
    ) -> None:
        told = await self._each({n: self._shards[n].apply([changes[at] for at in ats]) for n, ats in groups.items()})
        for n, answers in told.items():
            for at, verdict in zip(groups[n], answers, strict=True):
                if verdict is not Verdict.MISSING:
                    verdicts[at] = verdict
                    self._homes.learn(n, [changes[at].id])

    async def load(self, ids: Sequence[str], *, history: int = 1) -> list[Row | None]:
        """See Backend.load."""
        found: dict[str, Row] = {}
        first = self._first_asked(ids)
        for groups in (self._at_home, self._elsewhere):
            asked = groups({id_: n for id_, n in first.items() if id_ not in found})
            told = await self._each({n: self._shards[n].load(part, history=history) for n, part in asked.items()})
            for n, rows in told.items():
                here = {row.id: row for row in rows if row is not None}
                self._homes.learn(n, here)
                found |= here
        return [found.get(id_) for id_ in ids]

    async def claim(self, claim: Claim) -> Claimed:
        """See Backend.claim.

        Each shard gives a share of the limit; what one cannot give is asked of those that have more, under an op that
        follows from the first, so that a repeat is met. Shards that are away are left out, and their rows wait; a
        claim of theirs whose answer was lost lapses.
        """
        if claim.ids is not None:
            return await self._claim_ids(claim, claim.ids)
        rows: list[Row] = []
        last: dict[int, Claimed] = {}
        suspects = False
        asked = self._from(int.from_bytes(hashlib.blake2b(claim.op.encode(), digest_size=4).digest(), "big"))
        turns, start = dict.fromkeys(asked, 0), claim.start
        while True:
            calls: dict[int, Awaitable[Claimed]] = {}
            parts = dict(zip(asked, _shares(claim.limit - len(rows), len(asked)), strict=True))
            for n, part in parts.items():
                if part or not last:  # a claim of nothing tells what is due
                    op = f"{claim.op}~{turns[n]}" if turns[n] else claim.op
                    turns[n] += part > 0
                    calls[n] = self._shards[n].claim(attrs.evolve(claim, op=op, limit=part, start=start))
                    start = max(0, start - part)
            told = await self._each(calls, patient=True)
            last |= told
            for n, answer in told.items():
                rows += answer.rows
                suspects = suspects or answer.suspects
                self._homes.learn(n, (row.id for row in answer.rows))
            asked = [n for n in asked if n not in calls or (n in told and _has_more(told[n], parts[n]))]
            if len(rows) >= claim.limit or not asked:
                break
        rank = {priority: at for at, priority in enumerate(claim.order)}
        rows.sort(key=lambda row: (not row.started, rank.get(row.priority, 9), row.due_ms, row.id))
        return _claimed(rows, {}, last.values(), suspects=suspects)

    async def _claim_ids(self, claim: Claim, ids: Sequence[str]) -> Claimed:
        rows: dict[str, Row] = {}
        words: dict[str, str] = {}
        answers: list[Claimed] = []
        first = self._first_asked(ids)
        for groups in (self._at_home, self._elsewhere):
            asked = groups(
                {id_: n for id_, n in first.items() if id_ not in rows and words.get(id_) in (None, "missing")}
            )
            calls, start = {}, claim.start - len(rows)
            for n, part in asked.items():
                wish = attrs.evolve(claim, ids=part, limit=len(part), start=max(0, start))
                calls[n], start = self._shards[n].claim(wish), start - len(part)
            for n, answer in (await self._each(calls)).items():
                answers.append(answer)
                rows |= {row.id: row for row in answer.rows}
                words |= {id_: word for id_, word in answer.words.items() if words.get(id_) in (None, "missing")}
                self._homes.learn(n, (row.id for row in answer.rows))
        taken = [rows[id_] for id_ in dict.fromkeys(ids) if id_ in rows]
        return _claimed(taken, {id_: word for id_, word in words.items() if id_ not in rows}, answers, suspects=False)

    async def sweep(self, limit: int) -> list[Row]:
        """See Backend.sweep; shards that are away are swept when they are back."""
        self._turn += 1
        parts = dict(zip(self._from(self._turn), _shares(min(limit, BATCH), len(self._shards)), strict=True))
        told = await self._each({n: self._shards[n].sweep(part) for n, part in parts.items() if part}, patient=True)
        found = [row for rows in told.values() for row in rows]
        for n, rows in told.items():
            self._homes.learn(n, (row.id for row in rows))
            if len(rows) == parts[n] and limit > len(found):  # it has more, and others had less
                again = await self._shards[n].sweep(len(rows) + min(limit, BATCH) - len(found))
                self._homes.learn(n, (row.id for row in again))
                seen = {row.id for row in found}
                found += [row for row in again if row.id not in seen]
        return found

    async def scan(self, scan: Scan) -> Slice:
        """See Backend.scan: the shards' pages merged, as far as all of them have been looked at."""
        share = max(_SPARE, 2 * -(-scan.limit // len(self._shards)))
        part = attrs.evolve(scan, limit=min(scan.limit, share))
        told = await self._each({n: shard.scan(part) for n, shard in enumerate(self._shards)})
        for n, page in told.items():
            self._homes.learn(n, (row.id for row in page.rows))
        return merged(list(told.values()), scan)

    async def count(self, scan: Scan) -> Counted | None:
        """See Backend.count."""
        told = list((await self._each({n: shard.count(scan) for n, shard in enumerate(self._shards)})).values())
        known = [counted.matched for counted in told if counted is not None]
        return Counted(sum(known), True) if len(known) == len(told) else None

    async def groups(self, scan: Scan, by: str) -> list[Grouped] | None:
        """See Backend.groups."""
        told = list((await self._each({n: shard.groups(scan, by) for n, shard in enumerate(self._shards)})).values())
        known = [groups for groups in told if groups is not None]
        return joined(known) if len(known) == len(told) else None

    async def counts(self) -> Counts:
        """See Backend.counts; the latest clock, so that no age is negative."""
        told = list((await self._each({n: shard.counts() for n, shard in enumerate(self._shards)})).values())
        return Counts(
            tally=_summed(each.tally for each in told),
            lifetime=_summed(each.lifetime for each in told),
            oldest_pending_ms=_least(each.oldest_pending_ms for each in told),
            oldest_dead_ms=_least(each.oldest_dead_ms for each in told),
            overdue=_summed(each.overdue for each in told),
            now_ms=max(each.now_ms for each in told),
        )

    def events(self, after: int | None) -> SpreadEvents:
        """Stored events of all shards after a seq; None: those from now on."""
        positions = [None] * len(self._shards) if after is None else unpacked(after, len(self._shards))
        shards = [shard.events(at) for shard, at in zip(self._shards, positions, strict=True)]
        return SpreadEvents(shards, partial(self._each, patient=True))

    def _first_asked(self, ids: Iterable[str]) -> dict[str, int]:
        """Which shard each id is asked of first, for the whole of a step.

        Others learn meanwhile where ids lie: who looked that up again would leave out the very shard that has it.
        """
        return {id_: self._homes[id_] for id_ in ids}

    @staticmethod
    def _at_home(first: Mapping[str, int]) -> dict[int, list[str]]:
        groups: dict[int, list[str]] = {}
        for id_, n in first.items():
            groups.setdefault(n, []).append(id_)
        return groups

    def _elsewhere(self, first: Mapping[str, int]) -> dict[int, list[str]]:
        groups = {n: [id_ for id_ in first if first[id_] != n] for n in range(len(self._shards))}
        return {n: part for n, part in groups.items() if part}

    def _from(self, first: int) -> list[int]:
        count = len(self._shards)
        return [(first + n) % count for n in range(count)]

    async def _each(self, calls: Mapping[int, Awaitable[T]], *, patient: bool = False) -> dict[int, T]:
        """What the shards answer, all asked at once; ``patient`` goes on without those that cannot be reached."""
        answers: dict[int, T] = {}
        errors: dict[int, Exception] = {}

        async def ask(n: int, call: Awaitable[T]) -> None:
            try:
                answers[n] = await call
            except Exception as error:  # told when all have ended: a group would wrap it, and stop the others
                errors[n] = error

        if len(calls) == 1:
            for n, call in calls.items():
                await ask(n, call)
        else:
            async with anyio.create_task_group() as group:
                for n, call in calls.items():
                    group.start_soon(ask, n, call)
        for error in errors.values():
            if not (patient and answers and isinstance(error, BackendUnavailable)):
                raise error
        if errors and time.monotonic() - self._warned > _AGAIN_S:
            self._warned = time.monotonic()
            log.warning("shards %s are away, the others go on: %s", sorted(errors), next(iter(errors.values())))
        return answers


Steps = Shard | Spread  # of one queue


def merged(pages: Sequence[Slice], scan: Scan) -> Slice:
    """One page out of the shards' pages.

    ``now_ms`` is the earliest clock, so that a cut-off taken from it lets nothing in that dies later.
    """
    newest = scan.newest_first
    ends = [page.after for page in pages if page.after is not None]
    horizon = (max(ends) if newest else min(ends)) if ends else None
    rows = sorted((row for page in pages for row in page.rows), key=_time, reverse=newest)
    if horizon is not None:
        rows = [row for row in rows if (_time(row) >= horizon if newest else _time(row) <= horizon)]
    if len(rows) > scan.limit:
        rows = rows[: scan.limit]
        horizon = _time(rows[-1])
    return Slice(rows=rows, after=horizon, now_ms=min(page.now_ms for page in pages))


def _time(row: Row) -> tuple[int, str]:
    return row.time_ms, row.id


def _shares(whole: int, count: int) -> list[int]:
    share, rest = divmod(whole, count)
    return [share + (at < rest) for at in range(count)]


def _has_more(answer: Claimed, part: int) -> bool:
    if len(answer.rows) != part:
        return False
    if answer.next_due_ms is None:  # nothing is pending, or a claim was repeated, which does not look
        return part > 0
    return answer.next_due_ms <= answer.now_ms


def _claimed(rows: list[Row], words: Mapping[str, str], answers: Iterable[Claimed], *, suspects: bool) -> Claimed:
    told = list(answers)
    now_ms = max((answer.now_ms for answer in told), default=0)
    waits = [answer.next_due_ms - answer.now_ms for answer in told if answer.next_due_ms is not None]
    return Claimed(
        rows=rows,
        words=words,
        now_ms=now_ms,
        next_due_ms=now_ms + min(waits) if waits else None,  # each by its own clock
        suspects=suspects,
    )


_K = TypeVar("_K")


def _summed(each: Iterable[Mapping[_K, int]]) -> dict[_K, int]:
    sums: dict[_K, int] = {}
    for counts in each:
        for name, n in counts.items():
            sums[name] = sums.get(name, 0) + n
    return sums


def _least(times: Iterable[int | None]) -> int | None:
    return min((each for each in times if each is not None), default=None)
