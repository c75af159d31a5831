"""What is only read: rows with their failures, pages, counts, events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from sqlite3 import Connection
from typing import Any

import attrs
import orjson

from ...model.record import State
from ...model.row import DEAD, LEAN, PENDING, RUNNING, SUCCEEDED, Counted, Counts, EventRow, Row, Scan, Slice
from .._sql import FENCE, failure_of, load_queries, marks, time_column, where

Q = load_queries(__package__ or "")

OVERDUE_MS = 60_000
OVERDUE = 10_000  # counted up to here
TEXTS = 20_000  # of tracebacks that a search reads before it looks at letters
WALK = 20_000  # rows that one scan looks at where an index does not answer
_PART = 500  # names of one statement

_DEAD_INDEXES = ("fingerprint", "type", "reason", "priority")  # the first that a scan names, from rare to common
_INDEXES = {PENDING: "dl_rows_waiting", RUNNING: "dl_rows_running", SUCCEEDED: "dl_rows_done", DEAD: "dl_rows_dead"}


def fetch(connection: Connection, query: str, head: tuple[object, ...], names: Sequence[object]) -> Iterator[Any]:
    """Run a query for many ids or numbers, in parts."""
    for at in range(0, len(names), _PART):
        part = names[at : at + _PART]
        yield from connection.execute(query.replace("{marks}", marks(len(part))), (*head, *part)).fetchall()


def with_last_failure(connection: Connection, rows: dict[int, Row]) -> None:
    """Bring each row's last failure; ``rows`` by number."""
    failed = [n for n, row in rows.items() if row.error_type is not None]
    if failed:
        found = connection.execute(Q["last_failures"], (orjson.dumps(failed).decode(),)).fetchall()
        _attach(connection, rows, found)


def _with_history(connection: Connection, rows: dict[int, Row], history: int) -> None:
    if history == 1:
        with_last_failure(connection, rows)
    elif history > 1:
        # a replay may leave a note where there is no failure
        told = [n for n, row in rows.items() if row.error_type is not None or row.replays > 0]
        _attach(connection, rows, fetch(connection, Q["all_failures"], (), told))
        for row in rows.values():
            del row.history[:-history]


def _attach(connection: Connection, rows: dict[int, Row], failures: Iterable[Any]) -> None:
    found = list(failures)
    wanted = list({trace: None for _, trace, *_ in found if trace is not None})
    texts: dict[int | None, str] = dict(fetch(connection, Q["texts"], (), wanted))
    for task, trace, *values in found:
        rows[task].history.append(failure_of(values, texts.get(trace, "")))


def number_of(connection: Connection, queue: str) -> int | None:
    """The queue's number, where anything was ever written to it."""
    found = connection.execute(Q["queue"], (queue,)).fetchone()
    return found[0] if found is not None else None


def load(connection: Connection, queue: str, ids: Sequence[str], history: int) -> list[Row | None]:
    """See Backend.load."""
    number = number_of(connection, queue)
    if number is None:
        return [None] * len(ids)
    names = list(dict.fromkeys(ids))
    rows = {values[0]: Row(*values[1:]) for values in fetch(connection, Q["whole_by_id"], (number,), names)}
    _with_history(connection, rows, history)
    by_id = {row.id: row for row in rows.values()}
    return [by_id.get(id_) for id_ in ids]


@attrs.define
class Found:
    """Which traceback texts hold the text that was last searched for: each text is read once, over all pages.

    Of the first ``TEXTS`` that is so. A queue with more has hardly two letters with the same one: those are read with
    the letters that a step looks at, so that no step takes long.

    Attributes:
        upto: texts with a number beyond it were not read yet.
        traces: the numbers of those that hold it.
    """

    queue: str = ""
    text: str = ""
    upto: int = 0
    read: int = 0
    traces: list[int] = attrs.field(factory=list)

    def search(self, connection: Connection, queue: str, number: int, text: str) -> None:
        """Read texts that are new since the last step."""
        if (self.queue, self.text) != (queue, text):
            self.queue, self.text, self.upto, self.read, self.traces = queue, text, 0, 0, []
        if self.read < TEXTS:
            judged = connection.execute(Q["judged_texts"], (text, self.upto, number, TEXTS - self.read)).fetchall()
            self.traces += [n for n, held in judged if held]
            self.read += len(judged)
            self.upto = judged[-1][0] if judged else self.upto


def holds(text: str, wanted: str) -> bool:
    """Whether a text holds a casefolded one; registered as an SQL function."""
    return wanted in text.casefold()


def scan(connection: Connection, queue: str, wish: Scan, now_ms: int, found: Found) -> Slice:
    """See Backend.scan."""
    number = number_of(connection, queue)
    if number is None:
        return Slice(rows=[], after=None, now_ms=now_ms)
    index = _index(wish)
    conditions, parameters = where(wish)
    conditions = ["queue = ?", f"state = '{wish.state}'", *conditions]
    parameters = [number, *parameters]
    time = time_column(wish.state)
    order = f"ORDER BY {time} {'DESC' if wish.newest_first else 'ASC'}, id {'DESC' if wish.newest_first else 'ASC'}"
    edge = _edge(connection, wish, index, number, order)
    if edge is not None:
        conditions.append(f"({time}, id) {'>=' if wish.newest_first else '<='} (?, ?)")
        parameters += edge
    if wish.text is not None:
        conditions.append(
            "EXISTS (SELECT 1 FROM dl_failures WHERE task = dl_rows.n AND"
            " (trace IN (SELECT value FROM json_each(?)) OR holds(error_type || char(10) || message, ?)"
            " OR trace > ? AND holds((SELECT text FROM dl_texts WHERE n = trace), ?)))"
        )
        text = wish.text.casefold()
        found.search(connection, queue, number, text)
        parameters += [orjson.dumps(found.traces).decode(), text, found.upto, text]
    columns = ", ".join([*(LEAN if wish.lean else FENCE), *(["body"] if wish.body else [])])
    query = f"SELECT n, {columns} FROM dl_rows INDEXED BY {index} WHERE {' AND '.join(conditions)} {order} LIMIT ?"  # noqa: S608 - our own names; values are bound
    make = lean_row if wish.lean else Row
    rows = {
        values[0]: make(*values[1:]) for values in connection.execute(query, (*parameters, wish.limit + 1)).fetchall()
    }
    more = len(rows) > wish.limit
    if more:
        rows.popitem()
    _with_history(connection, rows, wish.history)
    page = list(rows.values())
    after = (page[-1].time_ms, page[-1].id) if more else edge
    return Slice(rows=page, after=after, now_ms=now_ms)


def lean_row(
    id_: str,
    type_: str,
    priority: int,
    state: str,
    created_ms: int,
    ended_ms: int | None,
    reason: str | None,
    fingerprint: str | None,
    error_type: str | None,
    worker: str | None,
    release: str | None,
    format_: int,
    body: bytes | None = None,
) -> Row:
    """A row of LEAN columns: reading all of them costs as much as all that is done with a row afterwards."""
    row = Row(id_, type_, priority, state, created_ms=created_ms, ended_ms=ended_ms, body=body)
    row.reason, row.fingerprint, row.error_type = reason, fingerprint, error_type
    row.worker, row.release, row.format = worker, release, format_
    return row


def count(connection: Connection, queue: str, wish: Scan, most: int) -> Counted:
    """See Backend.count."""
    number = number_of(connection, queue)
    if number is None:
        return Counted(0, True)
    index = _index(wish)
    lead = index.removeprefix("dl_rows_dead_")
    led = Scan(state=wish.state, since_ms=wish.since_ms, until_ms=wish.until_ms)
    rest = attrs.evolve(wish, since_ms=None, until_ms=None, after=None)
    if lead != index:
        found: dict[str, Any] = {lead: getattr(wish, lead)}
        left: dict[str, Any] = {lead: None}
        led, rest = attrs.evolve(led, **found), attrs.evolve(rest, **left)
    inner, walked = where(led)
    inner = ["queue = ?", f"state = '{wish.state}'", *inner]
    outer, wanted = where(rest)
    columns = ", ".join(["1", *(condition.removesuffix(" = ?") for condition in outer)])
    query = (
        f"SELECT count(*), coalesce(sum({' AND '.join(outer) or '1'}), 0)"  # noqa: S608 - our own names; values are bound
        f" FROM (SELECT {columns} FROM dl_rows INDEXED BY {index}"
        f" WHERE {' AND '.join(inner)} LIMIT ?)"
    )
    looked, matched = connection.execute(query, (*wanted, number, *walked, most)).fetchone()
    return Counted(matched, looked < most)


def _index(wish: Scan) -> str:
    if wish.state == DEAD:
        for name in _DEAD_INDEXES:
            if getattr(wish, name) is not None:
                return f"dl_rows_dead_{name}"
    return _INDEXES[State(wish.state)]


def _edge(connection: Connection, wish: Scan, index: str, number: int, order: str) -> tuple[int, str] | None:
    """Where a scan that an index cannot narrow stops for this time, so that no step reads for long."""
    lead = index.removeprefix("dl_rows_dead_") if index.startswith("dl_rows_dead_") else None
    narrowing = {"type", "priority", "fingerprint", "reason", "error_type", "release", "text"} - {lead}
    if wish.state == RUNNING or all(getattr(wish, name) is None for name in narrowing):
        return None
    bare = Scan(
        state=wish.state,
        newest_first=wish.newest_first,
        after=wish.after,
        since_ms=wish.since_ms,
        until_ms=wish.until_ms,
    )
    conditions, parameters = where(bare if lead is None else attrs.evolve(bare, **{lead: getattr(wish, lead)}))
    conditions = ["queue = ?", f"state = '{wish.state}'", *conditions]
    query = (
        f"SELECT {time_column(wish.state)}, id FROM dl_rows INDEXED BY {index}"  # noqa: S608 - our own names; values are bound
        f" WHERE {' AND '.join(conditions)} {order} LIMIT 1 OFFSET ?"
    )
    found: tuple[int, str] | None = connection.execute(query, (number, *parameters, WALK - 1)).fetchone()
    return found


def counts(connection: Connection, queue: str, now_ms: int) -> Counts:
    """See Backend.counts."""
    number = number_of(connection, queue)
    if number is None:
        return Counts(tally={}, lifetime={}, oldest_pending_ms=None, oldest_dead_ms=None, overdue={}, now_ms=now_ms)
    tally = {
        (state, rank, type_, reason): n
        for state, rank, type_, reason, n in connection.execute(Q["tally"], (number,)).fetchall()
    }
    lifetime = {
        (name, type_, detail): n for name, type_, detail, n in connection.execute(Q["counters"], (number,)).fetchall()
    }
    overdue: dict[str, int] = {}
    for rank, type_ in {(rank, type_): None for state, rank, type_, _ in tally if state == PENDING}:
        parameters = (number, rank, type_, now_ms - OVERDUE_MS, OVERDUE)
        n = connection.execute(Q["overdue"], parameters).fetchone()[0]
        if n:
            overdue[type_] = min(overdue.get(type_, 0) + n, OVERDUE)
    return Counts(
        tally=tally,
        lifetime=lifetime,
        oldest_pending_ms=connection.execute(Q["oldest_pending"], (number,)).fetchone()[0],
        oldest_dead_ms=connection.execute(Q["oldest_dead"], (number,)).fetchone()[0],
        overdue=overdue,
        now_ms=now_ms,
    )


def last_event(connection: Connection, queue: str) -> int:
    """The seq of the newest stored event, 0 where there is none."""
    return int(connection.execute(Q["last_event"], (number_of(connection, queue),)).fetchone()[0])


def waits(connection: Connection, queue: str) -> bool:
    """Whether anything is pending."""
    return bool(connection.execute(Q["waits"], (number_of(connection, queue),)).fetchone()[0])


def events(connection: Connection, queue: str, after: int, limit: int) -> list[EventRow]:
    """Stored events after a seq, oldest first."""
    found = connection.execute(Q["events"], (number_of(connection, queue), after, limit)).fetchall()
    return [
        EventRow(seq, kind, at_ms, task_id, type_, count, orjson.loads(detail))
        for seq, kind, at_ms, task_id, type_, count, detail in found
    ]
