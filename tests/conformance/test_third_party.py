"""A backend as somebody else would write it: the interface, the machine and the suite are all that it takes.

Rows lie as JSON lines in one file and every question is a walk over all of them. It shares no structure with ours.
"""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from deadletter.interfaces import Backend, Clock
from deadletter.model.row import (
    DEAD,
    GONE,
    PENDING,
    RUNNING,
    Change,
    Claim,
    Claimed,
    Counts,
    EventRow,
    FailureRow,
    Hint,
    Insertion,
    Inspection,
    NewRow,
    Row,
    Scan,
    Slice,
    Verdict,
)
from deadletter.rules import machine
from deadletter.testing import BackendConformance, backend_state_machine

LOCK = threading.Lock()  # of every file: one step at a time


@attrs.define
class Book:
    """One queue, as read from its file."""

    rows: dict[str, Row] = attrs.field(factory=dict)
    tally: dict[tuple[str, int, str, str], int] = attrs.field(factory=dict)
    lifetime: dict[tuple[str, str, str], int] = attrs.field(factory=dict)
    events: list[EventRow] = attrs.field(factory=list)
    stirs: int = 0

    def record(self, journal: machine.Journal) -> None:
        for counts, news in ((self.tally, journal.tally), (self.lifetime, journal.lifetime)):
            for key, n in news.items():
                counts[key] = counts.get(key, 0) + n  # type: ignore[index, call-overload]
        for event in journal.events:
            self.events.append(attrs.evolve(event, seq=len(self.events) + 1))
        self.stirs += journal.work or bool(journal.events)

    def lines(self) -> Iterator[str]:
        yield json.dumps([[*key, n] for key, n in self.tally.items()])
        yield json.dumps([[*key, n] for key, n in self.lifetime.items()])
        yield json.dumps([attrs.asdict(event) for event in self.events])
        yield json.dumps(self.stirs)
        for row in self.rows.values():
            body = base64.b64encode(row.body).decode() if row.body is not None else None
            yield json.dumps(attrs.asdict(row) | {"body": body})

    @classmethod
    def read(cls, lines: list[str]) -> Book:
        tally, lifetime, events, stirs, *rows = map(json.loads, lines)
        book = cls(stirs=stirs)
        book.tally = {tuple(key): n for *key, n in tally}
        book.lifetime = {tuple(key): n for *key, n in lifetime}
        book.events = [EventRow(**event) for event in events]
        for told in rows:
            history = [FailureRow(**failure) for failure in told.pop("history")]
            body = base64.b64decode(told.pop("body")) if told["body"] is not None else told.pop("body")
            book.rows[told["id"]] = Row(**told, body=body, history=history)
        return book


class NotebookBackend(Backend):
    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self.folder = folder
        self.clock = clock

    @property
    def url(self) -> str:
        return f"notebook://{self.folder}"

    async def open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    async def aclose(self) -> None:
        pass

    async def inspect(self) -> Inspection:
        return Inspection(backend="notebook", version="1", now_ms=self.clock.now_ms(), durability="none")

    @contextlib.contextmanager
    def _open(self, queue: str, journal: machine.Journal | None = None) -> Iterator[Book]:
        path = self.folder / f"{queue.encode().hex()}.lines"
        with LOCK:
            book = Book.read(path.read_text().splitlines()) if path.exists() else Book()
            yield book
            if journal is not None:
                book.record(journal)
                path.write_text("".join(f"{line}\n" for line in book.lines()))

    async def insert(self, queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
        await anyio.lowlevel.checkpoint()
        journal = machine.Journal()
        with self._open(queue, journal) as book:
            keys = {row.key: row for row in book.rows.values() if row.key is not None}
            admission = machine.admit(rows, dict(book.rows), keys, self.clock.now_ms(), journal)
            for row in admission.forgotten:
                del book.rows[row.id]
            book.rows.update((row.id, row) for row in admission.stored)
        return admission.insertions

    async def claim(self, queue: str, claim: Claim) -> Claimed:
        await anyio.lowlevel.checkpoint()
        now_ms, journal = self.clock.now_ms(), machine.Journal()
        with self._open(queue, journal) as book:
            mine = [row for row in book.rows.values() if row.state == RUNNING and row.op == claim.op]
            words, waiting = self._asked(book, claim, now_ms)
            words = {id_: word for id_, word in words.items() if id_ not in {row.id for row in mine}}
            due = [row for row in waiting if claim.ids is not None or row.due_ms <= now_ms]
            due = [row for row in due if machine.claimable(row, now_ms) is None]
            hidden = [row for row in due if claim.ids is None and self._suspect(row, claim) != claim.alone]
            taken = mine or [row for row in due if row not in hidden][: claim.limit]
            if not mine:
                for index, row in enumerate(taken):
                    machine.take(row, claim, index, now_ms, journal)
            left = [row.due_ms for row in waiting if row not in taken and row not in hidden]
            return Claimed(
                rows=[self._short(row, 1) for row in sorted(taken, key=self._rank(claim))]
                if mine
                else [self._short(row, 1) for row in taken],
                words=words,
                now_ms=now_ms,
                next_due_ms=min(left, default=None) if claim.ids is None else None,
                suspects=any(self._suspect(row, claim) for row in hidden),
            )

    @staticmethod
    def _rank(claim: Claim) -> Callable[[Row], tuple[int, int, str]]:
        """The order in which a claim takes rows, so that its repeat answers in the same one."""
        return lambda row: (claim.order.index(row.priority), row.due_ms, row.id)

    @staticmethod
    def _asked(book: Book, claim: Claim, now_ms: int) -> tuple[dict[str, str], list[Row]]:
        if claim.ids is None:
            pending = [row for row in book.rows.values() if row.state == PENDING and row.type in claim.types]
            pending = [row for row in pending if row.priority in claim.order]
            return {}, sorted(pending, key=NotebookBackend._rank(claim))
        words, found = {}, []
        for id_ in claim.ids:
            row = book.rows.get(id_)
            word = "missing" if row is None else machine.claimable(row, now_ms)
            if word is not None:
                words[id_] = word
            elif row is not None:
                found.append(row)
        return words, found

    @staticmethod
    def _suspect(row: Row, claim: Claim) -> bool:
        return claim.max_losses is not None and row.lease_losses >= claim.max_losses

    @staticmethod
    def _short(row: Row, history: int, *, body: bool = True) -> Row:
        return attrs.evolve(row, history=machine.brought(row.history, history), body=row.body if body else None)

    async def apply(self, queue: str, changes: Sequence[Change]) -> list[Verdict]:
        await anyio.lowlevel.checkpoint()
        now_ms, journal = self.clock.now_ms(), machine.Journal()
        with self._open(queue, journal) as book:
            return [machine.apply(book.rows.get(change.id), change, now_ms, journal) for change in changes]

    async def sweep(self, queue: str, limit: int) -> list[Row]:
        await anyio.lowlevel.checkpoint()
        now_ms, journal = self.clock.now_ms(), machine.Journal()
        with self._open(queue, journal) as book:
            letters: dict[str, int] = {}
            for row in [row for row in book.rows.values() if machine.forgotten(row, now_ms)][:limit]:
                machine.forget(row, journal)
                del book.rows[row.id]
                if row.state == DEAD:
                    letters[row.type] = letters.get(row.type, 0) + 1
            for type_, n in letters.items():
                journal.tell("purged", now_ms, {"why": "past its keep"}, type_=type_, n=n)
            over = [row for row in book.rows.values() if self._over(row, now_ms)]
            return [self._short(row, 1) for row in over[:limit]]

    @staticmethod
    def _over(row: Row, now_ms: int) -> bool:
        limit_ms = {RUNNING: row.lease_ms, PENDING: row.expires_ms}.get(row.state)  # type: ignore[call-overload]
        return limit_ms is not None and limit_ms <= now_ms

    async def load(self, queue: str, ids: Sequence[str], *, history: int = 1) -> list[Row | None]:
        await anyio.lowlevel.checkpoint()
        with self._open(queue) as book:
            return [self._short(book.rows[id_], history) if id_ in book.rows else None for id_ in ids]

    async def scan(self, queue: str, scan: Scan) -> Slice:
        await anyio.lowlevel.checkpoint()
        with self._open(queue) as book:
            rows = [row for row in book.rows.values() if row.state == scan.state != GONE]
        rows.sort(key=lambda row: (row.time_ms, row.id), reverse=scan.newest_first)
        rows = [row for row in rows if scan.since_ms is None or row.time_ms >= scan.since_ms]
        rows = [row for row in rows if scan.until_ms is None or row.time_ms <= scan.until_ms]
        if scan.after is not None:
            after = scan.after
            rows = [row for row in rows if ((row.time_ms, row.id) < after) == scan.newest_first]
            rows = [row for row in rows if (row.time_ms, row.id) != after]
        page = [self._short(row, scan.history, body=scan.body) for row in rows[: scan.limit]]
        more = len(rows) > scan.limit
        return Slice(rows=page, after=(page[-1].time_ms, page[-1].id) if more else None, now_ms=self.clock.now_ms())

    async def counts(self, queue: str) -> Counts:
        await anyio.lowlevel.checkpoint()
        now_ms = self.clock.now_ms()
        with self._open(queue) as book:
            pending = [row for row in book.rows.values() if row.state == PENDING]
            late = [row.type for row in pending if row.due_ms < now_ms - 60_000]
            return Counts(
                tally=book.tally,
                lifetime=book.lifetime,
                oldest_pending_ms=min((row.created_ms for row in pending), default=None),
                oldest_dead_ms=min((row.time_ms for row in book.rows.values() if row.state == DEAD), default=None),
                overdue={type_: late.count(type_) for type_ in late},
                now_ms=now_ms,
            )

    @asynccontextmanager
    async def listen(self, queue: str, after: int | None = None) -> AsyncIterator[AsyncIterator[Hint | EventRow]]:  # type: ignore[override]
        with self._open(queue) as book:
            seq, stirs = (len(book.events) if after is None else after), book.stirs
        async with aclosing(self._follow(queue, seq, stirs)) as signals:
            yield signals

    async def _follow(self, queue: str, seq: int, stirs: int) -> Any:
        while True:
            with self._open(queue) as book:
                fresh, hint, stirs = book.events[seq:], book.stirs > stirs, book.stirs
            for event in fresh:
                yield event
            seq += len(fresh)
            if hint:
                yield Hint()
            await anyio.sleep(0.01)


class TestNotebook(BackendConformance):
    @pytest.fixture
    def make_backend(self, tmp_path: Path) -> Callable[[Clock], Backend]:
        return lambda clock: NotebookBackend(tmp_path / "store", clock=clock)

    @pytest.fixture
    def reopen(self) -> Callable[[Backend, Clock], Backend]:
        return lambda backend, clock: NotebookBackend(backend.folder, clock=clock)  # type: ignore[attr-defined]


FOLDER = tempfile.TemporaryDirectory(prefix="deadletter-notebook-")  # goes with the process


def on_a_fresh_folder(clock: Clock) -> Backend:
    return NotebookBackend(Path(tempfile.mkdtemp(dir=FOLDER.name)), clock=clock)


TestNotebookMachine = backend_state_machine(on_a_fresh_folder, examples=20).TestCase
