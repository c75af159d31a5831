"""Failures, and the traceback texts that they share: each distinct text once per queue, with a count of its uses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from sqlite3 import Connection

from ...model.row import FailureRow
from ...rules.machine import HISTORY
from .._sql import failure_values, marks
from .reads import Q


@lru_cache(128)
def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Traces:
    """What one step does to failures; written by ``flush``, with texts counted once."""

    def __init__(self, connection: Connection, queue: int | None) -> None:
        self._connection = connection
        self._queue = queue
        self._fresh: list[tuple[int | None, FailureRow]] = []
        self._wiped: set[int | None] = set()
        self._uses: dict[int, int] = {}
        self._numbers: dict[str, int] = {}

    def add(self, failures: Sequence[tuple[int | None, FailureRow]]) -> None:
        """Append failures to the rows with these numbers."""
        self._fresh += failures

    def wipe(self, numbers: Sequence[int]) -> None:
        """Take all failures of these rows away, the ones just added too."""
        self._wiped.update(numbers)
        if self._fresh:
            self._fresh = [(n, failure) for n, failure in self._fresh if n not in self._wiped]

    def flush(self) -> None:
        """Write it all."""
        if self._wiped:
            self._wipe()
        if self._fresh:
            self._append()
        if self._uses:
            self._connection.executemany(Q["use_trace"], [(n, trace) for trace, n in self._uses.items()])
            unused = [(trace,) for trace, n in self._uses.items() if n < 0]
            if unused:
                self._connection.executemany(Q["drop_texts"], unused)
                self._connection.executemany(Q["drop_traces"], unused)
            self._uses = {}

    def _append(self) -> None:
        rows = [
            (n, self._number(failure.traceback) if failure.traceback else None, *failure_values(failure))
            for n, failure in self._fresh
        ]
        self._connection.executemany(Q["add_failure"], rows)
        numbers = list({n: None for n, _ in self._fresh})
        self._fresh = []
        query = Q["surplus_failures"].replace("{marks}", marks(len(numbers)))
        surplus = self._connection.execute(query, (*numbers, HISTORY)).fetchall()
        if surplus:
            self._connection.executemany(Q["delete_failure"], [(task, seq) for task, seq, _ in surplus])
            for _, _, trace in surplus:
                if trace is not None:
                    self._uses[trace] = self._uses.get(trace, 0) - 1

    def _wipe(self) -> None:
        numbers = list(self._wiped)
        self._wiped = set()
        query = Q["wiped_traces"].replace("{marks}", marks(len(numbers)))
        for trace, n in self._connection.execute(query, numbers).fetchall():
            self._uses[trace] = self._uses.get(trace, 0) - n
        self._connection.execute(Q["wipe_failures"].replace("{marks}", marks(len(numbers))), numbers)

    def _number(self, text: str) -> int:
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = self._stored(text)
        self._uses[number] = self._uses.get(number, 0) + 1
        return number

    def _stored(self, text: str) -> int:
        hash_ = _hash(text)
        found = self._connection.execute(Q["trace"], (self._queue, hash_)).fetchone()
        if found is not None:
            return int(found[0])
        number = int(self._connection.execute(Q["add_trace"], (self._queue, hash_)).fetchall()[0][0])
        self._connection.execute(Q["add_text"], (number, text))
        return number
