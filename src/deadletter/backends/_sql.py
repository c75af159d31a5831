"""What the SQL backends share: statements in files, columns that are the fields of Row, WHERE from Scan, migrations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from operator import attrgetter

import attrs

from ..model.row import DEAD, FailureRow, Row, Scan

COLUMNS = tuple(field.name for field in attrs.fields(Row) if field.name != "history")  # in order; body last
FENCE = COLUMNS[:-1]  # all that the machine looks at
FAILURE = tuple(field.name for field in attrs.fields(FailureRow) if field.name != "traceback")

values_of = attrgetter(*COLUMNS)  # Row → tuple of its columns
fence_of = attrgetter(*FENCE)
failure_values = attrgetter(*FAILURE)

_NARROW = ("type", "priority", "fingerprint", "reason", "error_type", "release")
_NAME = re.compile(r"^-- (\w+) --$", re.MULTILINE)


def load_queries(package: str, file: str = "queries.sql") -> dict[str, str]:
    """Read a file of statements: ``-- name --``, ``-- why --``, statement.

    ``{columns}`` stands for all that a fence reads.

    Raises:
        ValueError: where a name comes twice or a statement has no reason.
    """
    text = files(package).joinpath(file).read_text("utf-8")
    names = list(_NAME.finditer(text))
    found: dict[str, str] = {}
    for at, name in enumerate(names):
        end = names[at + 1].start() if at + 1 < len(names) else len(text)
        why, _, statement = text[name.end() : end].strip().partition("\n")
        if not why.startswith("-- ") or name[1] in found or not statement.strip():
            raise ValueError(f"{file}: {name[1]} wants a line that says why, a statement, and a name of its own")
        found[name[1]] = " ".join(statement.split()).rstrip(";").replace("{columns}", ", ".join(FENCE))
    return found


def load_migrations(package: str) -> list[tuple[int, list[str]]]:
    """Read ``migrations/0001_….sql`` and so on: (number, its statements), in order."""
    found: list[tuple[int, list[str]]] = []
    for file in files(package).joinpath("migrations").iterdir():
        number = re.match(r"(\d{4})_\w+\.sql$", file.name)
        if number is not None:
            lines = [line for line in file.read_text("utf-8").splitlines() if not line.lstrip().startswith("--")]
            statements = [statement.strip() for statement in "\n".join(lines).split(";\n") if statement.strip(" ;\n")]
            found.append((int(number[1]), statements))
    return sorted(found)


def marks(n: int) -> str:
    """``?,?,?``."""
    return ",".join("?" * n)


def time_column(state: str) -> str:
    """The column that a scan of this state sorts by."""
    return "ended_ms" if state == DEAD else "created_ms"


def where(scan: Scan) -> tuple[list[str], list[object]]:
    """The conditions of a scan but state and text, and their parameters in order."""
    time = time_column(scan.state)
    conditions: list[str] = []
    parameters: list[object] = []
    for name in _NARROW:
        value = getattr(scan, name)
        if value is not None:
            conditions.append(f"{name} = ?")
            parameters.append(value)
    for bound, sign in ((scan.since_ms, ">="), (scan.until_ms, "<=")):
        if bound is not None:
            conditions.append(f"{time} {sign} ?")
            parameters.append(bound)
    if scan.after is not None:
        conditions.append(f"({time}, id) {'<' if scan.newest_first else '>'} (?, ?)")
        parameters += scan.after
    return conditions, parameters


def failure_of(values: Sequence[object], traceback: str) -> FailureRow:
    """A FailureRow from its columns and the text that is kept elsewhere."""
    return FailureRow(**dict(zip(FAILURE, values, strict=True)), traceback=traceback)  # type: ignore[arg-type]  # columns as stored
