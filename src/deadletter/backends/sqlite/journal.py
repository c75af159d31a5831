"""What a step changes beside its rows: tally, causes, lifetime counters, events."""

from __future__ import annotations

from sqlite3 import Connection

import orjson

from ...model.row import EventRow
from ...rules.machine import Journal
from .reads import Q

EVENTS = 10_000  # kept per queue
_TRIM = 500  # events between two trims


def record(connection: Connection, queue: int | None, journal: Journal) -> None:
    """Store what the journal holds; one upsert per distinct key."""
    tally = [(queue, *key, n) for key, n in journal.tally.items() if n]
    if tally:
        connection.executemany(Q["add_tally"], tally)
    causes = [(queue, *key, n) for key, n in journal.causes.items() if n]
    if causes:
        connection.executemany(Q["add_cause"], causes)
    if journal.lifetime:
        connection.executemany(Q["add_counter"], [(queue, *name, n) for name, n in journal.lifetime.items()])
    if journal.events:
        _tell(connection, queue, journal.events)


def _tell(connection: Connection, queue: int | None, events: list[EventRow]) -> None:
    seq: int = connection.execute(Q["last_event"], (queue,)).fetchone()[0]
    rows = [
        (
            queue,
            at,
            event.kind,
            event.at_ms,
            event.task_id,
            event.type,
            event.count,
            orjson.dumps(event.detail).decode(),
        )
        for at, event in enumerate(events, seq + 1)
    ]
    connection.executemany(Q["add_event"], rows)
    last = seq + len(events)
    if last // _TRIM != seq // _TRIM:
        connection.execute(Q["trim_events"], (queue, last - EVENTS))
