"""Dead letters by cause, type or reason, from what is counted as they come and go: no letter is read but two of each."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

import attrs

from ...model.row import DEAD, LEAN, Grouped, Row, Scan
from .reads import Q, lean_row, number_of

MOST = 10_000  # causes; where there are more, letters are grouped by reading them
BY = ("fingerprint", "type", "reason")  # each has an index of its own
_UNCOUNTED = ("after", "since_ms", "until_ms", "priority", "error_type", "release", "text")


@attrs.define
class _Sum:
    count: int = 0
    releases: set[str] = attrs.field(factory=set)


def groups(connection: Connection, queue: str, wish: Scan, by: str) -> Sequence[Grouped] | None:
    """See Backend.groups."""
    if by not in BY or wish.state != DEAD or any(getattr(wish, name) is not None for name in _UNCOUNTED):
        return None
    number = number_of(connection, queue)
    if number is None:
        return []
    sums = _sums(connection, number, wish, by)
    if sums is None:
        return None
    found: list[Grouped] = []
    for key, counted in sums.items():
        ends = [_end(connection, number, by, key, order) for order in ("ASC", "DESC")]
        if ends[0] is None or ends[1] is None:
            return None
        found.append(
            Grouped(
                key=key,
                count=counted.count,
                first_ms=ends[0].time_ms,
                newest=ends[1],
                releases=frozenset(counted.releases),
            )
        )
    return found


def _sums(connection: Connection, number: int, wish: Scan, by: str) -> dict[str, _Sum] | None:
    """What is counted of each group that is meant; None where a part of one is, or the counts do not add up."""
    causes = connection.execute(Q["causes"], (number, MOST + 1)).fetchall()
    if len(causes) > MOST or astray(connection, number):
        return None
    at = BY.index(by)
    wanted = [(n, getattr(wish, name)) for n, name in enumerate(BY) if getattr(wish, name) is not None]
    meant: dict[str, _Sum] = {}
    others: set[str] = set()
    for *parts, release, count in causes:
        if all(parts[n] == value for n, value in wanted):
            group = meant.setdefault(parts[at], _Sum())
            group.count += count
            if release:
                group.releases.add(release)
        else:
            others.add(parts[at])
    return None if others & meant.keys() else meant


def astray(connection: Connection, number: int) -> bool:
    """Whether letters came or went that were not counted here: a process of an older version was still at work."""
    return connection.execute(Q["astray_causes"], (number, number)).fetchone() is not None


def recount(connection: Connection) -> None:
    """Count all letters anew in the queues where the counts do not add up; in a transaction of the caller's."""
    for (number,) in connection.execute(Q["queues"]).fetchall():
        if astray(connection, number):
            connection.execute(Q["forget_causes"], (number,))
            connection.execute(Q["count_causes"], (number,))


def any_astray(connection: Connection) -> bool:
    """Whether ``recount`` has something to do."""
    return any(astray(connection, number) for (number,) in connection.execute(Q["queues"]).fetchall())


def _end(connection: Connection, number: int, by: str, key: str, order: str) -> Row | None:
    """A group's letter that died first, or last: the head of an index."""
    query = (
        f"SELECT {', '.join(LEAN)} FROM dl_rows INDEXED BY dl_rows_dead_{by}"  # noqa: S608 - our own names; values are bound
        f" WHERE queue = ? AND state = 'dead' AND {by} IS ? ORDER BY ended_ms {order}, id {order} LIMIT 1"
    )
    rows = [
        lean_row(*values)
        for one in ([key] if key else ["", None])  # what has no cause is counted under the empty one
        for values in connection.execute(query, (number, one)).fetchall()
    ]
    pick = min if order == "ASC" else max
    return pick(rows, key=lambda row: (row.time_ms, row.id), default=None)
