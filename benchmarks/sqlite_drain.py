"""What does the SQLite backend make of the disk: each step of the seam beside the same statements, bare?

    python benchmarks/sqlite_drain.py [--n 20000] [--runs 3] [--folder DIR] [--json FILE]

At synchronous=FULL. "bare" is sqlite3 alone on one connection: the same rows into the same tables and indexes, the same
number of them a commit, no fences, no counts. Runs alternate; each figure is the median, in rows a second.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
from report import report

from deadletter.backends._sql import COLUMNS, values_of
from deadletter.backends.sqlite import SQLiteBackend
from deadletter.model.record import Reason
from deadletter.model.row import Claim, FailureRow, NewRow
from deadletter.model.task import new_id
from deadletter.rules import changes, machine

BODY = b'{"to": "someone@example.org", "text": "' + b"x" * 160 + b'"}'
TRACEBACK = "Traceback (most recent call last):\n" + '  File "app.py", line 7, in send\n    smtp.send()\n' * 30


def fresh(n: int) -> list[NewRow]:
    return [NewRow(id=new_id(), type="noop", digest="d" * 32, body=BODY) for _ in range(n)]


async def in_bulk(backend: SQLiteBackend, n: int) -> float:
    parts = [fresh(100) for _ in range(n // 100)]
    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for part in parts:
            group.start_soon(backend.insert, "q", part)
    return n / (time.perf_counter() - began)


async def one_by_one(backend: SQLiteBackend, n: int) -> float:
    rows = fresh(n // 20)
    began = time.perf_counter()
    for row in rows:
        await backend.insert("q", [row])
    return len(rows) / (time.perf_counter() - began)


async def by_64(backend: SQLiteBackend, n: int) -> float:
    rows = iter(fresh(n // 2))

    async def feed() -> None:
        for row in rows:
            await backend.insert("q", [row])

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(64):
            group.start_soon(feed)
    return (n // 2) / (time.perf_counter() - began)


def settle(size: int, *, dies: bool = False) -> Callable[[SQLiteBackend, int], Awaitable[float]]:
    async def measure(backend: SQLiteBackend, n: int) -> float:
        await in_bulk(backend, n)
        ops = itertools.count()
        done = 0
        began = time.perf_counter()
        claimed = await backend.claim("q", Claim(op=f"c{next(ops)}", types=("noop",), limit=size))
        while claimed.rows:
            if dies:
                settled = [
                    changes.die(row, f"s{next(ops)}", Reason.REJECTED, failure(), 86_400_000) for row in claimed.rows
                ]
            else:
                settled = [changes.succeed(row, f"s{next(ops)}", 3_600_000) for row in claimed.rows]
            done += len(settled)
            # As a worker does: settle these and claim the next, which share a commit.
            async with anyio.create_task_group() as group:
                group.start_soon(backend.apply, "q", settled)
                claimed = await backend.claim("q", Claim(op=f"c{next(ops)}", types=("noop",), limit=size))
        return done / (time.perf_counter() - began)

    return measure


def failure() -> FailureRow:
    return FailureRow(attempt=1, error_type="OSError", message="no route", traceback=TRACEBACK, fingerprint="f" * 16)


def bare(size: int, updates: int) -> Callable[[SQLiteBackend, int], Awaitable[float]]:
    """Insert, or where ``updates`` says so update each row that often, ``size`` rows a commit."""

    async def measure(backend: SQLiteBackend, n: int) -> float:
        n = n if size > 1 else n // 20
        await backend.open()
        journal, now_ms = machine.Journal(), time.time_ns() // 1_000_000
        rows = [(1, *values_of(machine.build(new, now_ms, journal))) for new in fresh(n)]
        filled = [at for at in range(len(rows[0])) if rows[0][at] is not None]
        names = ["queue", *COLUMNS]
        insert = f"INSERT INTO dl_rows ({', '.join(names[at] for at in filled)}) VALUES (?{', ?' * (len(filled) - 1)})"
        simple = [tuple(plain(row[at]) for at in filled) for row in rows]
        took = time.perf_counter()
        with _connected(backend) as connection:
            commit(connection, insert, simple, size)
            if updates:
                took = time.perf_counter()
                lease = "UPDATE dl_rows SET state = 'running', token = ?, op = ?, lease_ms = ?, owner = 'w' WHERE n = ?"
                commit(connection, lease, [("token", "op", now_ms, at + 1) for at in range(n)], size)
                done = (
                    "UPDATE dl_rows SET state = 'succeeded', token = NULL, op = ?, lease_ms = NULL, owner = NULL,"
                    " attempts = 1, ended_ms = ?, keep_until_ms = ?, body = NULL WHERE n = ?"
                )
                commit(connection, done, [("op", now_ms, now_ms, at + 1) for at in range(n)], size)
        return n / (time.perf_counter() - took)

    return measure


def plain(value: object) -> object:
    """As sqlite3 binds it fastest."""
    if isinstance(value, bytes):
        return bytearray(value)
    return str(value) if isinstance(value, str) else value if value is None else int(value)  # type: ignore[call-overload]


def commit(connection: sqlite3.Connection, statement: str, rows: list[tuple[object, ...]], size: int) -> None:
    for at in range(0, len(rows), size):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(statement, rows[at : at + size])
        connection.execute("COMMIT")


@contextlib.contextmanager
def _connected(backend: SQLiteBackend) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(backend._file.writer()) as connection:
        yield connection


CASES: dict[str, tuple[Callable[[SQLiteBackend, int], Awaitable[float]], str]] = {
    "bare insert, 100 a commit": (bare(100, 0), ""),
    "bare insert, 1 a commit": (bare(1, 0), ""),
    "bare claim and settle, 100 a commit": (bare(100, 2), ""),
    "insert in bulk": (in_bulk, "bare insert, 100 a commit"),
    "insert one by one": (one_by_one, "bare insert, 1 a commit"),
    "insert from 64 coroutines": (by_64, "bare insert, 1 a commit"),
    "claim 100 and settle": (settle(100), "bare claim and settle, 100 a commit"),
    "claim 32 and settle": (settle(32), "bare claim and settle, 100 a commit"),
    "claim 100 and die": (settle(100, dies=True), "bare claim and settle, 100 a commit"),
}


def run(measure: Callable[[SQLiteBackend, int], Awaitable[float]], n: int, folder: str | None) -> float:
    async def once(path: Path) -> float:
        backend = SQLiteBackend(path)
        try:
            return await measure(backend, n)
        finally:
            await backend.aclose()

    with tempfile.TemporaryDirectory(dir=folder) as directory:
        return anyio.run(once, Path(directory) / "bench.db")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", help="on which disk (default: the temporary directory)")
    parser.add_argument("--json")
    options = parser.parse_args()
    figures: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(options.runs):
        for name, (measure, _) in CASES.items():
            figures[name].append(run(measure, options.n, options.folder))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    rows = [
        {
            "step": name,
            "rows a second": medians[name],
            "least": min(figures[name]),
            "most": max(figures[name]),
            "ratio to bare": medians[name] / medians[beside] if beside else None,
            "beside": beside,
        }
        for name, (_, beside) in CASES.items()
    ]
    report(f"SQLite {sqlite3.sqlite_version}, synchronous=FULL, {options.n:,} rows", rows, options.json)


if __name__ == "__main__":
    main()
