"""Tasks in this process's memory: for tests, and the simplest reading of what every backend does."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import anyio.lowlevel

from ..interfaces.backend import Backend, Signals
from ..interfaces.clock import SystemClock
from ..model.row import (
    BATCH,
    DEAD,
    Change,
    Claim,
    Claimed,
    Counted,
    Counts,
    EventRow,
    Finding,
    Hint,
    Insertion,
    Inspection,
    NewRow,
    Row,
    Scan,
    Slice,
    Verdict,
)
from ..rules import machine
from ..runtime.loops import Bell
from ._shelf import Shelf, copy_of

if TYPE_CHECKING:
    from ..interfaces import Clock


class MemoryBackend(Backend):
    """Keeps everything in dictionaries under one lock; nothing survives the process.

    Two backends never share tasks. May be used from several event loops and threads at once.
    """

    scan_limit = 500

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._queues: dict[str, Shelf] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_url(cls, url: str, *, clock: Clock | None = None) -> MemoryBackend:
        """A new, empty store; what follows ``memory://`` means nothing."""
        del url
        return cls(clock=clock)

    @property
    def url(self) -> str:
        """``memory://``."""
        return "memory://"

    async def open(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to do: tasks stay as long as the object."""

    async def inspect(self) -> Inspection:
        """Say that nothing lasts."""
        note = Finding(level="warning", text="memory: nothing survives this process; meant for tests")
        with self._lock:
            queues = sorted(self._queues)
        return Inspection(
            backend="memory",
            version="",
            now_ms=self._clock.now_ms(),
            durability="none: memory only",
            findings=[note],
            queues=queues,
        )

    async def insert(self, queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
        """See Backend.insert."""
        with self._step(queue) as q:
            found = [q.rows[new.id] for new in rows if new.id in q.rows]
            held = {new.key: q.rows[q.keys[new.key]] for new in rows if new.key is not None and new.key in q.keys}
            journal = machine.Journal()
            admission = machine.admit(rows, {row.id: row for row in found}, held, self._clock.now_ms(), journal)
            for row in admission.forgotten:
                q.drop(row)
            for row in admission.stored:
                q.put(row)
            q.record(journal)
        await anyio.lowlevel.checkpoint()
        return admission.insertions

    async def claim(self, queue: str, claim: Claim) -> Claimed:
        """See Backend.claim."""
        with self._step(queue) as q:
            answer = q.claim(claim, self._clock.now_ms())
        await anyio.lowlevel.checkpoint()
        return answer

    async def apply(self, queue: str, changes: Sequence[Change]) -> list[Verdict]:
        """See Backend.apply."""
        with self._step(queue) as q:
            now_ms = self._clock.now_ms()
            journal = machine.Journal()
            verdicts = []
            for change in changes:
                row = q.rows.get(change.id)
                was, key = (row.state, row.key) if row is not None else ("", None)
                verdict = machine.apply(row, change, now_ms, journal)
                if verdict is Verdict.DONE and row is not None:
                    if key is not None and row.key is None:
                        del q.keys[key]
                    if was == DEAD:
                        q.dead.remove_later()
                    q.index(row)
                verdicts.append(verdict)
            q.record(journal)
        await anyio.lowlevel.checkpoint()
        return verdicts

    async def sweep(self, queue: str, limit: int) -> list[Row]:
        """See Backend.sweep."""
        with self._step(queue) as q:
            found = q.sweep(min(limit, BATCH), self._clock.now_ms())
        await anyio.lowlevel.checkpoint()
        return found

    async def load(self, queue: str, ids: Sequence[str], *, history: int = 1) -> list[Row | None]:
        """See Backend.load."""
        with self._step(queue) as q:
            found = [copy_of(row, history) if (row := q.rows.get(id_)) is not None else None for id_ in ids]
        await anyio.lowlevel.checkpoint()
        return found

    async def scan(self, queue: str, scan: Scan) -> Slice:
        """See Backend.scan."""
        with self._step(queue) as q:
            answer = q.scan(scan, self._clock.now_ms())
        await anyio.lowlevel.checkpoint()
        return answer

    async def count(self, queue: str, scan: Scan, most: int) -> Counted:
        """See Backend.count."""
        with self._step(queue) as q:
            answer = q.matching(scan, most)
        await anyio.lowlevel.checkpoint()
        return answer

    async def counts(self, queue: str) -> Counts:
        """See Backend.counts."""
        with self._step(queue) as q:
            answer = q.count(self._clock.now_ms())
        await anyio.lowlevel.checkpoint()
        return answer

    @asynccontextmanager
    async def listen(self, queue: str, after: int | None = None) -> AsyncIterator[Signals]:
        """See Backend.listen."""
        bell = Bell()
        with self._step(queue) as q:
            seq, stirs = q.seq if after is None else after, q.stirs
            q.bells.append(bell)
        try:
            async with aclosing(self._signals(queue, bell, seq, stirs)) as signals:
                yield signals
        finally:
            with self._step(queue) as q:
                q.bells.remove(bell)

    async def _signals(self, queue: str, bell: Bell, seq: int, stirs: int) -> AsyncGenerator[Hint | EventRow, None]:
        while True:
            with self._step(queue) as q:
                fresh = [event for event in q.events if event.seq > seq]
                stirred, stirs = q.stirs > stirs, q.stirs
            if stirred:
                yield Hint()
            for event in fresh:
                before, seq = seq, event.seq
                yield event.following(before)
            await bell.wait()

    def _step(self, queue: str) -> _Step:
        return _Step(self, queue)


class _Step:
    """One atomic step on one queue."""

    __slots__ = ("_backend", "_queue")

    def __init__(self, backend: MemoryBackend, queue: str) -> None:
        self._backend = backend
        self._queue = queue

    def __enter__(self) -> Shelf:
        self._backend._lock.acquire()  # noqa: SLF001 - its own step
        queues = self._backend._queues  # noqa: SLF001
        queue = queues.get(self._queue)
        if queue is None:
            queue = queues[self._queue] = Shelf()
        return queue

    def __exit__(self, *_: object) -> None:
        self._backend._lock.release()  # noqa: SLF001


__all__ = ["MemoryBackend"]
