"""What it costs to look at many dead letters, and to purge them all."""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from _figures import Found, Measured, Stopwatch, resident
from _stores import Store

if TYPE_CHECKING:
    from deadletter import DeadLetterQueue
    from deadletter.model.row import NewRow

TRACEBACK = "Traceback (most recent call last):\n" + '  File "app.py", line 7, in send\n    smtp.send()\n' * 20
TYPES, CAUSES = 10, 100  # causes share a traceback text each
SPAN_MS = 7 * 24 * 3_600_000  # over which they died
_LOOKS = 20  # of one kind; the median counts


def letter(number: int, n: int, *, alike: bool = False) -> NewRow:
    """The ``number``-th of n letters: 200 bytes of payload, one failure, one of a hundred causes."""
    from deadletter.model.row import DEAD, FailureRow, NewRow

    cause = 0 if alike else number * 7919 % CAUSES
    at_ms = time.time_ns() // 1_000_000 - SPAN_MS + number * SPAN_MS // n
    failure = FailureRow(
        attempt=1,
        at_ms=at_ms,
        error_type="builtins.OSError",
        message=f"no route to host {number}",
        traceback=f"{TRACEBACK}OSError: cause {cause}\n",
        fingerprint=f"{cause:016x}",
        worker="bench",
    )
    return NewRow(
        id=f"letter-{number:09d}",
        type=f"type-{number % TYPES}",
        priority=number % 3,
        digest="d" * 64,
        body=b'{"p":{"customer":{"id":%d},"to":"someone@example.org","text":"%s"}}' % (number + 1, b"x" * 140),
        state=DEAD,
        reason="retries_exhausted",
        attempts=1,
        history=[failure],
        created_at_ms=at_ms,
        ended_at_ms=at_ms,
        count=(("dead", f"type-{number % TYPES}", ""),),
    )


async def fill(dlq: DeadLetterQueue, n: int) -> None:
    """Store n letters, a thousand in a commit."""
    for start in range(0, n, 1000):
        async with anyio.create_task_group() as group:
            for at in range(start, min(n, start + 1000), 100):
                rows = [letter(number, n) for number in range(at, min(n, at + 100))]
                group.start_soon(dlq.backend.insert, dlq.name, rows)


async def _median(call: Callable[[], Awaitable[object]], times: int) -> Measured:
    taken: list[Stopwatch] = []
    for _ in range(times):
        with Stopwatch() as watch:
            await call()
        taken.append(watch)
    return Measured(statistics.median(w.wall for w in taken) * 1e3, statistics.median(w.cpu for w in taken) * 1e6)


async def letters(store: Store, folder: str, n: int) -> Found:
    """Every way to look at n letters, then the purge."""
    from deadletter import DeadLetterQueue

    found: Found = {}
    async with DeadLetterQueue(store.url(folder)) as dlq:
        with Stopwatch() as filling:
            await fill(dlq, n)
        found["letters stored"] = filling.rate(n)
        if store.shared and Path(folder, "queue.db").exists():
            found["letters: bare page of 50"] = _bare_page(f"{folder}/queue.db")
        found |= await _pages(dlq, n)
        found |= await _searches(dlq, n)
        found |= await _purge(dlq, n)
    return {f"{figure} @ {n:,}": value for figure, value in found.items()}


async def _pages(dlq: DeadLetterQueue, n: int) -> Found:
    from deadletter import Query

    first = await dlq.list()
    age = timedelta(milliseconds=SPAN_MS // 2)
    asked = {
        "page of 50": Query(),
        "page by type": Query(type="type-3"),
        "page by priority": Query(priority="high"),
        "page by fingerprint": Query(fingerprint=f"{7:016x}"),
        "page by time": Query(older_than=age),
        "page by type and priority": Query(type="type-3", priority="high"),
    }
    found = {
        f"letters: {name}": await _median(lambda query=query: dlq.list(query), _LOOKS) for name, query in asked.items()
    }
    found["letters: next page of 50"] = await _median(lambda: dlq.list(cursor=first.next_cursor), _LOOKS)
    return found


async def _searches(dlq: DeadLetterQueue, n: int) -> Found:
    """Texts and payload values that only the oldest letter has, so that every letter is looked at."""
    from deadletter import Query

    async def count(query: Query) -> None:
        seen = [record.id async for record in dlq.scan(query)]
        if seen != ["letter-000000000"]:
            raise SystemExit(f"{query} found {seen[:5]}")

    found: Found = {}
    asked = {
        "search of error text": Query(error_contains="no route to host 0" if n <= 10 else "HOST 0"),
        "search of a payload path": Query(payload={"customer.id": 1}),
    }
    for name, query in asked.items():
        with Stopwatch() as taken:
            await count(query)
        found[f"letters: {name}"] = taken.rate(n)
    with Stopwatch() as taken:
        await dlq.list(Query(error_contains="nobody wrote this"))
    found["letters: page of text that is nowhere"] = taken.rate(n)
    for by in ("fingerprint", "type"):
        with Stopwatch() as taken:
            groups = await dlq.groups(by=by)
        if sum(group.count for group in groups) != n:
            raise SystemExit(f"{sum(group.count for group in groups)} letters in groups by {by}")
        found[f"letters: groups by {by}"] = taken.rate(n)
    return found


async def _purge(dlq: DeadLetterQueue, n: int) -> Found:
    before = resident()
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as refs:  # noqa: PTH123
        refs.write("5")  # VmHWM counts from here
    with Stopwatch() as taken:
        purged = await dlq.purge(everything=True)
    if purged.changed != n:
        raise SystemExit(f"{purged.changed} of {n} purged")
    grown = max(0.0, resident("VmHWM") - before) / 1e6
    return {"letters: purge of all": taken.rate(n), "letters: purge of all, memory": Measured(grown)}


def _bare_page(path: str) -> Measured:
    """The rows and last failures of a page, straight from the index."""
    from deadletter.backends._sql import COLUMNS

    rows = (
        f"SELECT n, {', '.join(COLUMNS)} FROM dl_rows INDEXED BY dl_rows_dead"
        " WHERE queue = 1 AND state = 'dead' ORDER BY ended_ms DESC, id DESC LIMIT 50"
    )
    failures = "SELECT f.*, x.text FROM dl_failures AS f JOIN dl_texts AS x ON x.n = f.trace WHERE f.task = ?"
    taken: list[Stopwatch] = []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for _ in range(_LOOKS):
            with Stopwatch() as watch:
                for n, *_ in connection.execute(rows).fetchall():
                    connection.execute(failures, (n,)).fetchall()
            taken.append(watch)
    return Measured(statistics.median(w.wall for w in taken) * 1e3, statistics.median(w.cpu for w in taken) * 1e6)
