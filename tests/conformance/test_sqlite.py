from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from deadletter.backends.sqlite import SQLiteBackend
from deadletter.interfaces import Backend, Clock
from deadletter.testing import BackendConformance, backend_state_machine


class TestSQLite(BackendConformance):
    """On a file, with the durability that users get."""

    @pytest.fixture
    def make_backend(self, tmp_path: Path) -> Callable[[Clock], Backend]:
        return lambda clock: SQLiteBackend(tmp_path / "store.db", clock=clock)

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[Backend, Clock], Backend]:
        return lambda _, clock: SQLiteBackend(tmp_path / "store.db", clock=clock)


FOLDER = TemporaryDirectory(prefix="deadletter-sqlite-")  # goes with the process
NUMBERS = itertools.count()

TestSQLiteMachine = backend_state_machine(
    lambda clock: SQLiteBackend(Path(FOLDER.name) / f"{next(NUMBERS)}.db", clock=clock), examples=40
).TestCase
