"""How every benchmark here shows what it measured: a table on stdout, and JSON where ``--json FILE`` asks for it."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def median_of(runs: int, measure: Callable[[], float]) -> tuple[float, float, float]:
    """Median, least and most of several runs."""
    values = sorted(measure() for _ in range(runs))
    return statistics.median(values), values[0], values[-1]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "load": os.getloadavg()[0],
    }


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(name)) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def report(title: str, rows: Sequence[Row], json_file: str | None) -> None:
    """Print the rows as a Markdown table; write them with the machine to ``json_file``."""
    print(f"\n{title}\n\n{markdown(rows)}")
    if json_file is not None:
        document = {"title": title, "machine": machine(), "rows": list(rows)}
        Path(json_file).write_text(json.dumps(document, indent=2) + "\n")
