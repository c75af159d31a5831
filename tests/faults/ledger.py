"""What really happened, kept outside of the store: one line a fact, and effects in a file of their own."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path


class Ledger:
    """Facts that any number of processes append; a line that was written outlives its writer's SIGKILL."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.jsonl"
        self._effects = folder / "effects.db"

    def note(self, what: str, *said: object) -> None:
        """Append a fact."""
        self._append(what, said, sync=False)

    def acknowledge(self, *ids: str) -> None:
        """Note that a producer was told that these are stored, on the disk before anybody acts on it."""
        self._append("acknowledged", ids, sync=True)

    def _append(self, what: str, said: tuple[object, ...], *, sync: bool) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, json.dumps([what, *said]).encode() + b"\n")
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def facts(self, what: str) -> list[list[object]]:
        """All facts of one kind, oldest first; the half line of a writer that just died is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]
        return [said for first, *said in map(json.loads, lines) if first == what]

    def ids(self, what: str) -> list[str]:
        """The ids that facts of one kind name; of ``acknowledged`` and ``offered`` all, else the first."""
        if what in ("acknowledged", "offered"):
            return [str(id_) for said in self.facts(what) for id_ in said]
        return [str(said[0]) for said in self.facts(what)]

    def effect(self, task_id: str, key: str | None) -> bool:
        """Do what a task is for, in one transaction of its own; False where its key was used before."""
        with closing(sqlite3.connect(self._effects, timeout=30, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")  # SIGKILL takes nothing that was written
            connection.execute("CREATE TABLE IF NOT EXISTS effects (task TEXT, key TEXT UNIQUE)")
            done = connection.execute("INSERT OR IGNORE INTO effects VALUES (?, ?)", (task_id, key))
            return done.rowcount == 1

    def effects(self) -> Counter[str]:
        """How many effects each task had."""
        if not self._effects.exists():
            return Counter()
        with closing(sqlite3.connect(self._effects, timeout=30)) as connection:
            return Counter(task for (task,) in connection.execute("SELECT task FROM effects").fetchall())
