"""What the machine allows: sqlite3 alone on one connection, doing the same commits into the same tables and indexes.

No fences, no encoding, no threads, and all values ready to be bound.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence

from _figures import Found, Stopwatch
from _stores import Store

from deadletter.backends._sql import COLUMNS, values_of
from deadletter.backends.sqlite import SQLiteBackend
from deadletter.backends.sqlite.reads import Q
from deadletter.model.row import NewRow
from deadletter.model.task import new_id
from deadletter.rules import machine

BODY = b'{"p":{"n":1,"to":"someone@example.org","text":"' + b"x" * 160 + b'"}}'


def rows_of(n: int) -> list[NewRow]:
    """New pending rows with a body of 200 bytes."""
    return [NewRow(id=new_id(), type="noop", digest="d" * 64, body=BODY, keep_ms=604_800_000) for _ in range(n)]


def prepared(n: int) -> tuple[str, list[tuple[object, ...]]]:
    """The INSERT of n pending rows, and its parameters as sqlite3 binds them fastest."""
    journal, now_ms = machine.Journal(), time.time_ns() // 1_000_000
    rows = [(1, *values_of(machine.build(new, now_ms, journal))) for new in rows_of(n)]
    filled = [at for at in range(len(rows[0])) if rows[0][at] is not None]
    names = ["queue", *COLUMNS]
    insert = f"INSERT INTO dl_rows ({', '.join(names[at] for at in filled)}) VALUES (?{', ?' * (len(filled) - 1)})"
    return insert, [tuple(_plain(row[at]) for at in filled) for row in rows]


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return bytearray(value)
    return str(value) if isinstance(value, str) else value if value is None else int(value)  # type: ignore[call-overload]


def insert_all(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]], size: int) -> None:
    """Insert rows, ``size`` a commit, each commit with the look for their ids, the tally and the counter."""
    for at in range(0, len(rows), size):
        part = rows[at : at + size]
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            Q["fences"].replace("{marks}", ",".join("?" * len(part))), (1, *(r[1] for r in part))
        ).fetchall()
        connection.executemany(statement, part)
        connection.execute(Q["add_tally"], (1, "pending", 1, "noop", "", len(part)))
        connection.execute(Q["add_counter"], (1, "enqueued", "noop", "", len(part)))
        connection.execute("COMMIT")


def update_all(connection: sqlite3.Connection, n: int, size: int) -> None:
    """Lease and then settle n rows, ``size`` a commit."""
    now_ms = time.time_ns() // 1_000_000
    lease = "UPDATE dl_rows SET state = 'running', token = ?, op = ?, lease_ms = ?, owner = 'w' WHERE n = ?"
    done = (
        "UPDATE dl_rows SET state = 'succeeded', token = NULL, op = ?, lease_ms = NULL, owner = NULL, attempts = 1,"
        " ended_ms = ?, keep_until_ms = ?, body = NULL WHERE n = ?"
    )
    leased: list[tuple[object, ...]] = [("token", "op", now_ms, at + 1) for at in range(n)]
    ended: list[tuple[object, ...]] = [("op", now_ms, now_ms, at + 1) for at in range(n)]
    for at in range(0, n, size):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(done, ended[max(0, at - size) : at])  # as a worker does: these and the next claim
        connection.executemany(lease, leased[at : at + size])
        connection.execute("COMMIT")
    commit_last = ended[(n - 1) // size * size :]
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(done, commit_last)
    connection.execute("COMMIT")


def connect(path: str) -> contextlib.closing[sqlite3.Connection]:
    """The writer's own connection, on a file with its tables."""
    connection = SQLiteBackend(path)._file.writer()
    connection.execute(Q["add_queue"], ("default",)).fetchall()
    return contextlib.closing(connection)


def inserting(figure: str, size: int) -> Callable[[Store, str, int], Found]:
    """Measure inserts, ``size`` a commit."""

    def once(store: Store, folder: str, n: int) -> Found:
        with connect(f"{folder}/bare.db") as connection:
            statement, rows = prepared(n)
            with Stopwatch() as taken:
                insert_all(connection, statement, rows, size)
        return {figure: taken.rate(n)}

    return once


def draining(figure: str, size: int) -> Callable[[Store, str, int], Found]:
    """Measure leases and settlements, ``size`` a commit."""

    def once(store: Store, folder: str, n: int) -> Found:
        with connect(f"{folder}/bare.db") as connection:
            insert_all(connection, *prepared(n), 100)
            with Stopwatch() as taken:
                update_all(connection, n, size)
        return {figure: taken.rate(n)}

    return once
