"""Captures that wait for a store that is away, in one SQLite file.

A rollback journal with ``synchronous=EXTRA``: a commit survives power loss, and nothing but this file remains. A
connection lives for one step, so that forks, threads and processes need no care, and what is removed is overwritten.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from sqlite3 import Connection
from urllib.parse import quote

import attrs
import orjson

from ...interfaces.spool import Spool, Spooled
from ...model.errors import BackendError, BackendUnavailable, InvalidSetting
from ...model.row import BATCH, FailureRow, Finding, NewRow
from .file import busy, make_private
from .forks import Gate

FORMAT = 1
MOST, MOST_BYTES = 10_000, 100_000_000
BATCH_BYTES = 4_000_000
LOCK_SECONDS = 5
_APPLICATION = 0x444C5350  # "DLSP"
_ALMOST = 0.8  # full

_SCHEMA = (
    """CREATE TABLE captures (
        n INTEGER PRIMARY KEY AUTOINCREMENT, url TEXT NOT NULL, queue TEXT NOT NULL, id TEXT NOT NULL,
        digest TEXT NOT NULL, at_ms INTEGER NOT NULL, bytes INTEGER NOT NULL, until_ms INTEGER NOT NULL DEFAULT 0,
        refused TEXT, fields BLOB NOT NULL, body BLOB NOT NULL, UNIQUE (url, queue, id, digest)
    )""",
    "CREATE INDEX captures_bytes ON captures (bytes)",
    """CREATE TABLE drains (
        url TEXT NOT NULL, queue TEXT NOT NULL, owner TEXT NOT NULL, until_ms INTEGER NOT NULL,
        PRIMARY KEY (url, queue)
    ) WITHOUT ROWID""",
)


class SpoolFile(Spool):
    """A spool in a file of its own, made for its owner alone at the first capture.

    Args:
        path: the file; its directory must be there.
        most: how many captures it holds, and ``most_bytes`` of what size in all; what comes then is refused.

    Raises:
        InvalidSetting: where such a file cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], *, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        if not os.fspath(path):
            raise InvalidSetting("spool", "is empty; give the path of a file")
        self.path = str(Path(path).absolute())
        self._most, self._most_bytes = most, most_bytes
        self._check_place()
        self._gate = Gate(self._leave)

    def __repr__(self) -> str:
        return f"SpoolFile({self.path!r})"

    def put(self, url: str, queue: str, row: NewRow, now_ms: int) -> None:
        """See Spool.put."""
        fields, body = _written(row)
        size = len(fields) + len(body)
        with self._changing() as connection:
            known = "SELECT 1 FROM captures WHERE (url, queue, id, digest) = (?, ?, ?, ?)"
            if connection.execute(known, (url, queue, row.id, row.digest)).fetchone():
                return
            held, held_bytes = _size(connection)
            if held + 1 > self._most or held_bytes + size > self._most_bytes:
                raise BackendError(
                    f"the spool {self.path} is full: it holds {held} captures of {held_bytes} bytes, and may hold"
                    f" {self._most} of {self._most_bytes}; bring the store back, or give the queue"
                    " spool=SpoolFile(path, most=..., most_bytes=...) of deadletter.backends.sqlite"
                )
            connection.execute(
                "INSERT INTO captures (url, queue, id, digest, at_ms, bytes, fields, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (url, queue, row.id, row.digest, now_ms, size, fields, body),
            )

    def count(self, url: str, queue: str) -> int:
        """See Spool.count."""
        with self._reading() as connection:
            if connection is None:
                return 0
            sql = "SELECT count(*) FROM captures WHERE url = ? AND queue = ?"
            return int(connection.execute(sql, (url, queue)).fetchone()[0])

    def due(self, url: str, queue: str, now_ms: int) -> bool:
        """See Spool.due."""
        with self._reading() as connection:
            if connection is None:
                return False
            sql = "SELECT 1 FROM captures WHERE url = ? AND queue = ? AND until_ms <= ? LIMIT 1"
            return connection.execute(sql, (url, queue, now_ms)).fetchone() is not None

    def lease(self, url: str, queue: str, owner: str, now_ms: int, lease_ms: int) -> bool:
        """See Spool.lease. One that ends later than any could was given by a clock that was set back since."""
        with self._changing() as connection:
            done = connection.execute(
                "INSERT INTO drains VALUES (?1, ?2, ?3, ?4 + ?5) ON CONFLICT DO UPDATE"
                " SET owner = ?3, until_ms = ?4 + ?5 WHERE owner = ?3 OR until_ms <= ?4 OR until_ms > ?4 + ?5",
                (url, queue, owner, now_ms, lease_ms),
            )
            return done.rowcount == 1

    def release(self, url: str, queue: str, owner: str) -> None:
        """See Spool.release."""
        with self._changing() as connection:
            connection.execute("DELETE FROM drains WHERE (url, queue, owner) = (?, ?, ?)", (url, queue, owner))

    def take(self, url: str, queue: str, after: int, now_ms: int) -> list[Spooled]:
        """See Spool.take."""
        with self._reading() as connection:
            if connection is None:
                return []
            found = connection.execute(
                "SELECT n, bytes FROM captures WHERE url = ? AND queue = ? AND n > ? AND until_ms <= ? ORDER BY n LIMIT ?",
                (url, queue, after, now_ms, BATCH),
            ).fetchall()
            taken: list[Spooled] = []
            room = BATCH_BYTES
            for n, size in found:
                room -= size
                if taken and room < 0:
                    break
                stored = connection.execute("SELECT fields, body FROM captures WHERE n = ?", (n,)).fetchone()
                if stored is not None:
                    taken.append(Spooled(n, _read(*stored)))
            return taken

    def remove(self, places: Sequence[int]) -> None:
        """See Spool.remove."""
        with self._changing() as connection:
            connection.executemany("DELETE FROM captures WHERE n = ?", [(n,) for n in places])

    def refuse(self, place: int, why: str, until_ms: int) -> None:
        """See Spool.refuse."""
        with self._changing() as connection:
            connection.execute("UPDATE captures SET refused = ?, until_ms = ? WHERE n = ?", (why, until_ms, place))

    def findings(self, url: str, queue: str, now_ms: int) -> list[Finding]:
        """See Spool.findings."""
        with self._reading() as connection:
            if connection is None:
                return [Finding(level="ok", text=f"the spool {self.path} is not made yet: nothing waits")]
            waits, oldest = connection.execute(
                "SELECT count(*), min(at_ms) FROM captures WHERE url = ? AND queue = ?", (url, queue)
            ).fetchone()
            refused = connection.execute(
                "SELECT id, refused FROM captures WHERE url = ? AND queue = ? AND refused IS NOT NULL ORDER BY n LIMIT 10",
                (url, queue),
            ).fetchall()
            held, held_bytes = _size(connection)
        found = [self._waits(waits, held - waits, held_bytes, 0 if oldest is None else max(0, now_ms - oldest))]
        found += [
            Finding(level="warning", text=f"the store did not take {id_} from the spool: {why}") for id_, why in refused
        ]
        if held > _ALMOST * self._most or held_bytes > _ALMOST * self._most_bytes:
            limit = f"{self._most} captures of {self._most_bytes} bytes"
            found.append(Finding(level="warning", text=f"the spool is almost full: it may hold {limit}"))
        mode = stat.S_IMODE(os.stat(self.path).st_mode)
        if os.name == "posix" and mode & 0o077:
            text = f"{self.path} has mode {mode:04o}, and it holds arguments of calls; chmod 600 it"
            found.append(Finding(level="warning", text=text))
        return found

    def _waits(self, waits: int, others: int, held_bytes: int, age_ms: int) -> Finding:
        text = f"the spool {self.path} holds {waits} captures for this queue"
        if waits:
            text += f", the oldest for {age_ms // 1000} s"
        if others:
            text += f", and {others} for others"
        return Finding(level="note" if waits else "ok", text=f"{text}; {held_bytes} bytes in all")

    def _check_place(self) -> None:
        directory = os.path.dirname(self.path)
        if not os.path.isdir(directory):
            raise InvalidSetting("spool", f"{self.path}: there is no directory {directory}; make it first")
        if os.path.isdir(self.path):
            raise InvalidSetting("spool", f"{self.path} is a directory; give the path of a file in it")
        if not os.access(directory, os.W_OK | os.X_OK):  # the journal stands beside the file
            raise InvalidSetting("spool", f"{self.path}: this process may not write in {directory}")
        if os.path.exists(self.path) and not os.access(self.path, os.R_OK | os.W_OK):
            raise InvalidSetting("spool", f"{self.path}: this process may not read and write it")

    def _leave(self) -> None:
        """Nothing is open between two steps."""

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Connection]:
        with self._gate, self._told():
            make_private(self.path)
            with contextlib.closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")  # closing rolls back what did not get here

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection | None]:
        with self._gate, self._told():
            if not os.path.exists(self.path):
                yield None
                return
            with contextlib.closing(self._connect()) as connection:
                connection.execute("BEGIN")
                yield connection

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if busy(error):
                what = f"was locked for {LOCK_SECONDS} s by another process; end its transaction"
            else:
                what = f"cannot be used: {error}; check the file, its directory and the disk"
            raise BackendUnavailable(f"the spool {self.path} {what}") from error

    def _connect(self) -> Connection:
        connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode=rw", timeout=LOCK_SECONDS, isolation_level=None, uri=True
        )
        try:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("BEGIN")  # who furnishes it meanwhile would be seen in half
            found = self._format(connection)
            connection.execute("COMMIT")
            if found != FORMAT:
                self._furnish(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _format(self, connection: Connection) -> int:
        """The format of the file, 0 where it is empty; raises where it is no spool, or a newer one."""
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        number = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if application == 0 and not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            return 0
        if application != _APPLICATION:
            raise BackendUnavailable(f"{self.path} is a database of something else; give the spool a file of its own")
        if number > FORMAT:
            raise BackendUnavailable(
                f"the spool {self.path} was written by a newer version (format {number}, this one knows {FORMAT});"
                " upgrade deadletter"
            )
        return number

    def _furnish(self, connection: Connection) -> None:
        connection.execute("PRAGMA auto_vacuum = FULL")  # a file that was full gets small again
        connection.execute("BEGIN IMMEDIATE")
        if self._format(connection) == 0:  # another process may have been first
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")


def _size(connection: Connection) -> tuple[int, int]:
    return connection.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM captures").fetchone()  # type: ignore[no-any-return]


def _written(row: NewRow) -> tuple[bytes, bytes]:
    fields = attrs.asdict(row, filter=lambda attribute, _: attribute.name != "body")
    return orjson.dumps(fields), row.body


def _read(fields: bytes, body: bytes) -> NewRow | None:
    try:
        said = orjson.loads(fields)
        said["history"] = [FailureRow(**entry) for entry in said["history"]]
        said["count"] = [tuple(entry) for entry in said["count"]]
        return NewRow(**said, body=body)
    except (ValueError, TypeError, LookupError):  # damaged; it stays where it is, and doctor tells
        return None
