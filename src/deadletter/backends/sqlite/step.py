"""One atomic step on one connection, inside a transaction: load rows, let the machine decide, save what changed."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from sqlite3 import Connection
from typing import Any

import attrs

from ...model.row import (
    BATCH,
    DEAD,
    FORMAT,
    GONE,
    RUNNING,
    SUCCEEDED,
    Change,
    Claim,
    Claimed,
    Insertion,
    NewRow,
    Row,
    Verdict,
)
from ...rules import machine
from .._sql import fence_of
from .columns import Held, insert_rows, update_rows, update_taken
from .journal import record
from .reads import Q, fetch, number_of, with_last_failure
from .traces import Traces

CLAIMS = 1_000  # ops whose answer can be repeated
LEASED = 10_000  # running rows that are remembered
TYPES = 64  # of one statement; SQLite allows 500 terms, and merges fewer faster

_UNREAD = b"\0unread"  # stands for a body that a fence left alone: told from every stored one by identity

_Stored = tuple[int, tuple[Any, ...]]  # number, columns with the body unread
_Walked = tuple[int, str, int, int, "int | None", int]  # due_ms, id, n, lease_losses, expires_ms, format


@attrs.define
class Notes:
    """What the operations of a transaction leave to be done at its end, and once it is committed."""

    journals: dict[str, tuple[int, machine.Journal]] = attrs.field(factory=dict)  # by queue, with its number
    claims: dict[str, list[str]] = attrs.field(factory=dict)  # op → what it leased
    queues: dict[str, int] = attrs.field(factory=dict)  # met for the first time

    @property
    def rings(self) -> dict[str, tuple[bool, bool]]:
        """Queues that listeners want to look at → whether there are events, and work."""
        return {
            queue: (bool(journal.events), journal.work)
            for queue, (_, journal) in self.journals.items()
            if journal.work or journal.events
        }


@lru_cache(256)
def _walk(types: int, index: str, condition: str) -> str:
    arm = (
        "SELECT due_ms, id, n, lease_losses, expires_ms, format FROM dl_rows INDEXED BY {index}"
        " WHERE queue = ?1 AND priority = ?2 AND type = ?{at} AND state = 'pending'{condition}"
    )
    arms = (arm.format(index=index, at=at + 3, condition=condition) for at in range(types))
    return " UNION ALL ".join(arms) + " ORDER BY 1, 2"


class Step:
    """The writing half of the seam's methods, for one queue at a time."""

    def __init__(self, connection: Connection, now_ms: Callable[[], int], claims: OrderedDict[str, list[str]]) -> None:
        self.connection = connection
        self.now_ms = now_ms
        self.notes = Notes()
        self._claims = claims
        self._queues: dict[str, int] = {}  # numbers never change
        self._leased: dict[tuple[int, str], _Stored] = {}  # what this connection wrote last of rows that are RUNNING
        self._version = -1

    def begun(self) -> None:
        """Know whether another connection wrote since our last transaction; then nothing that we remember counts."""
        [(version,)] = self.connection.execute("PRAGMA data_version").fetchall()
        if version != self._version:
            self._version = version
            self._leased.clear()

    def ending(self) -> None:
        """Write what all operations counted together, one upsert per distinct key; before the commit."""
        for number, journal in self.notes.journals.values():
            record(self.connection, number, journal)

    def committed(self) -> Notes:
        """Keep what later steps want to know, and hand out the notes."""
        self._queues |= self.notes.queues
        for op, ids in self.notes.claims.items():
            self._claims[op] = ids
            if len(self._claims) > CLAIMS:
                self._claims.popitem(last=False)
        notes, self.notes = self.notes, Notes()
        return notes

    def rolled_back(self) -> None:
        """Forget what did not happen."""
        self.notes = Notes()
        self._leased.clear()

    def insert(self, queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
        """See Backend.insert."""
        number = self._made(queue)
        journal = self._journal(queue, number)
        ids, numbers = self._bound(Q["bound_ids"], number, [new.id for new in rows])
        keyed = [new.key for new in rows if new.key is not None]
        by_key, more = self._bound(Q["bound_keys"], number, keyed) if keyed else ({}, {})
        keys = {row.key: row for row in by_key.values() if row.key is not None}
        numbers |= more
        admission = machine.admit(rows, ids, keys, self.now_ms(), journal)
        traces = Traces(self.connection, number)
        self._delete([numbers[row.id] for row in admission.forgotten if row.id in numbers], traces)
        insert_rows(self.connection, number, admission.stored)
        failed = {row.id: row for row in admission.stored if row.history}
        for n, id_, *_ in fetch(self.connection, Q["fences"], (number,), list(failed)):
            traces.add([(n, failure) for failure in failed[id_].history])
        traces.flush()
        return admission.insertions

    def claim(self, queue: str, claim: Claim) -> Claimed:
        """See Backend.claim."""
        now_ms = self.now_ms()
        number = self._number(queue)
        if number is None:
            return Claimed(rows=[], words=dict.fromkeys(claim.ids or (), "missing"), now_ms=now_ms)
        repeated = self.notes.claims.get(claim.op) or self._claims.get(claim.op)
        if repeated is not None:
            held = self._repeat(number, claim, repeated)
            words = self._words(number, claim, {row.id for row in held}, now_ms)[0]
            return Claimed(rows=held, words=words, now_ms=now_ms)
        if claim.ids is not None:
            words, free = self._words(number, claim, set(), now_ms)
            return Claimed(
                rows=self._take(queue, number, claim, free[: claim.limit], now_ms), words=words, now_ms=now_ms
            )
        walk = _Search(self.connection, number, claim, now_ms)
        found = walk.suspects_alone() if claim.alone else walk.innocents()
        rows = self._take(queue, number, claim, found, now_ms)
        return Claimed(rows=rows, now_ms=now_ms, next_due_ms=walk.next_due_ms, suspects=walk.suspects)

    def apply(self, queue: str, changes: Sequence[Change]) -> list[Verdict]:
        """See Backend.apply."""
        number = self._number(queue)
        if number is None:
            return [Verdict.MISSING] * len(changes)
        now_ms = self.now_ms()
        journal = self._journal(queue, number)
        held = self._seen(number, {change.id: None for change in changes})
        traces = Traces(self.connection, number)
        verdicts: list[Verdict] = []
        for change in changes:
            mine = held.get(change.id)
            if mine is None:
                verdicts.append(Verdict.MISSING)
                continue
            failed = mine.row.error_type is not None or mine.row.replays > 0  # a replay may have left a note
            verdict = machine.apply(mine.row, change, now_ms, journal)
            verdicts.append(verdict)
            if verdict is Verdict.DONE:
                if change.failure is not None:
                    traces.add([(mine.n, change.failure)])
                if failed and change.to in (SUCCEEDED, GONE):
                    traces.wipe([mine.n])
        update_rows(self.connection, held.values())
        self._remember(number, held.values())
        traces.flush()
        return verdicts

    def sweep(self, queue: str, limit: int) -> list[Row]:
        """See Backend.sweep."""
        number = self._number(queue)
        if number is None:
            return []
        limit, now_ms = min(limit, BATCH), self.now_ms()
        journal = self._journal(queue, number)
        gone: list[int] = []
        aged: dict[str, int] = {}
        for n, *values in self.connection.execute(Q["forgettable"], (number, now_ms, limit)).fetchall():
            row = Row(*values)
            if machine.forgotten(row, now_ms):
                machine.forget(row, journal)
                gone.append(n)
                if row.state == DEAD:
                    aged[row.type] = aged.get(row.type, 0) + 1
        for type_, count in aged.items():
            journal.tell("purged", now_ms, {"why": "past its keep"}, type_=type_, n=count)
        traces = Traces(self.connection, number)
        self._delete(gone, traces)
        traces.flush()
        if gone:
            self.connection.execute(Q["trim_tally"], (number,))  # of what earlier steps emptied
            self.connection.execute(Q["trim_causes"], (number,))
        found = self.connection.execute(Q["lapsed"], (number, now_ms, limit)).fetchall()
        if len(found) < limit:
            found += self.connection.execute(Q["expired"], (number, now_ms, limit - len(found))).fetchall()
        return self._whole([n for (n,) in found])

    def _number(self, queue: str) -> int | None:
        found = self._queues.get(queue)
        if found is None:
            found = number_of(self.connection, queue)
            if found is not None:
                self.notes.queues[queue] = found
        return found

    def _made(self, queue: str) -> int:
        found = self._number(queue)
        return found if found is not None else int(self.connection.execute(Q["add_queue"], (queue,)).fetchall()[0][0])

    def _journal(self, queue: str, number: int) -> machine.Journal:
        found = self.notes.journals.get(queue)
        if found is None:
            found = self.notes.journals[queue] = (number, machine.Journal())
        return found[1]

    def _bound(self, query: str, number: int, names: Sequence[str]) -> tuple[dict[str, Row], dict[str, int]]:
        rows: dict[str, Row] = {}
        numbers: dict[str, int] = {}
        for n, *values in fetch(self.connection, query, (number,), names):
            row = Row(*values)
            rows[row.id] = row
            numbers[row.id] = n
        return rows, numbers

    def _fences(self, number: int, ids: Sequence[str]) -> dict[str, Held]:
        found = fetch(self.connection, Q["fences"], (number,), ids)
        held: dict[str, Held] = {}
        for n, *values in found:
            stored: tuple[Any, ...] = (*values, _UNREAD)
            held[stored[0]] = Held(n, Row(*stored), stored)
        return held

    def _seen(self, number: int, ids: Iterable[str]) -> dict[str, Held]:
        """What the machine decides on: remembered from the claim, or read."""
        found: dict[str, Held] = {}
        unknown: list[str] = []
        for id_ in ids:
            leased = self._leased.get((number, id_))
            if leased is None:
                unknown.append(id_)
            else:
                n, stored = leased
                found[id_] = Held(n, Row(*stored), stored)
        return found | self._fences(number, unknown) if unknown else found

    def _remember(self, number: int, written: Iterable[Held]) -> None:
        """Keep the rows that a settle will want next: reading them again costs as much as writing them."""
        for held in written:
            if held.row.state == RUNNING:
                self._leased[number, held.row.id] = (held.n, held.stored)
            else:
                self._leased.pop((number, held.row.id), None)
        if len(self._leased) > LEASED:
            self._leased.clear()

    def _repeat(self, number: int, claim: Claim, ids: Sequence[str]) -> list[Row]:
        numbers = {id_: held.n for id_, held in self._fences(number, ids).items()}
        rows = self._whole([numbers[id_] for id_ in ids if id_ in numbers])
        return [row for row in rows if row.state == RUNNING and row.op == claim.op]

    def _words(self, number: int, claim: Claim, held: set[str], now_ms: int) -> tuple[dict[str, str], list[int]]:
        """Why asked-for rows cannot be taken, and the numbers of those that can."""
        ids = list(dict.fromkeys(claim.ids or ()))
        found = self._fences(number, ids)
        words: dict[str, str] = {}
        free: list[int] = []
        for id_ in ids:
            word = machine.claimable(found[id_].row, now_ms) if id_ in found else "missing"
            if word is None:
                free.append(found[id_].n)
            elif id_ not in held:
                words[id_] = word
        return words, free

    def _take(self, queue: str, number: int, claim: Claim, numbers: Sequence[int], now_ms: int) -> list[Row]:
        if not numbers:
            return []
        journal = self._journal(queue, number)
        by_number = {values[0]: values for values in fetch(self.connection, Q["whole"], (), numbers)}
        taken = {n: Row(*by_number[n][1:]) for n in numbers}
        for index, row in enumerate(taken.values()):
            machine.take(row, claim, index, now_ms, journal)
        update_taken(self.connection, taken)
        for n, row in taken.items():
            self._leased[number, row.id] = (n, (*fence_of(row), _UNREAD))
        with_last_failure(self.connection, taken)
        self.notes.claims[claim.op] = [row.id for row in taken.values()]
        return list(taken.values())

    def _whole(self, numbers: Sequence[int]) -> list[Row]:
        found = {values[0]: Row(*values[1:]) for values in fetch(self.connection, Q["whole"], (), numbers)}
        with_last_failure(self.connection, found)
        return [found[n] for n in numbers]

    def _delete(self, numbers: Sequence[int], traces: Traces) -> None:
        if numbers:
            traces.wipe(numbers)
            traces.flush()
            self.connection.executemany(Q["delete_rows"], [(n,) for n in numbers])


class _Search:
    """Due rows in order of rank, due time and id.

    One merged walk over index entries per rank, read only as far as needed.
    """

    def __init__(self, connection: Connection, number: int, claim: Claim, now_ms: int) -> None:
        self._connection = connection
        self._number = number
        self._claim = claim
        self._now_ms = now_ms
        self.next_due_ms: int | None = None
        self.suspects = False

    def innocents(self) -> list[int]:
        """Rows to claim; notes the next due time and whether a suspect was hidden."""
        claim, now_ms = self._claim, self._now_ms
        found: list[int] = []
        limit_losses = claim.max_losses if claim.max_losses is not None else 1 << 62
        for rank in claim.order:
            for due_ms, _, n, losses, expires_ms, format_ in self._merged(rank, "dl_rows_pending", ""):
                if due_ms > now_ms or len(found) >= claim.limit:
                    self._next(due_ms)
                    break
                if (expires_ms is not None and expires_ms <= now_ms) or format_ > FORMAT:
                    self._next(now_ms)  # the sweep will see to it
                elif losses >= limit_losses:
                    self.suspects = True
                else:
                    found.append(n)
        return found

    def suspects_alone(self) -> list[int]:
        """As many suspects as were asked for, from an index of their own."""
        claim, now_ms = self._claim, self._now_ms
        found: list[int] = []
        if claim.max_losses is None:
            return found
        index, condition = "dl_rows_lost", f" AND lease_losses > 0 AND lease_losses >= {claim.max_losses:d}"
        if claim.max_losses <= 0:
            index, condition = "dl_rows_pending", ""
        for rank in claim.order:
            for due_ms, _, n, _, expires_ms, format_ in self._merged(rank, index, condition):
                if due_ms > now_ms or len(found) >= claim.limit:
                    break
                if (expires_ms is None or expires_ms > now_ms) and format_ <= FORMAT:
                    found.append(n)
            for due_ms, _, n, *_ in self._merged(rank, "dl_rows_pending", ""):
                if n not in found:
                    self._next(due_ms)
                    break
        return found

    def _next(self, due_ms: int) -> None:
        self.next_due_ms = due_ms if self.next_due_ms is None else min(self.next_due_ms, due_ms)

    def _merged(self, rank: int, index: str, condition: str) -> Iterator[_Walked]:
        types = list(dict.fromkeys(self._claim.types))
        parts = [types[at : at + TYPES] for at in range(0, len(types), TYPES)]
        cursors = [
            self._connection.execute(_walk(len(part), index, condition), (self._number, rank, *part)) for part in parts
        ]
        try:
            if len(cursors) == 1:
                yield from cursors[0]
            else:
                yield from heapq.merge(*cursors)
        finally:  # an unread cursor would block the commit
            for cursor in cursors:
                cursor.close()
