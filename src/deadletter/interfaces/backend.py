"""Where tasks are kept: eleven methods, each one atomic step."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

from ..model.row import (
    BATCH,
    Change,
    Claim,
    Claimed,
    Counted,
    Counts,
    EventRow,
    Grouped,
    Hint,
    Insertion,
    Inspection,
    NewRow,
    Row,
    Scan,
    Slice,
    Verdict,
)

Signals: TypeAlias = AsyncIterator["Hint | EventRow"]


class StoreClient(Protocol):
    """A client that a backend can be made from: one of redis-py, for a server or for a cluster."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, as all of them do; never called."""


class Backend(abc.ABC):
    """A store of rows.

    Every step is atomic, touches at most 100 items, is fenced, and is safe to repeat after a reply that never came. It
    may be called from any event loop in any thread, and keeps what it needs per loop. It raises BackendUnavailable
    where the store cannot be reached; an error means that nothing of the step happened, or that repeating the step is
    safe.

    The store's clock is read once per step. ``deadletter.testing.BackendConformance`` proves an implementation.
    """

    shards: int = 1  # over how many parts a queue is spread: order, and all or nothing, hold within each
    scan_limit: int = BATCH  # the most rows that one scan may ask for; raise it where reads block no writer

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """Where it is, without a password: for messages."""

    @abc.abstractmethod
    async def open(self) -> None:
        """Connect and prepare (migrations included). Called before the first step; safe to repeat and to race."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close what ``open`` opened; never a client that was given. Safe to repeat."""

    @abc.abstractmethod
    async def inspect(self) -> Inspection:
        """Version, clock, durability tier, and what an operator should know."""

    @abc.abstractmethod
    async def insert(self, queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
        """Store new rows, all or nothing: where any verdict is a conflict, no row of the call is stored."""

    @abc.abstractmethod
    async def claim(self, queue: str, claim: Claim) -> Claimed:
        """Lease due rows: PENDING → RUNNING, each with a token of its own."""

    @abc.abstractmethod
    async def apply(self, queue: str, changes: Sequence[Change]) -> list[Verdict]:
        """Apply changes in order, each on its own: row, indexes, key, history, tally, counters and event together."""

    @abc.abstractmethod
    async def sweep(self, queue: str, limit: int) -> list[Row]:
        """Forget ended rows past their keep (and count them).

        Answer rows whose lease lapsed or that expired, with body.
        """

    @abc.abstractmethod
    async def load(self, queue: str, ids: Sequence[str], *, history: int = 1) -> list[Row | None]:
        """The rows with these ids (≤ 100), in order; tombstones too.

        ``history``: 0 brings nothing, 1 the last failure, 20 all, the notes of edits among them.
        """

    @abc.abstractmethod
    async def scan(self, queue: str, scan: Scan) -> Slice:
        """One page of rows in one state."""

    async def count(self, queue: str, scan: Scan, most: int) -> Counted | None:
        """How many rows match all narrowing fields of ``scan``, of which ``text`` and ``after`` are never set.

        At most ``most`` rows are looked at, so that it never takes long; an index that knows without may tell of more.
        None where the store cannot tell without handing them out; then the caller scans.
        """
        del queue, scan, most
        return None

    async def groups(self, queue: str, scan: Scan, by: str) -> Sequence[Grouped] | None:
        """The dead letters that match all narrowing fields of ``scan``, by a column.

        ``text`` and ``after`` are never set. None where the store cannot tell without handing the letters out; then
        the caller scans.
        """
        del queue, scan, by
        return None

    @abc.abstractmethod
    async def counts(self, queue: str) -> Counts:
        """The tally and the lifetime counters."""

    @abc.abstractmethod
    def listen(self, queue: str, after: int | None = None) -> AbstractAsyncContextManager[Signals]:
        """What happens, as it happens.

        Yields a Hint when work may have become due, and every stored event after seq ``after`` (None: those from now
        on). Hints may be lost. Events are kept in bounded number: where some are gone, the next
        one says how many by ``missed``. Where a store came back with another history (a failover took its last events
        along), a row of kind ``gap`` says so, with the seq from which it goes on and at least how many by ``missed``.

        A store that goes away may end it by BackendUnavailable, or be waited for: then a Hint tells that it is back.
        """
