"""One queue in memory: its rows, and the indexes over them."""

from __future__ import annotations

import bisect
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import attrs

from ..model.row import DEAD, PENDING, RUNNING, Claim, Claimed, Counted, Counts, EventRow, Row, Scan, Slice
from ..rules import machine
from ..runtime.loops import Bell

EVENTS = 10_000  # kept per queue
CLAIMS = 1_000  # ops whose answer can be repeated
OVERDUE_MS = 60_000

_Heap: TypeAlias = list[tuple[int, str]]


def copy_of(row: Row, history: int = 1, *, body: bool = True) -> Row:
    """What a caller gets: the row with as much ``history`` as was asked for, sharing nothing that changes."""
    twin = row.twin()
    twin.history = machine.brought(twin.history, history)
    if not body:
        twin.body = None
    return twin


@attrs.define
class _Sorted:
    """(time, id) in order; entries that no longer hold are skipped, and swept out once they are the majority."""

    holds: Callable[[tuple[int, str]], bool]
    entries: list[tuple[int, str]] = attrs.field(factory=list)
    stale: int = 0

    def add(self, entry: tuple[int, str]) -> None:
        if not self.entries or entry > self.entries[-1]:
            self.entries.append(entry)
            return
        at = bisect.bisect_left(self.entries, entry)
        if at == len(self.entries) or self.entries[at] != entry:
            self.entries.insert(at, entry)

    def remove_later(self) -> None:
        self.stale += 1
        if self.stale > 1000 and self.stale * 2 > len(self.entries):
            self.entries = [entry for entry in self.entries if self.holds(entry)]
            self.stale = 0

    def walk(self, scan: Scan) -> Iterator[tuple[int, str]]:
        """Entries within the scan's times, and beyond its last."""
        first, end = 0, len(self.entries)
        if scan.since_ms is not None:
            first = bisect.bisect_left(self.entries, (scan.since_ms, ""))
        if scan.until_ms is not None:
            end = bisect.bisect_left(self.entries, (scan.until_ms + 1, ""))
        if scan.newest_first:
            if scan.after is not None:
                end = min(end, bisect.bisect_left(self.entries, scan.after))
            for index in range(end - 1, first - 1, -1):
                yield self.entries[index]
        else:
            if scan.after is not None:
                first = max(first, bisect.bisect_right(self.entries, scan.after))
            for index in range(first, end):
                yield self.entries[index]


class Shelf:
    """One queue's rows and the indexes over them.

    Heaps hold entries that may have ceased to be true: each is checked when met.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.keys: dict[str, str] = {}
        self.due: dict[tuple[int, str], _Heap] = {}
        self.leases: _Heap = []
        self.expiries: _Heap = []
        self.keeps: _Heap = []
        self.created = _Sorted(lambda entry: entry[1] in self.rows)
        self.dead = _Sorted(self._is_dead)
        self.tally: dict[tuple[str, int, str, str], int] = {}
        self.lifetime: dict[tuple[str, str, str], int] = {}
        self.events: deque[EventRow] = deque(maxlen=EVENTS)
        self.seq = 0
        self.stirs = 0  # how often work may have become due
        self.claims: OrderedDict[str, list[str]] = OrderedDict()
        self.bells: list[Bell] = []

    def _is_dead(self, entry: tuple[int, str]) -> bool:
        row = self.rows.get(entry[1])
        return row is not None and row.state == DEAD and row.ended_ms == entry[0]

    def put(self, row: Row) -> None:
        self.rows[row.id] = row
        if row.key is not None:
            self.keys[row.key] = row.id
        self.created.add((row.created_ms, row.id))
        self.index(row)

    def drop(self, row: Row) -> None:
        self.rows.pop(row.id, None)
        if row.key is not None and self.keys.get(row.key) == row.id:
            del self.keys[row.key]
        self.created.remove_later()
        if row.state == DEAD:
            self.dead.remove_later()

    def index(self, row: Row) -> None:
        if row.state == PENDING:
            heap = self.due.get((row.priority, row.type))
            if heap is None:
                heap = self.due[row.priority, row.type] = []
            heapq.heappush(heap, (row.due_ms, row.id))
            if row.expires_ms is not None:
                heapq.heappush(self.expiries, (row.expires_ms, row.id))
        elif row.state == RUNNING:
            heapq.heappush(self.leases, (row.lease_ms or 0, row.id))
        else:
            if row.state == DEAD:
                self.dead.add((row.ended_ms or 0, row.id))
            if row.keep_until_ms is not None:
                heapq.heappush(self.keeps, (row.keep_until_ms, row.id))

    def record(self, journal: machine.Journal) -> None:
        for key, n in journal.tally.items():
            self.tally[key] = self.tally.get(key, 0) + n
            if not self.tally[key]:
                del self.tally[key]
        for name, n in journal.lifetime.items():
            self.lifetime[name] = self.lifetime.get(name, 0) + n
        for event in journal.events:
            self.seq += 1
            self.events.append(attrs.evolve(event, seq=self.seq))
        self.stirs += journal.work
        if journal.work or journal.events:
            for bell in self.bells:
                bell.ring()

    def _in_order(self, rank: int, types: Sequence[str]) -> Iterator[tuple[_Heap, Row]]:
        """The pending rows by (due, id), each taken off its heap; the caller puts back what it leaves."""
        heaps = [heap for type_ in types if (heap := self.due.get((rank, type_)))]
        while heaps:
            heap = min(heaps, key=lambda entries: entries[0])
            due_ms, id_ = heapq.heappop(heap)
            if not heap:
                heaps.remove(heap)
            row = self.rows.get(id_)
            if row is None or row.state != PENDING or row.due_ms != due_ms:
                continue
            if self.due[row.priority, row.type] is heap:
                yield heap, row

    def claim(self, claim: Claim, now_ms: int) -> Claimed:
        repeated = self.claims.get(claim.op)
        if repeated is not None:
            rows = [self.rows[id_] for id_ in repeated if id_ in self.rows]
            held = [copy_of(row) for row in rows if row.state == RUNNING and row.op == claim.op]
            words = self._words(claim, {row.id for row in held}, now_ms)
            return Claimed(rows=held, words=words, now_ms=now_ms)
        journal = machine.Journal()
        search = self._claim_types if claim.ids is None else self._claim_ids
        answer = search(claim, now_ms, journal)
        if answer.rows:  # an empty answer leased nothing, so its repeat may look again
            self.claims[claim.op] = [row.id for row in answer.rows]
        if len(self.claims) > CLAIMS:
            self.claims.popitem(last=False)
        self.record(journal)
        return answer

    def _claim_ids(self, claim: Claim, now_ms: int, journal: machine.Journal) -> Claimed:
        words = self._words(claim, set(), now_ms)
        taken: list[Row] = []
        for id_ in [id_ for id_ in dict.fromkeys(claim.ids or ()) if id_ not in words][: claim.limit]:
            self._take(self.rows[id_], claim, taken, now_ms, journal)
        return Claimed(rows=taken, words=words, now_ms=now_ms)

    def _words(self, claim: Claim, held: set[str], now_ms: int) -> dict[str, str]:
        """Why asked-for rows cannot be taken."""
        words: dict[str, str] = {}
        for id_ in claim.ids or ():
            row = self.rows.get(id_)
            word = "missing" if row is None else machine.claimable(row, now_ms)
            if word is not None and id_ not in held:
                words[id_] = word
        return words

    def _take(self, row: Row, claim: Claim, taken: list[Row], now_ms: int, journal: machine.Journal) -> None:
        machine.take(row, claim, len(taken), now_ms, journal)
        self.index(row)
        taken.append(copy_of(row))

    def _claim_types(self, claim: Claim, now_ms: int, journal: machine.Journal) -> Claimed:
        taken: list[Row] = []
        next_due_ms: int | None = None
        suspects = False
        for rank in claim.order:
            left: list[tuple[_Heap, Row]] = []
            for heap, row in self._in_order(rank, claim.types):
                if row.due_ms > now_ms or len(taken) >= claim.limit:
                    left.append((heap, row))
                    next_due_ms = row.due_ms if next_due_ms is None else min(next_due_ms, row.due_ms)
                    break
                suspect = claim.max_losses is not None and row.lease_losses >= claim.max_losses
                if machine.claimable(row, now_ms) is not None:
                    left.append((heap, row))
                    next_due_ms = now_ms  # expired: the sweep will see to it
                elif suspect != claim.alone:
                    left.append((heap, row))
                    suspects = suspects or suspect
                else:
                    self._take(row, claim, taken, now_ms, journal)
            for heap, row in left:
                heapq.heappush(heap, (row.due_ms, row.id))
        return Claimed(rows=taken, now_ms=now_ms, next_due_ms=next_due_ms, suspects=suspects)

    def _lapsed(self, heap: _Heap, state: str, limit: int, now_ms: int) -> list[Row]:
        found: list[Row] = []
        put_back: list[tuple[int, str]] = []
        while heap and heap[0][0] <= now_ms and len(found) < limit:
            entry = heapq.heappop(heap)
            row = self.rows.get(entry[1])
            if row is None or row.state != state:
                continue
            if entry[0] == (row.lease_ms if state == RUNNING else row.expires_ms) and entry not in put_back:
                put_back.append(entry)
                found.append(copy_of(row))
        for entry in put_back:  # they stay until a change has dealt with them
            heapq.heappush(heap, entry)
        return found

    def sweep(self, limit: int, now_ms: int) -> list[Row]:
        journal = machine.Journal()
        aged: dict[str, int] = {}
        for _ in range(limit):
            if not self.keeps or self.keeps[0][0] > now_ms:
                break
            at_ms, id_ = heapq.heappop(self.keeps)
            row = self.rows.get(id_)
            if row is not None and row.keep_until_ms == at_ms and machine.forgotten(row, now_ms):
                machine.forget(row, journal)
                if row.state == DEAD:
                    aged[row.type] = aged.get(row.type, 0) + 1
                self.drop(row)
        for type_, n in aged.items():
            journal.tell("purged", now_ms, {"why": "past its keep"}, type_=type_, n=n)
        self.record(journal)
        found = self._lapsed(self.leases, RUNNING, limit, now_ms)
        return found + self._lapsed(self.expiries, PENDING, limit - len(found), now_ms)

    def scan(self, scan: Scan, now_ms: int) -> Slice:
        index = self.dead if scan.state == DEAD else self.created
        found: list[Row] = []
        last: tuple[int, str] | None = None
        for entry in index.walk(scan):
            if len(found) >= scan.limit:
                return Slice(rows=found, after=last, now_ms=now_ms)
            row = self.rows.get(entry[1])
            if row is None or row.state != scan.state or row.time_ms != entry[0]:
                continue
            if _narrows(scan, row):
                found.append(copy_of(row, scan.history, body=scan.body))
                last = entry
        return Slice(rows=found, after=None, now_ms=now_ms)

    def matching(self, scan: Scan, most: int) -> Counted:
        index = self.dead if scan.state == DEAD else self.created
        matched = 0
        for looked, entry in enumerate(index.walk(scan)):
            if looked == most:
                return Counted(matched, whole=False)
            row = self.rows.get(entry[1])
            if row is not None and row.state == scan.state and row.time_ms == entry[0]:
                matched += _narrows(scan, row)
        return Counted(matched, whole=True)

    def count(self, now_ms: int) -> Counts:
        overdue: dict[str, int] = {}
        oldest: int | None = None
        pending = any(state == PENDING for state, *_ in self.tally)
        for row in self.rows.values() if pending else ():
            if row.state == PENDING:
                oldest = row.created_ms if oldest is None else min(oldest, row.created_ms)
                if row.due_ms < now_ms - OVERDUE_MS:
                    overdue[row.type] = overdue.get(row.type, 0) + 1
        first_dead = next((entry for entry in self.dead.walk(Scan(newest_first=False)) if self._is_dead(entry)), None)
        return Counts(
            tally=dict(self.tally),
            lifetime=dict(self.lifetime),
            oldest_pending_ms=oldest,
            oldest_dead_ms=first_dead[0] if first_dead else None,
            overdue=overdue,
            now_ms=now_ms,
        )


def _narrows(scan: Scan, row: Row) -> bool:
    wanted = (
        (scan.type, row.type),
        (scan.priority, row.priority),
        (scan.fingerprint, row.fingerprint),
        (scan.reason, row.reason),
        (scan.error_type, row.error_type),
        (scan.release, row.release),
    )
    if any(want is not None and want != have for want, have in wanted):
        return False
    time_ms = row.time_ms
    return (scan.since_ms is None or time_ms >= scan.since_ms) and (scan.until_ms is None or time_ms <= scan.until_ms)
