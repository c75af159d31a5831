"""The SQLite file under test, and a trigger on it that writes down every transition in its own transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from deadletter import DeadLetterQueue, Task
from deadletter.backends.sqlite import SQLiteBackend

from .ledger import Ledger

ENDS = ("succeeded", "dead", "gone")

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


class Store:
    """One file, a producer on it, and plain SQL to look at it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "queue.db"
        self.url = f"sqlite:///{self.path}"
        self.ledger = Ledger(folder)
        self.backend = SQLiteBackend(self.path)
        self.dlq = DeadLetterQueue(self.backend)
        self.dlq.sync.open()
        with closing(self.connect()) as connection:
            connection.executescript(_AUDIT)

    def connect(self) -> sqlite3.Connection:
        """A connection of our own."""
        return sqlite3.connect(self.path, timeout=30, isolation_level=None)

    def close(self) -> None:
        self.dlq.sync.aclose()
        self._blocking(self.backend.aclose)

    @staticmethod
    def _blocking(function: Any) -> Any:
        from deadletter.engine.sync import wait_for

        return wait_for(function)

    def enqueue(self, *tasks: Task) -> None:
        """Enqueue and note the answer."""
        self.ledger.note("offered", *(task.id for task in tasks))
        self.ledger.acknowledge(*self.dlq.sync.enqueue_many(tasks))

    def sweep(self) -> int:
        """Look for lapsed leases, as every worker does."""
        return int(self._blocking(self.dlq.sweep))

    def ask(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with closing(self.connect()) as connection:
            return connection.execute(sql, parameters).fetchall()

    def rows(self, columns: str = "id, state") -> list[tuple[Any, ...]]:
        """Columns of every task of the queue."""
        return self.ask(f"SELECT {columns} FROM dl_rows WHERE queue = (SELECT n FROM dl_queues WHERE name = 'default')")

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
