"""Statements that bind only what sqlite3 binds quickly.

Python's sqlite3 looks for an adapter for each None, bool, bytes and enum that it binds, 0.5 µs apiece: as long as
writing the row. So a statement says NULL itself, and the others are converted first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from operator import is_not
from sqlite3 import Connection
from typing import Any, TypeAlias

import attrs

from ...model.row import Row
from .._sql import COLUMNS, marks, values_of

_POSITIONS = range(len(COLUMNS))
_TAKE = (
    "UPDATE dl_rows SET state = 'running', token = ? || '-' || id, op = ?, started = ?, alone = ?, lease_ms = ?,"
    " keep_ms = ?, owner = ? WHERE n = ?"
)
_Kinds: TypeAlias = tuple[type, ...]


@attrs.define(eq=False)
class Held:
    """A row in the hands of the machine, beside what is stored."""

    n: int
    row: Row
    stored: tuple[object, ...]


@attrs.frozen(eq=False)
class _Plan:
    sql: str
    bound: list[bool]  # which of the values are bound
    fixes: list[tuple[int, Callable[[Any], object]]]  # position among those bound → conversion


def _plan(kinds: _Kinds) -> tuple[list[bool], list[tuple[int, Callable[[Any], object]]]]:
    bound = [kind is not type(None) for kind in kinds]
    fixes: list[tuple[int, Callable[[Any], object]]] = []
    for at, kind in enumerate(kind for kind in kinds if kind is not type(None)):
        if kind is bytes:
            fixes.append((at, bytearray))
        elif kind is not int and kind is not str:
            fixes.append((at, str if issubclass(kind, str) else int))
    return bound, fixes


@lru_cache(512)
def _inserting(kinds: _Kinds) -> _Plan:
    bound, fixes = _plan(kinds)
    names = list(compress(COLUMNS, bound))
    sql = f"INSERT INTO dl_rows (queue, {', '.join(names)}) VALUES (?{', ?' * len(names)})"  # noqa: S608 - names of our own columns
    return _Plan(sql, bound, fixes)


@lru_cache(256)
def _changed(differs: bytes) -> tuple[int, ...]:
    return tuple(compress(_POSITIONS, differs))


@lru_cache(1024)
def _updating(changed: tuple[int, ...], kinds: _Kinds) -> _Plan:
    bound, fixes = _plan(kinds)
    sets = ", ".join(f"{COLUMNS[at]} = {'?' if filled else 'NULL'}" for at, filled in zip(changed, bound, strict=True))
    return _Plan(f"UPDATE dl_rows SET {sets} WHERE n = ?", bound, fixes)  # noqa: S608 - names of our own columns


def insert_rows(connection: Connection, queue: int, rows: Iterable[Row]) -> None:
    """Insert rows; those with the same columns filled share a statement."""
    groups: dict[_Kinds, list[list[object]]] = {}
    for row in rows:
        values = values_of(row)
        kinds = tuple(map(type, values))
        plan = _inserting(kinds)
        parameters = [queue, *compress(values, plan.bound)]
        for at, fix in plan.fixes:
            parameters[at + 1] = fix(parameters[at + 1])
        groups.setdefault(kinds, []).append(parameters)
    for kinds, parameters_of in groups.items():
        connection.executemany(_inserting(kinds).sql, parameters_of)


def update_rows(connection: Connection, touched: Iterable[Held]) -> None:
    """Write the columns that changed: one statement for all rows that become alike, as those of a batch mostly do."""
    alike: dict[tuple[tuple[int, ...], tuple[object, ...]], list[int]] = {}
    for held in touched:
        values = values_of(held.row)
        differs = bytes(map(is_not, held.stored, values))
        changed = _changed(differs)
        if changed:
            held.stored = values
            alike.setdefault((changed, tuple(compress(values, differs))), []).append(held.n)
    groups: dict[str, list[list[object]]] = {}
    for (changed, fresh), numbers in alike.items():
        plan = _updating(changed, tuple(map(type, fresh)))
        parameters = list(compress(fresh, plan.bound))
        for at, fix in plan.fixes:
            parameters[at] = fix(parameters[at])
        if len(numbers) == 1:
            groups.setdefault(plan.sql, []).append([*parameters, numbers[0]])
        else:
            _update_alike(connection, plan.sql, parameters, numbers)
    for sql, parameters_of in groups.items():
        connection.executemany(sql, parameters_of)


def update_taken(connection: Connection, taken: Mapping[int, Row]) -> None:
    """Write what ``machine.take`` has just changed in rows of one claim, by number."""
    alike: dict[tuple[bool, bool], list[int]] = {}
    for number, row in taken.items():
        alike.setdefault((row.started, row.alone), []).append(number)
    for part in alike.values():
        row = taken[part[0]]
        same = [row.op, row.op, int(row.started), int(row.alone), row.lease_ms, row.keep_ms, row.owner]
        _update_alike(connection, _TAKE, same, part)


def _update_alike(connection: Connection, sql: str, parameters: Sequence[object], numbers: list[int]) -> None:
    connection.execute(f"{sql.removesuffix(' = ?')} IN ({marks(len(numbers))})", (*parameters, *numbers))
