"""The backends that ``throughput.py`` knows: a new one is an entry in ``STORES``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs


@attrs.frozen
class Store:
    """A backend to measure.

    Attributes:
        url: of a fresh store; gets an empty folder.
        shared: whether other processes see it, so that a worker can be killed and a letter outlive its process.
        size: bytes that the store takes, where it is not in this process.
    """

    url: Callable[[str], str]
    shared: bool = True
    size: Callable[[str], int] | None = None


def _file_bytes(folder: str) -> int:
    import sqlite3

    with sqlite3.connect(f"{folder}/queue.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(folder, "queue.db").stat().st_size


STORES = {
    "memory": Store(url=lambda folder: "memory://", shared=False),
    "sqlite": Store(url=lambda folder: f"sqlite:///{folder}/queue.db", size=_file_bytes),
}
