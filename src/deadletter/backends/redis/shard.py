"""One shard of a queue: its steps, each one script on its slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import orjson

from ...interfaces.clock import Clock
from ...model.errors import DurabilityNotMet
from ...model.row import (
    BATCH,
    DEAD,
    GONE,
    SUCCEEDED,
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
from .client import Connections
from .events import ShardEvents
from .grouping import INDEXES, answerable, releases_by_key
from .keys import unescaped
from .pace import Pace
from .records import NARROW, change_args, claim_args, index_of, insert_args, list_name, rows_of, scan_args
from .scripts import load_script

_VERDICTS = {str(verdict).encode(): verdict for verdict in Verdict}
_INSERTED = {str(word).encode(): word for word in Inserted}
_FEW = 2_000  # fields of tally or counters that come in one answer
_DEAR = (DEAD, GONE)  # states whose many indexes make a change cost twice what others do
_CAUSES = 5_000  # that come in one answer; where there are more, letters are grouped by reading them
_LISTS = 1_000  # of hidden paths that are remembered
_WAIT_MS = 2_000  # for replicas


@attrs.frozen(eq=False)
class Shard:
    """Where its keys begin, and by what it is reached."""

    prefix: str
    connections: Connections
    clock: Clock | None
    durability: str | None
    pace: Pace = attrs.field(factory=Pace, repr=False)
    redacts: dict[str, str] = attrs.field(factory=dict, repr=False)  # lists of hidden paths that were met, by name

    async def insert(self, rows: Sequence[NewRow]) -> list[Insertion]:
        """See Backend.insert."""
        if not rows:
            return []
        answer = await self._run("insert", insert_args(rows), then=self._wait())
        if self.durability is not None:
            self._hold(answer, rows[0].id)
        if len(self.redacts) < _LISTS:
            self.redacts.update({list_name(text): text for text in {new.redact for new in rows} if text})
        now_ms = int(answer[1])
        return [_insertion(new, told, now_ms) for new, told in zip(rows, answer[2:], strict=False)]

    async def claim(self, claim: Claim) -> Claimed:
        """See Backend.claim."""
        _, now, due, suspects, texts, words, more, rows = await self._run("claim", claim_args(claim))
        return Claimed(
            rows=_whole(await self._rows(rows, more, texts)),
            words={words[at].decode(): words[at + 1].decode() for at in range(0, len(words), 2)},
            now_ms=int(now),
            next_due_ms=int(due) if due else None,
            suspects=suspects == 1,
        )

    async def apply(self, changes: Sequence[Change]) -> list[Verdict]:
        """See Backend.apply.

        Changes that are dear go in scripts of fewer, in order, and of fewer still where such a script took long: a server
        does nothing else while one runs.
        """
        verdicts: list[Verdict] = []
        while len(verdicts) < len(changes):
            part, weight = _part(changes, len(verdicts), self.pace.weight)
            verdicts += await self._apply(part, weight)
        return verdicts

    async def _apply(self, changes: Sequence[Change], weight: int) -> list[Verdict]:
        died = next((change.id for change in changes if change.to == DEAD), None) if self.durability else None
        timed = weight > len(changes) and self.clock is None  # some are dear
        then = [*([("TIME",)] if timed else ()), *(self._wait() if died is not None else ())]
        answer = await self._run("apply", change_args(changes), then=then)
        if died is not None:
            self._hold(answer, died)
        if timed:
            seconds, micros = answer.pop()
            self.pace.took(int(seconds) * 1000 + int(micros) / 1000 - int(answer[1]), weight)
        return [_VERDICTS[word] for word in answer[2:]]

    async def sweep(self, limit: int) -> list[Row]:
        """See Backend.sweep."""
        _, _, texts, more, rows = await self._run("sweep", [min(limit, BATCH)])
        return _whole(await self._rows(rows, more, texts))

    async def load(self, ids: Sequence[str], *, history: int = 1) -> list[Row | None]:
        """See Backend.load."""
        if not ids:
            return []
        _, _, texts, more, rows = await self._run("load", [history, *ids])
        return await self._rows(rows, more, texts)

    async def scan(self, scan: Scan) -> Slice:
        """See Backend.scan."""
        _, now, texts, time, id_, more, rows = await self._run("scan", scan_args(scan))
        after = (int(time), id_.decode()) if time else None
        return Slice(rows=_whole(await self._rows(rows, more, texts)), after=after, now_ms=int(now))

    async def count(self, scan: Scan) -> Counted | None:
        """See Backend.count: what one index answers."""
        index, answered = index_of(scan)
        others = {*NARROW} - {answered}
        if scan.state not in (DEAD, SUCCEEDED) or any(getattr(scan, name) is not None for name in others):
            return None
        low = "-inf" if scan.since_ms is None else scan.since_ms
        high = "+inf" if scan.until_ms is None else scan.until_ms
        return Counted(int(await self.connections.command("ZCOUNT", f"{self.prefix}{index}", low, high)), True)

    async def groups(self, scan: Scan, by: str) -> list[Grouped] | None:
        """See Backend.groups."""
        if not answerable(scan, by):
            return None
        _, causes, *_ = await self._run("groups", [_CAUSES, ""])
        releases = None if causes is None else releases_by_key(causes, scan, by)
        if releases is None:
            return None
        found: list[Grouped] = []
        keys = list(releases)
        for at in range(0, len(keys), BATCH):
            step = keys[at : at + BATCH]
            _, _, sizes, more, told = await self._run("groups", [_CAUSES, INDEXES[by], *step])
            for key, row, n, first in zip(step, rows_of(told, more, ()), sizes[::2], sizes[1::2], strict=True):
                if row is not None:  # they may all have gone meanwhile
                    group = Grouped(
                        key=unescaped(key), count=n, first_ms=int(first), newest=row, releases=frozenset(releases[key])
                    )
                    found.append(group)
        return found

    async def counts(self) -> Counts:
        """See Backend.counts."""
        _, now, tally, stats, pending, dead, overdue = await self._run("counts", [_FEW])
        tally = tally if tally is not None else await self._all("tally")
        stats = stats if stats is not None else await self._all("stats")
        late: dict[str, int] = {}
        for at in range(0, len(overdue), 2):
            type_ = unescaped(overdue[at].decode())
            late[type_] = late.get(type_, 0) + int(overdue[at + 1])
        return Counts(
            tally=dict(_tallied(tally[at], tally[at + 1]) for at in range(0, len(tally), 2)),
            lifetime={tuple(orjson.loads(stats[at])): int(stats[at + 1]) for at in range(0, len(stats), 2)},
            oldest_pending_ms=int(pending) if pending else None,
            oldest_dead_ms=int(dead) if dead else None,
            overdue=late,
            now_ms=int(now),
        )

    def events(self, after: int | None) -> ShardEvents:
        """Its stored events after a seq; None: those from now on."""
        return ShardEvents(self.prefix, self.connections, after)

    async def _rows(self, told: Sequence[Any], more: Sequence[Any], texts: Sequence[bytes]) -> list[Row | None]:
        """Rows as a script told them, with their lists of hidden paths: named by content, so that each is asked once."""
        rows = rows_of(told, more, texts)
        wanted = {row.redact for row in rows if row is not None and row.redact}
        known = {name: text for name in wanted if (text := self.redacts.get(name)) is not None}
        unknown = sorted(wanted - known.keys())
        if unknown:
            found = await self.connections.command("HMGET", f"{self.prefix}redacts", *unknown)
            met = {name: text.decode() for name, text in zip(unknown, found, strict=True) if text is not None}
            known |= met
            if len(self.redacts) < _LISTS:
                self.redacts.update(met)
        for row in rows:
            if row is not None and row.redact:
                row.redact = known.get(row.redact, "*")  # nobody knows what was to be hidden: all of it
        return rows

    async def _all(self, key: str) -> list[bytes]:
        """A large hash, read in steps; what changes meanwhile may be counted before or after."""
        found: dict[bytes, bytes] = {}
        cursor: int | bytes = 0
        while True:
            answer = await self.connections.command("HSCAN", f"{self.prefix}{key}", cursor, "COUNT", _FEW // 2)
            cursor, page = answer
            found.update(page if isinstance(page, dict) else zip(page[::2], page[1::2], strict=True))
            if int(cursor) == 0:
                return [part for pair in found.items() for part in pair]

    async def _run(self, name: str, args: Sequence[Any], then: Sequence[Sequence[Any]] = ()) -> list[Any]:
        now = "" if self.clock is None else self.clock.now_ms()
        return await self.connections.script(load_script(name), f"{self.prefix}meta", [now, *args], then)

    def _wait(self) -> Sequence[Sequence[Any]]:
        if self.durability is None:
            return ()
        how, _, replicas = self.durability.partition(":")
        # Since 7.2 it waits for the last *write* of its connection alone, and a step that is repeated writes nothing:
        # replicas that have not got what the first one wrote would count.
        write = ("HSET", f"{self.prefix}meta", "waited", 1)
        return (write, ("WAIT", replicas, _WAIT_MS) if how == "wait" else ("WAITAOF", 0, replicas, _WAIT_MS))

    def _hold(self, answer: list[Any], task_id: str) -> None:
        told = answer.pop()
        answer.pop()  # of the write
        reached = told[1] if isinstance(told, list) else told
        if int(reached) < int((self.durability or "wait:0").partition(":")[2]):
            raise DurabilityNotMet(task_id)


def _part(changes: Sequence[Change], first: int, most: int) -> tuple[Sequence[Change], int]:
    """The next step of changes, and its weight: one that ends a letter, or makes one, counts as two."""
    costs = [2 if change.to in _DEAR else 1 for change in changes[first : first + BATCH]]
    if 2 not in costs:
        return changes[first : first + BATCH], len(costs)
    weight = n = 0
    while n < len(costs) and (n == 0 or weight + costs[n] <= most):
        weight += costs[n]
        n += 1
    return changes[first : first + n], weight


def _whole(rows: Sequence[Row | None]) -> list[Row]:
    return [row for row in rows if row is not None]


def _insertion(new: NewRow, told: Any, now_ms: int) -> Insertion:
    if told == b"stored":
        lease_ms = now_ms + new.lease_ms if new.lease_ms is not None else None
        return Insertion(Inserted.STORED, new.id, new.state, 0, new.token, lease_ms, now_ms)
    word, id_, state, generation, token, lease, body = told
    return Insertion(
        _INSERTED[word],
        id_.decode(),
        state.decode(),
        int(generation or 0),
        unescaped(token.decode()) or None,
        int(lease) if lease else None,
        now_ms,
        body,
    )


def _tallied(field: bytes, n: bytes) -> tuple[tuple[str, int, str, str], int]:
    state, rank, length, rest = field.split(b" ", 3)
    cut = int(length)
    type_, reason = unescaped(rest[cut:].decode()), unescaped(rest[:cut].decode())
    return (state.decode(), int(rank), type_, reason), int(n)
