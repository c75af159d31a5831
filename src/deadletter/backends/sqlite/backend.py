"""The eleven methods on one SQLite file."""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from sqlite3 import Connection
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, quote, unquote

import attrs

from ...interfaces.backend import Backend, Signals
from ...interfaces.clock import SystemClock
from ...model.errors import InvalidSetting
from ...model.row import (
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
from ...runtime.loops import Bell
from . import causes, reads
from .bells import Doorbell, Listener
from .file import MEMORY, StoreFile
from .inspection import inspect
from .lanes import ABANDONED, Inline, ReadLane, Thread, WriteLane, opened
from .step import Step

if TYPE_CHECKING:
    from ...interfaces import Clock

T = TypeVar("T")

_SYNCHRONOUS = ("FULL", "NORMAL", "EXTRA")
_EVENTS = 1_000  # read at once


class SQLiteBackend(Backend):
    """Keeps tasks in one file; any number of processes on one machine may share it.

    May be used from several event loops and threads at once: one thread writes, and groups what waits into one commit;
    another reads. A forked child opens the file anew.

    Args:
        path: the file, made (for its owner alone) where it is missing; ``:memory:`` is a store of this object's own.
        clock: where "now" comes from.
        synchronous: FULL and EXTRA survive power loss on a local disk, NORMAL only the end of the process.
        create: whether a missing file is made.
    """

    scan_limit = 500

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        synchronous: str = "FULL",
        create: bool = True,
        inline: bool = False,
    ) -> None:
        if synchronous.upper() not in _SYNCHRONOUS:
            raise InvalidSetting("synchronous", f"{synchronous!r} is none of {', '.join(_SYNCHRONOUS)}")
        self._clock = clock or SystemClock()
        self._file = StoreFile(path, synchronous=synchronous.upper(), create=create)
        self._doorbell = None if inline or self._file.in_memory else Doorbell(self._file.path)
        self._ears: list[_Ear] = []
        self._listener: Listener | None = None
        self._found = reads.Found()
        self._writer = WriteLane(self._file, self._clock.now_ms, self._ring)
        self._reader = None if self._file.in_memory or inline else ReadLane(self._file)
        self._write: Inline | Thread = (
            Inline(self._writer, self.url) if inline else Thread("write", self._writer, self.url)
        )
        self._read = Thread("read", self._reader, self.url) if self._reader is not None else None
        _at_fork(self)

    @classmethod
    def from_url(cls, url: str, *, clock: Clock | None = None) -> SQLiteBackend:
        """``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``sqlite:///:memory:``.

        Options: ``create=0`` refuses a missing file, ``synchronous``.

        Raises:
            InvalidSetting: without a path, or for an option that it does not know.
        """
        rest, _, query = url.partition("://")[2].partition("?")
        if not rest.startswith("/") or rest == "/":
            raise InvalidSetting(
                "url", f'{url!r} names no file; write it like "sqlite:///path.db" or "sqlite:////abs/path.db"'
            )
        options = dict(parse_qsl(query, keep_blank_values=True))
        create = options.pop("create", "1")
        synchronous = options.pop("synchronous", "FULL")
        if options:
            raise InvalidSetting(
                "url", f"unknown option {', '.join(sorted(options))}; sqlite:// knows create, synchronous"
            )
        if create not in ("0", "1"):
            raise InvalidSetting("url", f"create={create} means nothing; write create=0 or create=1")
        return cls(unquote(rest[1:]), clock=clock, synchronous=synchronous, create=create == "1")

    @property
    def url(self) -> str:
        """With the absolute path."""
        return f"sqlite:///{MEMORY if self._file.in_memory else quote(self._file.path)}"

    async def open(self) -> None:
        """Make the file and bring it up to date."""
        await self._write.call(opened)

    async def aclose(self) -> None:
        """Close the connections and end the threads; afterwards every call raises BackendUnavailable."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
        if self._read is not None:
            await self._read.close()
        await self._write.close()

    async def inspect(self) -> Inspection:
        """Say what survives what, and what an operator should know of the file."""
        return await self._reading(lambda connection: inspect(connection, self._file, self._clock.now_ms()))

    async def insert(self, queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
        """See Backend.insert."""
        return await self._writing(lambda step: step.insert(queue, rows), len(rows))

    async def claim(self, queue: str, claim: Claim) -> Claimed:
        """See Backend.claim."""
        return await self._writing(lambda step: step.claim(queue, claim), claim.limit)

    async def apply(self, queue: str, changes: Sequence[Change]) -> list[Verdict]:
        """See Backend.apply."""
        return await self._writing(lambda step: step.apply(queue, changes), len(changes))

    async def sweep(self, queue: str, limit: int) -> list[Row]:
        """See Backend.sweep."""
        return await self._writing(lambda step: step.sweep(queue, limit), limit)

    async def load(self, queue: str, ids: Sequence[str], *, history: int = 1) -> list[Row | None]:
        """See Backend.load."""
        return await self._reading(lambda connection: reads.load(connection, queue, ids, history))

    async def scan(self, queue: str, scan: Scan) -> Slice:
        """See Backend.scan."""
        return await self._reading(
            lambda connection: reads.scan(connection, queue, scan, self._clock.now_ms(), self._found)
        )

    async def count(self, queue: str, scan: Scan, most: int) -> Counted:
        """See Backend.count."""
        return await self._reading(lambda connection: reads.count(connection, queue, scan, most))

    async def groups(self, queue: str, scan: Scan, by: str) -> Sequence[Grouped] | None:
        """See Backend.groups."""
        return await self._reading(lambda connection: causes.groups(connection, queue, scan, by))

    async def counts(self, queue: str) -> Counts:
        """See Backend.counts."""
        return await self._reading(lambda connection: reads.counts(connection, queue, self._clock.now_ms()))

    @asynccontextmanager
    async def listen(self, queue: str, after: int | None = None) -> AsyncIterator[Signals]:
        """See Backend.listen."""
        ear = _Ear(queue, Bell())
        self._ears.append(ear)
        try:
            # Asked of the writer, whose line is in order: what is stored after this call began is told.
            newest = await self._write.call(lambda step: reads.last_event(step.connection, queue))
            if self._doorbell is not None and self._listener is None:
                self._listener = Listener(self._doorbell, self._file.reader, self._heard)
            after = newest if after is None else after
            async with aclosing(self._signals(ear, after)) as signals:
                yield signals
        finally:
            if ear in self._ears:  # a forked child has none of its parent's
                self._ears.remove(ear)
            if not self._ears and self._listener is not None:
                listener, self._listener = self._listener, None
                listener.stop()

    async def _signals(self, ear: _Ear, seq: int) -> AsyncGenerator[Hint | EventRow, None]:
        while True:
            while ear.told:
                rumour, ear.told, ear.rumour = ear.rumour, False, False
                fresh, waits = await self._reading(
                    lambda connection, seq=seq, rumour=rumour: (  # type: ignore[misc]
                        reads.events(connection, ear.queue, seq, _EVENTS),
                        # A claim locks the whole file, so a rumour is looked into before anybody claims because of it.
                        rumour and reads.waits(connection, ear.queue),
                    )
                )
                ear.told = ear.told or len(fresh) == _EVENTS
                ear.work = ear.work or waits
                for event in fresh:
                    before, seq = seq, event.seq
                    yield event.following(before)
            if ear.work:
                ear.work = False
                yield Hint()
            await ear.bell.wait()

    async def _writing(self, work: Callable[[Step], T], rows: int) -> T:
        return await self._write.call(work, rows)

    async def _reading(self, work: Callable[[Connection], T]) -> T:
        if self._read is not None:
            return await self._read.call(work)
        return await self._write.call(lambda step: work(step.connection))

    def _ring(self, rings: dict[str, tuple[bool, bool]]) -> None:
        """After a commit, in the thread that made it."""
        for ear in list(self._ears):
            if ear.queue in rings:
                told, work = rings[ear.queue]
                ear.told, ear.work = ear.told or told, ear.work or work
                ear.bell.ring()
        if self._doorbell is not None:
            self._doorbell.ring()

    def _heard(self) -> None:
        """Another process committed something."""
        for ear in list(self._ears):
            ear.told = ear.rumour = True
            ear.bell.ring()

    def _forked(self) -> None:
        """Begin anew in a forked child: its parent's threads and connections are not its own."""
        ABANDONED.append(self._listener)
        self._listener = None
        self._ears = []
        self._writer.abandon()
        self._write.forked()
        if self._doorbell is not None:
            self._doorbell = Doorbell(self._file.path)
        if self._reader is not None and self._read is not None:
            self._reader.abandon()
            self._read.forked()


@attrs.define(eq=False)
class _Ear:
    """One listener of this process."""

    queue: str
    bell: Bell
    told: bool = True  # events may be stored that it has not seen
    work: bool = False  # a row became pending since its last hint
    rumour: bool = False  # another process committed something, perhaps of another queue


def _at_fork(backend: SQLiteBackend) -> None:
    if not hasattr(os, "register_at_fork"):
        return
    known = weakref.ref(backend)

    def forked() -> None:
        alive = known()
        if alive is not None:
            alive._forked()  # noqa: SLF001 - its own

    os.register_at_fork(after_in_child=forked)
