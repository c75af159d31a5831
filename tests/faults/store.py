"""A store under test, that writes down every transition in its own transaction, and a producer on it."""

from __future__ import annotations

import abc
import functools
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from deadletter import DeadLetterQueue, Task
from deadletter.backends import backend_from_url
from deadletter.engine.sync import wait_for
from deadletter.model.row import BATCH, Row

from ..sim.judgement import unexplained
from .calls import CallLog, history_of, log_backend
from .ledger import Ledger
from .opening import AUDITED

ENDS = ("succeeded", "dead", "gone")

Audit = dict[str, list[dict[str, Any]]]


class Store(abc.ABC):
    """One queue in one place, a producer on it, and ways to look at it past the library."""

    over_a_wire = False  # there, what was sent is done, whoever dies

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.ledger = Ledger(folder)
        self.backend = backend_from_url(url)
        log_backend(self.backend, folder, "test")
        self.dlq = DeadLetterQueue(self.backend)

    @abc.abstractmethod
    def rows(self, columns: str = "id, state") -> list[tuple[Any, ...]]:
        """Columns of every task of the queue."""

    @abc.abstractmethod
    def audited(self) -> list[tuple[Any, ...]]:
        """Every transition in order: the fields AUDITED of each."""

    @abc.abstractmethod
    def counters(self) -> dict[str, int]:
        """Lifetime counters by name."""

    @abc.abstractmethod
    def events(self) -> dict[str, int]:
        """Stored events by kind."""

    @abc.abstractmethod
    def differences(self) -> Iterator[str]:
        """Where an index, the tally or the store itself says something else than the rows."""

    def close(self) -> None:
        self.dlq.sync.aclose()
        wait_for(self.backend.aclose)

    def audit(self) -> Audit:
        """Every transition by task."""
        audit: Audit = defaultdict(list)
        for id_, *values in self.audited():
            audit[id_].append(dict(zip(AUDITED[1:], values, strict=True)))
        return audit

    def stored(self) -> dict[str, Row | None]:
        """Every row whole, by its id."""
        ids = [id_ for id_, _ in self.rows()]
        rows: dict[str, Row | None] = {}
        for at in range(0, len(ids), BATCH):
            part = ids[at : at + BATCH]
            load = functools.partial(type(self.backend).load, self.backend, "default", part, history=20)
            rows |= dict(zip(part, wait_for(load), strict=True))
        return rows

    def unexplained(self) -> list[str]:
        """What no order of the calls that all processes made explains."""
        history = history_of(CallLog(self.folder))
        return unexplained(history, self.stored(), time.time() * 1000, steady=False)

    def enqueue(self, *tasks: Task) -> None:
        """Enqueue and note the answer."""
        self.ledger.note("offered", *(task.id for task in tasks))
        self.ledger.acknowledge(*self.dlq.sync.enqueue_many(tasks))

    def sweep(self) -> int:
        """Look for lapsed leases, as every worker does."""
        return int(wait_for(self.dlq.sweep))

    def row(self, task_id: str) -> dict[str, Any]:
        """One task."""
        names = ("state", "attempts", "lease_losses", "reason", "owner", "token", "lease_ms", "postpones")
        found = self.rows(f"id, {', '.join(names)}")
        return next(dict(zip(names, values, strict=True)) for id_, *values in found if id_ == task_id)

    def in_state(self, *states: str) -> list[str]:
        """The ids of tasks in these states."""
        return [id_ for id_, state in self.rows() if state in states]

    def drained(self) -> bool:
        """Whether every task has ended."""
        return not self.in_state("pending", "running")

    def began(self, *ids: str) -> Sequence[str]:
        """Those of ``ids`` (of all) that a processor has begun."""
        return [id_ for id_ in self.ledger.ids("began") if not ids or id_ in ids]


_AUDIT = """
CREATE TABLE audit (
  n INTEGER PRIMARY KEY, id TEXT, was TEXT, became TEXT, started INTEGER, owner TEXT, token TEXT,
  attempts INTEGER, losses INTEGER, replays INTEGER
);
CREATE TRIGGER audit_insert AFTER INSERT ON dl_rows
WHEN NEW.queue = (SELECT n FROM dl_queues WHERE name = 'default')
BEGIN
  INSERT INTO audit (id, was, became, started, owner, token, attempts, losses, replays)
  VALUES (NEW.id, NULL, NEW.state, 0, NULL, NULL, 0, 0, 0);
END;
CREATE TRIGGER audit_update AFTER UPDATE ON dl_rows
WHEN NEW.queue = (SELECT n FROM dl_queues WHERE name = 'default') AND (OLD.state <> NEW.state OR OLD.token IS NOT NEW.token)
BEGIN
  INSERT INTO audit (id, was, became, started, owner, token, attempts, losses, replays)
  VALUES (NEW.id, OLD.state, NEW.state, OLD.started, OLD.owner, NEW.token,
          NEW.attempts - OLD.attempts, NEW.lease_losses - OLD.lease_losses, NEW.replays - OLD.replays);
END;
"""
_MINE = "queue = (SELECT n FROM dl_queues WHERE name = 'default')"


class SqliteStore(Store):
    """One file, with a trigger on it, and plain SQL to look at it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "queue.db"
        super().__init__(folder, f"sqlite:///{self.path}")
        self.dlq.sync.open()
        with closing(self.connect()) as connection:
            connection.executescript(_AUDIT)

    def connect(self) -> sqlite3.Connection:
        """A connection of our own."""
        return sqlite3.connect(self.path, timeout=30, isolation_level=None)

    def ask(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with closing(self.connect()) as connection:
            return connection.execute(sql, parameters).fetchall()

    def rows(self, columns: str = "id, state") -> list[tuple[Any, ...]]:
        return self.ask(f"SELECT {columns} FROM dl_rows WHERE {_MINE}")

    def audited(self) -> list[tuple[Any, ...]]:
        return self.ask(f"SELECT {', '.join(AUDITED)} FROM audit ORDER BY n")

    def counters(self) -> dict[str, int]:
        return dict(self.ask(f"SELECT name, sum(count) FROM dl_counters WHERE {_MINE} GROUP BY name"))

    def events(self) -> dict[str, int]:
        return dict(self.ask(f"SELECT kind, count(*) FROM dl_events WHERE {_MINE} GROUP BY kind"))

    def differences(self) -> Iterator[str]:
        for (said,) in self.ask("PRAGMA integrity_check"):
            if said != "ok":
                yield said
        rows = self.ask("SELECT queue, state, priority, type, coalesce(reason, '') FROM dl_rows WHERE state <> 'gone'")
        tally = self.ask("SELECT queue, state, priority, type, reason, count FROM dl_tally WHERE count <> 0")
        told, recount = {tuple(key): n for *key, n in tally}, {key: rows.count(key) for key in set(rows)}
        if told != recount:
            yield f"the tally says {told}, a recount {recount}"
