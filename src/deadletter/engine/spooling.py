"""Captures that the store could not take wait in a local spool, and go to it in order when it is back."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import CancelledError as PortalClosed
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
import attrs
from anyio.lowlevel import RunVar

from ..interfaces.spool import Spool, Spooled
from ..model.errors import BackendError, BackendUnavailable, DurabilityNotMet, InvalidTask
from ..model.query import Query
from ..model.record import EDITED, State
from ..model.row import DEAD, FailureRow, Finding, Inserted, NewRow
from ..model.task import from_ms
from ..rules.machine import Journal, build
from ..runtime.loops import Bell

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.spool")

T = TypeVar("T")

LEASE_MS = 15_000  # of the right to give back: so long does a drainer that died hold up the others
WATCH = 2.0  # seconds between a worker's looks at the spool
REFUSED_MS = 300_000  # until what the store refused is offered again
_PATIENCE = 5.0  # seconds that an insert may take; well within the lease
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_LAST_WAIT = 2.0  # seconds that closing a queue waits for what is at hand
_THREADS = 4  # of one event loop that write at a time
_LONGEST_ID = 180

_threads: RunVar[anyio.CapacityLimiter] = RunVar("deadletter_spool_threads")


def open_spool(spool: Spool | str | os.PathLike[str] | None) -> Spool | None:
    """The spool that an option names; raises InvalidSetting where it cannot be."""
    if spool is None or isinstance(spool, Spool):
        return spool
    if not isinstance(spool, str | os.PathLike):
        raise InvalidTask("spool", f"{type(spool).__name__} is no spool; give the path of a file")
    room = importlib.import_module("deadletter.backends.sqlite")  # reached by string: the engine knows no backend
    return cast("Spool", room.SpoolFile(spool))


class Spooler:
    """One queue's side of a spool: puts captures in, and brings them to the store."""

    def __init__(self, queue: DeadLetterQueue, spool: Spool) -> None:
        self._queue = queue
        self.spool = spool
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew: at first, and in a child, whose parent's loop is not here."""
        self._lock = threading.Lock()
        self._active = False  # whether a background run is under way, or about to
        self._stopping = False
        self._future: Future[None] | None = None
        self._bell: Bell | None = None

    def __repr__(self) -> str:
        return f"<Spooler of {self._queue!r} at {self.spool.path}>"

    @property
    def _place(self) -> tuple[str, str]:
        return self._queue.backend.url, self._queue.name

    # In

    def put(self, new: NewRow) -> None:
        """Keep a capture, with its times as they are now; blocking, from any thread. Raises BackendError."""
        now_ms = self._queue.clock.now_ms()
        row = attrs.evolve(
            new,
            created_at_ms=now_ms if new.created_at_ms is None else new.created_at_ms,
            ended_at_ms=now_ms if new.state == DEAD and new.ended_at_ms is None else new.ended_at_ms,
            due_at_ms=now_ms + new.due_ms if new.due_at_ms is None else new.due_at_ms,
            history=[attrs.evolve(failure, at_ms=failure.at_ms or now_ms) for failure in new.history],
        )
        self.spool.put(*self._place, row, now_ms)
        self.start()

    async def put_soon(self, new: NewRow) -> BaseException | None:
        """The same from a coroutine, whatever cancels it; answers a cancellation that came meanwhile."""
        interrupted: BaseException | None = None
        with anyio.CancelScope(shield=True):
            try:
                await self._threaded(functools.partial(self.put, new))
            except anyio.get_cancelled_exc_class() as cancelled:
                # A task.cancel() goes through any shield; putting it twice is safe.
                interrupted = cancelled
                self.put(new)
        return interrupted

    async def waiting(self) -> int:
        """How many captures wait; 0 where the spool cannot tell, which is logged."""
        try:
            return await self._threaded(functools.partial(self.spool.count, *self._place))
        except BackendError as error:
            log.warning("how many captures wait is not known: %s", error)
            return 0

    async def findings(self) -> list[Finding]:
        """What an operator should know of the spool."""
        now_ms = self._queue.clock.now_ms()
        try:
            return await self._threaded(functools.partial(self.spool.findings, *self._place, now_ms))
        except BackendError as error:
            return [Finding(level="error", text=str(error))]

    # Out

    async def look(self) -> None:
        """Begin to give back in the background, where anything waits."""
        try:
            if await self._due():
                self.start()
        except BackendError as error:
            log.warning("whether captures wait is not known: %s", error)

    async def watch(self) -> None:
        """Look now and again, until cancelled: what other processes left is a worker's to bring."""
        while True:
            if self._queue.threads.inline:
                await self.drain_quietly()
            else:
                await self.look()
            await self._queue.clock.sleep(WATCH)

    def start(self) -> None:
        """Give back in the background until nothing waits, in the loop that all blocking calls share."""
        if self._queue.threads.inline:
            return
        with self._lock:
            if self._active or self._stopping:
                return
            self._active = True
            from .sync import call_soon

            try:
                self._future = call_soon(self._until_empty)
            except (RuntimeError, PortalClosed) as error:  # at the interpreter's end; the next process sees to it
                self._active = False
                log.debug("the spool waits for the next process: %s", error)

    def store_answered(self) -> None:
        """The store did something for us: no need to wait any longer. From any thread."""
        if self._bell is not None:
            self._bell.ring()

    def stop(self) -> None:
        """End the background run after what it has at hand."""
        with self._lock:
            self._stopping = True
        self.store_answered()

    def join(self) -> None:
        """Wait until it has ended; after that it may start again."""
        future = self._future
        if future is not None:
            with contextlib.suppress(PortalClosed):
                try:
                    future.result(_LAST_WAIT)
                except TimeoutError:  # the store hangs: an insert that is cut off repeats safely
                    future.cancel()
        self._future, self._active, self._stopping = None, False, False

    async def drain_quietly(self) -> bool:
        """One pass; answers whether nothing is left to do. A store that is away is logged."""
        try:
            return await self.drain()
        except (BackendError, TimeoutError) as error:
            log.info("captures wait in %s: %s", self.spool.path, error)
            return False

    async def drain(self) -> bool:
        """Give back what waits, oldest first; False where somebody else is at it.

        An insert repeats safely by its id, so that dying anywhere in between loses nothing and doubles nothing. Raises
        BackendUnavailable or TimeoutError where the store is away.
        """
        if not await self._due():
            return True
        owner = self._queue.chance.name()
        given = at = 0
        try:
            while await self._lease(owner):
                batch = await self._take(at)
                if not batch:
                    return True
                given += await self._give(batch)
                at = batch[-1].n
                if self._stopping:
                    break
            return False
        finally:
            self._release(owner)
            if given:
                log.info("%d captures from %s are in the store now", given, self.spool.path)

    async def erase(self, query: Query, states: Sequence[State], now_ms: int) -> set[str]:
        """Forget the captures that match; answers their ids. Nobody gives back meanwhile."""
        wanted = {state: attrs.evolve(query, state=state).resolved(from_ms(now_ms)) for state in states}
        erased: set[str] = set()
        async with self._alone():
            at = 0
            while batch := await self._take(at, refused=True):
                at = batch[-1].n
                gone = [spooled for spooled in batch if self._matches(spooled.row, wanted, now_ms)]
                await self._threaded(functools.partial(self.spool.remove, [spooled.n for spooled in gone]))
                erased |= {spooled.row.id for spooled in gone if spooled.row is not None}
        return erased

    def _matches(self, new: NewRow | None, wanted: dict[State, Query], now_ms: int) -> bool:
        if new is None:
            return False
        record = self._queue.record(build(attrs.evolve(new, history=list(new.history)), now_ms, Journal()))
        return record.state in wanted and wanted[record.state].matches(record)

    async def _until_empty(self) -> None:
        self._bell, wait = Bell(), _FIRST_WAIT
        while not self._stopping:
            if await self._drained() and await self._leave():
                return
            await self._queue.wait_for(self._bell, wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    async def _leave(self) -> bool:
        """Whether to end: a capture that came just now found us at work, and began no other run."""
        with self._lock:
            self._active = False
        if await self._drained():
            return True
        with self._lock:
            taken, self._active = self._active, True
        return taken

    async def _drained(self) -> bool:
        try:
            return await self.drain_quietly()
        except (
            Exception
        ):  # a backend or a codec of somebody else may raise anything; the captures wait for a better time
            log.exception("giving back what waits in %s failed", self.spool.path)
            return False

    async def _due(self) -> bool:
        return await self._threaded(functools.partial(self.spool.due, *self._place, self._queue.clock.now_ms()))

    async def _take(self, at: int, *, refused: bool = False) -> list[Spooled]:
        now_ms = _END if refused else self._queue.clock.now_ms()
        return await self._threaded(functools.partial(self.spool.take, *self._place, at, now_ms))

    async def _lease(self, owner: str) -> bool:
        now_ms = self._queue.clock.now_ms()
        return await self._threaded(functools.partial(self.spool.lease, *self._place, owner, now_ms, LEASE_MS))

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        owner, wait = self._queue.chance.name(), 0.05
        while not await self._lease(owner):
            await self._queue.clock.sleep(wait)
            wait = min(wait * 2, 1.0)
        try:
            yield
        finally:
            self._release(owner)

    def _release(self, owner: str) -> None:
        with contextlib.suppress(BackendError):  # then it lapses
            self.spool.release(*self._place, owner)

    async def _give(self, batch: Sequence[Spooled]) -> int:
        """Bring some to the store and forget them here; the number that it has."""
        rows = [spooled.row for spooled in batch if spooled.row is not None]
        places = [spooled.n for spooled in batch]
        try:
            stored = len(rows) == len(batch) and await self._insert(rows)
        except (BackendUnavailable, DurabilityNotMet, TimeoutError):
            raise
        except Exception as error:  # one bad row fails no stranger: each is told by itself
            log.debug("a batch from %s was refused, each goes by itself: %s", self.spool.path, error)
            stored = False
        if not stored:
            places = [spooled.n for spooled in batch if await self._give_one(spooled)]
        await self._threaded(functools.partial(self.spool.remove, places))
        return len(places)

    async def _give_one(self, spooled: Spooled) -> bool:
        """A row whose key or id is taken goes without that key, or under an id that follows from its own."""
        row = spooled.row
        if row is None:
            return await self._refused(spooled, "it is damaged and cannot be read")
        try:
            if await self._insert([row]):
                return True
            if row.key is not None and await self._insert([attrs.evolve(row, key=None)]):
                log.warning("task %s of the spool is kept without its idempotency key, which another task has", row.id)
                return True
            other = _renamed(row)
            if await self._insert([other]):
                log.warning("task id %s was taken meanwhile; what the spool had of it is task %s", row.id, other.id)
                return True
        except (BackendUnavailable, DurabilityNotMet, TimeoutError):
            raise
        except Exception as error:  # whatever this row does to the store, the others go on
            return await self._refused(spooled, f"{type(error).__name__}: {error}")
        return await self._refused(spooled, f"its id and {other.id} belong to other tasks")

    async def _insert(self, rows: Sequence[NewRow]) -> bool:
        """Whether the store has them all; where it has not, nothing was stored."""
        await self._queue.open()
        with anyio.fail_after(_PATIENCE):
            insertions = await self._queue.backend.insert(self._queue.name, [_fresh(row) for row in rows])
        return all(insertion.verdict in (Inserted.STORED, Inserted.EXISTS) for insertion in insertions)

    async def _refused(self, spooled: Spooled, why: str) -> bool:
        log.error("the store did not take a capture from %s: %s (deadletter doctor tells)", self.spool.path, why)
        until_ms = self._queue.clock.now_ms() + REFUSED_MS
        await self._threaded(functools.partial(self.spool.refuse, spooled.n, why, until_ms))
        return False

    async def _threaded(self, call: Callable[[], T]) -> T:
        limiter = _threads.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(_THREADS)
            _threads.set(limiter)
        return await self._queue.threads.run(call, limiter)


_END = 2**62  # ms: every row is due by then


def _fresh(row: NewRow) -> NewRow:
    """A copy for the store, which may keep or change what it is given."""
    return attrs.evolve(row, history=[attrs.evolve(failure) for failure in row.history])


def _renamed(row: NewRow) -> NewRow:
    """The same row under an id of its own: always the same one, so that a repeat is met."""
    note = FailureRow(
        attempt=row.attempts,
        at_ms=row.created_at_ms or 0,
        error_type=EDITED,
        message=f"captured as {row.id}, an id that another task had when the store was back",
    )
    id_ = f"{row.id[:_LONGEST_ID]}.{row.digest[:12]}"
    return attrs.evolve(row, id=id_, key=None, history=[note, *row.history])
