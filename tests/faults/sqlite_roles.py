"""What a child may be on SQLite alone: who migrates a file, and who captures into a spool or empties it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import anyio

from deadletter import BackendUnavailable, Captured, DeadLetterQueue, dead_lettered
from deadletter.backends.sqlite import SpoolFile, SQLiteBackend, file
from deadletter.engine import spooling
from deadletter.model.row import Insertion, NewRow

from .doom import Fate
from .ledger import Ledger
from .opening import path_of
from .roles import stop_at_sigterm

NEXT_SCHEMA = (
    9,
    [
        "CREATE TABLE dl_next (n INTEGER PRIMARY KEY, id TEXT NOT NULL)",
        "ALTER TABLE dl_rows ADD COLUMN next INTEGER NOT NULL DEFAULT 7",
        "INSERT INTO dl_next SELECT n, id FROM dl_rows",
        "CREATE INDEX dl_next_id ON dl_next (id)",
    ],
)


async def migrator(
    *, url: str, folder: str, name: str, kill_at: str | None = None, after: int = 1, upgrade: bool = False
) -> None:
    """Bring a file up to date, and perhaps die at some statement of it."""
    del name, folder
    fate = Fate(kill_at, after)
    store = file.StoreFile(str(path_of(url)), synchronous="FULL", create=True)
    known, connect = file.load_migrations, store._connect

    def with_the_next(package: str) -> list[tuple[int, list[str]]]:
        return [*known(package), NEXT_SCHEMA] if upgrade else known(package)

    def watched() -> Connection:
        connection = connect()
        begun = False

        def trace(statement: str) -> None:
            nonlocal begun
            begun = begun or statement.startswith("BEGIN EXCLUSIVE")
            if begun:
                fate.reach("statement")

        connection.set_trace_callback(trace)
        return connection

    file.load_migrations = with_the_next
    store._connect = watched  # type: ignore[method-assign]
    with closing(store.writer()):
        pass


SPOOL_POINTS = (
    "before_spooled",
    "in_spooling",
    "after_spooled",
    "before_insert",
    "after_insert",
    "in_removal",
    "after_removal",
)


class Line:
    """A store that is away as long as the file ``away`` stands beside it."""

    def __init__(self, backend: SQLiteBackend, folder: Path, fate: Fate) -> None:
        insert, away = backend.insert, folder / "away"

        async def insert_(queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
            if away.exists():
                raise BackendUnavailable("the line is cut")
            if queue == "default":
                fate.reach("before_insert")
            insertions = await insert(queue, rows)
            if queue == "default":
                fate.reach("after_insert")
            return insertions

        backend.insert = insert_  # type: ignore[method-assign]


class DoomedSpool(SpoolFile):
    """A spool whose process dies around its commits: ``in_…`` is inside of the transaction."""

    def __init__(self, path: Path, fate: Fate) -> None:
        super().__init__(path)
        self.fate = fate
        self._within = threading.local()  # who gives back changes the file from a thread of its own

    def put(self, url: str, queue: str, row: NewRow, now_ms: int) -> None:
        self.fate.reach("before_spooled")
        with self._inside("in_spooling"):
            super().put(url, queue, row, now_ms)
        self.fate.reach("after_spooled")

    def remove(self, places: Sequence[int]) -> None:
        with self._inside("in_removal"):
            super().remove(places)
        self.fate.reach("after_removal")

    @contextmanager
    def _inside(self, point: str) -> Iterator[None]:
        self._within.point = point
        try:
            yield
        finally:
            self._within.point = None

    @contextmanager
    def _changing(self) -> Iterator[Any]:
        with super()._changing() as connection:
            yield connection
            self.fate.reach(getattr(self._within, "point", None))


async def capturer(
    *, url: str, folder: str, name: str, kill_at: str | None = None, after: int = 1, most: int = 1_000_000
) -> None:
    """Call a function that fails, for ever, noting what the spool or the store acknowledged."""
    where = Path(folder)
    ledger, fate = Ledger(where), Fate(kill_at, after)
    backend = SQLiteBackend(path_of(url))
    Line(backend, where, fate)
    async with DeadLetterQueue(backend, spool=DoomedSpool(where / "captures.spool", fate), retry=[3600]) as dlq:

        @dead_lettered(dlq, name="work", on_failure="suppress")
        async def work(who: str, at: int) -> None:
            raise ValueError("told to fail")

        for at in range(most):
            ledger.note("called", f"{name}/{at}")
            answer = await work(name, at)
            if isinstance(answer, Captured):
                ledger.acknowledge(answer.task_id)
                ledger.note("captured", answer.task_id, f"{name}/{at}")
            await anyio.sleep(0.001)
    await backend.aclose()


async def drainer(
    *, url: str, folder: str, name: str, kill_at: str | None = None, after: int = 1, lease_ms: int = 300
) -> None:
    """A worker that does nothing but bring what waits; the dead hold it up for no longer than ``lease_ms``."""
    del name
    spooling.LEASE_MS, spooling.WATCH = lease_ms, 0.05
    where = Path(folder)
    fate = Fate(kill_at, after)
    backend = SQLiteBackend(path_of(url))
    Line(backend, where, fate)
    async with DeadLetterQueue(backend, spool=DoomedSpool(where / "captures.spool", fate)) as dlq:
        working = dlq.worker()
        async with anyio.create_task_group() as group:
            group.start_soon(stop_at_sigterm, working)
            await working.run()
            group.cancel_scope.cancel()
    await backend.aclose()
