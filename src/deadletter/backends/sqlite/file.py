"""The file itself: made, opened, migrated, checkpointed, and what it says when it will not."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from sqlite3 import Connection
from urllib.parse import quote

from ...model.errors import BackendError, BackendUnavailable
from .._sql import load_migrations
from . import causes
from .reads import holds

MEMORY = ":memory:"
LOCK_SECONDS = 30
WAL_BYTES = 16 * 1024 * 1024  # the log is written back when it has grown to this
_CHECKPOINT_WAIT_MS = 1_000
_CHECKPOINT_PAUSE = 2.0  # seconds until the next try, where readers kept one from ending

# Closing any descriptor of a file drops all of the process's POSIX locks on it. So a file is made by one thread at a
# time, and opened by nothing but SQLite once it is there.
_MAKING = threading.Lock()


class StoreFile:
    """One database file (or one private store in memory)."""

    def __init__(self, path: str | os.PathLike[str], *, synchronous: str, create: bool) -> None:
        self.in_memory = os.fspath(path) == MEMORY
        self.path = MEMORY if self.in_memory else str(Path(path).absolute())
        self.synchronous = synchronous
        self._create = create
        self._migrated = False
        self._next_checkpoint = 0.0

    def writer(self) -> Connection:
        """Open a connection that writes, on a file that is as new as this version."""
        connection = self._connect()
        try:
            if not self._migrated:
                self._use_wal(connection)
                self._migrate(connection)
                self._count(connection)
                self._migrated = True
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # W3: only where no other connection can
        except BaseException:
            connection.close()
            raise
        return connection

    def reader(self) -> Connection:
        """Open a connection that only reads."""
        connection = self._connect()
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA query_only = 1")
        return connection

    def _connect(self) -> Connection:
        target = MEMORY
        if not self.in_memory:
            with _MAKING:
                self._make()
            target = f"file:{quote(self.path)}?mode=rw"
        connection = sqlite3.connect(
            target,
            timeout=LOCK_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
            uri=not self.in_memory,
        )
        try:
            connection.execute("PRAGMA cache_size = -16000")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.create_function("holds", 2, holds, deterministic=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self) -> None:
        if os.path.exists(self.path):
            return
        if not self._create:
            raise BackendUnavailable(
                f"{self.path} does not exist, and what only reads does not make it; check the path"
            )
        make_private(self.path)

    def _use_wal(self, connection: Connection) -> None:
        if self.in_memory:
            return
        for _ in waiting():
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if not busy(error):
                    raise
            else:
                if mode != "wal":
                    raise BackendUnavailable(
                        f"{self.path}: its file system allows no write-ahead log; use a local disk"
                    )
                return
        raise self._locked()

    def _migrate(self, connection: Connection) -> None:
        migrations = load_migrations(__package__ or "")
        newest = migrations[-1][0]
        if self._schema(connection) == newest:
            return
        connection.execute("BEGIN EXCLUSIVE")
        try:
            have = self._schema(connection)  # again: another process may have been first
            self._refuse_newer(have, newest)
            if have < 1:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS dl_migrations (number INTEGER PRIMARY KEY, at_ms INTEGER)"
                )
            for number, statements in migrations:
                if number > have:
                    for statement in statements:
                        connection.execute(statement)
                    stamp = (number, time.time_ns() // 1_000_000)
                    connection.execute("INSERT INTO dl_migrations VALUES (?, ?)", stamp)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _count(self, connection: Connection) -> None:
        """Count by cause what was stored before this version, or beside it by an older one."""
        if not causes.any_astray(connection):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            causes.recount(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _refuse_newer(self, have: int, newest: int) -> None:
        if have > newest:
            raise BackendUnavailable(
                f"{self.path} was written by a newer version (schema {have}, this one knows {newest}); upgrade deadletter"
            )

    def _schema(self, connection: Connection) -> int:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'dl_migrations'").fetchone()
        if there is None:
            return 0
        return int(connection.execute("SELECT coalesce(max(number), 0) FROM dl_migrations").fetchone()[0])

    def checkpoint(self, connection: Connection) -> None:
        """Write the log back once it is long, while no other process does; called between two transactions.

        TRUNCATE takes the write lock itself, so that no commit runs beside it either. Readers may keep it from ending:
        then it tries again later.
        """
        if self.in_memory or time.monotonic() < self._next_checkpoint:
            return
        try:
            if os.stat(f"{self.path}-wal").st_size < WAL_BYTES:
                return
        except OSError:
            return
        with _alone(f"{self.path}-checkpoint") as alone:
            if not alone:
                return
            connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT_MS}")
            try:
                left_undone = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]
                if left_undone:
                    self._next_checkpoint = time.monotonic() + _CHECKPOINT_PAUSE
            finally:
                connection.execute(f"PRAGMA busy_timeout = {LOCK_SECONDS * 1000}")

    def failure(self, error: Exception) -> Exception:
        """What a caller is told: a BackendUnavailable with the path and what to do, where SQLite refused."""
        if not isinstance(error, sqlite3.Error):
            return error
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            return self._locked()
        told = {
            sqlite3.SQLITE_CANTOPEN: "cannot be opened; check that it is a file and that you may read and write it",
            sqlite3.SQLITE_NOTADB: "is not an SQLite database; give another path",
            sqlite3.SQLITE_FULL: "has no room: the disk is full; nothing of this step was stored",
            sqlite3.SQLITE_READONLY: "is read-only; make it and its directory writable",
            sqlite3.SQLITE_PERM: "may not be accessed; check its owner and mode",
            sqlite3.SQLITE_CORRUPT: 'is damaged; keep a copy, then try sqlite3 FILE ".recover"',
            sqlite3.SQLITE_IOERR: "cannot be read or written; check the disk",
        }.get(code)
        if told is not None:
            return BackendUnavailable(f"{self.path} {told} ({error})")
        if isinstance(error, sqlite3.OperationalError):
            return BackendUnavailable(f"{self.path}: {error}")
        return BackendError(f"{self.path}: {error}")

    def _locked(self) -> BackendUnavailable:
        return BackendUnavailable(
            f"{self.path} was locked for {LOCK_SECONDS} s by another process; end its transaction and try again"
        )


def make_private(path: str) -> None:
    """Make an empty file that nobody else can read; -wal, -shm and -journal take its mode from it."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return
    except FileNotFoundError as error:
        raise BackendUnavailable(f"cannot make {path}: make its directory {os.path.dirname(path)} first") from error
    except OSError as error:
        raise BackendUnavailable(f"cannot make {path}: {error.strerror}") from error


def busy(error: BaseException) -> bool:
    """Whether another connection held the lock."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def waiting() -> Iterator[None]:
    """Turns of a loop that tries until the lock time is over."""
    until = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < until:
        yield
        time.sleep(0.005)


@contextlib.contextmanager
def _alone(path: str) -> Iterator[bool]:
    """Whether this is the only one of all processes that holds the lock file; never waits."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError:  # a directory that may not be written
        yield False
        return
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
