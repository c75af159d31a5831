"""Threads that own a connection each: one writes, and groups what waits into one commit; one reads."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable
from sqlite3 import Connection
from typing import Any, Generic, TypeAlias, TypeVar

import anyio.lowlevel
import attrs
from anyio.to_thread import run_sync

from ...model.errors import BackendUnavailable
from ...runtime.loops import Reply, arrive_all
from ...runtime.threads import start_thread
from .file import StoreFile, busy, waiting
from .forks import Gate
from .step import Step

T = TypeVar("T")

OPERATIONS = 64  # of one commit
ROWS = 1_000  # of one commit, about

# A connection must not be closed by a process that it was not opened in, so a forked child keeps for ever what its
# parent could not close before the fork.
ABANDONED: list[object] = []


class _Plain(Generic[T]):
    """An answer that is there when the call returns: where everything runs inline."""

    value: T | None = None
    error: BaseException | None = None


@attrs.define(eq=False)
class Operation:
    """A piece of work, and where its answer goes."""

    work: Callable[[Any], Any]
    reply: Reply[Any] | _Plain[Any]
    rows: int = 1


Perform: TypeAlias = "Callable[[list[Operation]], None]"


def opened(step: Step) -> None:
    """Work that asks for an open file and nothing more: it waits for no lock, so that who only reads is not held up."""
    del step


class WriteLane:
    """Performs operations in one transaction each batch; an error in one of them fails no other."""

    def __init__(
        self, file: StoreFile, now_ms: Callable[[], int], ring: Callable[[dict[str, tuple[bool, bool]]], None]
    ) -> None:
        self._file = file
        self._now_ms = now_ms
        self._ring = ring
        self._claims: OrderedDict[str, list[str]] = OrderedDict()
        self._step: Step | None = None
        self._gate = Gate(self.leave)

    def perform(self, batch: list[Operation]) -> None:
        """Run all in one commit; where one fails, each in its own."""
        with self._gate:
            self._perform(batch)

    def _perform(self, batch: list[Operation]) -> None:
        try:
            step = self._opened()
        except Exception as error:
            for operation in batch:
                operation.reply.error = self._file.failure(error)
            return
        batch = [operation for operation in batch if operation.work is not opened]
        if batch and not self._commit(step, batch) and len(batch) > 1:
            for operation in batch:
                operation.reply.error = None
                self._commit(step, [operation])
        with contextlib.suppress(sqlite3.Error):  # the next commit tells, if the file is in trouble
            self._file.checkpoint(step.connection)

    def close(self) -> None:
        """Close the connection."""
        if self._step is not None:
            self._step.connection.close()
            self._step = None

    def leave(self) -> None:
        """Close before a fork what can be opened again."""
        if not self._file.in_memory:
            self.close()

    def abandon(self) -> None:
        """Forget the connection, in a forked child."""
        ABANDONED.append(self._step)
        self._step = None

    @property
    def connection(self) -> Connection:
        """The connection, opened at need."""
        return self._opened().connection

    def _opened(self) -> Step:
        if self._step is None:
            self._step = Step(self._file.writer(), self._now_ms, self._claims)
        return self._step

    def _commit(self, step: Step, batch: list[Operation]) -> bool:
        for _ in waiting():
            try:
                step.connection.execute("BEGIN IMMEDIATE")
                step.begun()
                values = [operation.work(step) for operation in batch]
                step.ending()
                step.connection.execute("COMMIT")
            except Exception as error:
                self._roll_back(step)
                if busy(error):
                    continue
                for operation in batch:
                    operation.reply.error = self._file.failure(error)
                return False
            for operation, value in zip(batch, values, strict=True):
                operation.reply.value = value
            rings = step.committed().rings
            if rings:
                self._ring(rings)
            return True
        for operation in batch:
            operation.reply.error = self._file.failure(_busy_error())
        return True  # each alone would wait as long

    def _roll_back(self, step: Step) -> None:
        step.rolled_back()
        if step.connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # a full disk rolls back by itself
                step.connection.execute("ROLLBACK")


def _busy_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


class ReadLane:
    """Performs operations on a snapshot each."""

    def __init__(self, file: StoreFile) -> None:
        self._file = file
        self._connection: Connection | None = None
        self._gate = Gate(self.leave)

    def perform(self, batch: list[Operation]) -> None:
        """Run each in its own read transaction."""
        with self._gate:
            self._perform(batch)

    def _perform(self, batch: list[Operation]) -> None:
        for operation in batch:
            try:
                if self._connection is None:
                    self._connection = self._file.reader()
                operation.reply.value = snapshot(self._connection, operation.work)
            except Exception as error:
                operation.reply.error = self._file.failure(error)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def leave(self) -> None:
        """Close before a fork."""
        self.close()

    def abandon(self) -> None:
        """Forget the connection, in a forked child."""
        ABANDONED.append(self._connection)
        self._connection = None


def snapshot(connection: Connection, work: Callable[[Connection], T]) -> T:
    """Run what only reads on one state of the file."""
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        connection.execute("ROLLBACK")


class Thread:
    """A thread that a lane runs in, started at its first operation."""

    def __init__(self, name: str, lane: WriteLane | ReadLane, url: str) -> None:
        self._name = name
        self._lane = lane
        self._url = url
        self._closed = False
        self.forked()

    def forked(self) -> None:
        """Begin anew without the thread: at first, and in a forked child."""
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def call(self, work: Callable[[Any], T], rows: int = 1) -> T:
        """Have the work done; a caller that is cancelled meanwhile only misses the answer."""
        reply: Reply[T] = Reply()
        with self._lock:
            if self._closed:
                raise BackendUnavailable(f"{self._url} is closed; make a new backend")
            self._waiting.put(Operation(work, reply, rows))
            if self._thread is None:
                self._thread = start_thread(self._name, self._run)
        return await reply.wait()

    async def close(self) -> None:
        """End the thread after what was asked before."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            with anyio.CancelScope(shield=True):
                await run_sync(thread.join)

    def _run(self) -> None:
        waiting, lane = self._waiting, self._lane
        open_ = True
        while open_:
            batch: list[Operation] = []
            operation = waiting.get()
            rows = 0
            while operation is not None:
                batch.append(operation)
                rows += operation.rows
                if len(batch) >= OPERATIONS or rows >= ROWS:
                    break
                try:
                    operation = waiting.get_nowait()
                except queue.Empty:
                    break
            open_ = operation is not None
            if batch:
                lane.perform(batch)
                deliver(batch)
        lane.close()


class Inline:
    """Performs each operation in the calling coroutine: for simulators, and repeatable to the last step."""

    def __init__(self, lane: WriteLane | ReadLane, url: str) -> None:
        self._lane = lane
        self._url = url
        self._closed = False

    def forked(self) -> None:
        """Nothing to do: there is no thread."""

    async def call(self, work: Callable[[Any], T], rows: int = 1) -> T:
        """Do the work now."""
        del rows
        if self._closed:
            raise BackendUnavailable(f"{self._url} is closed; make a new backend")
        answer: _Plain[T] = _Plain()
        self._lane.perform([Operation(work, answer)])
        await anyio.lowlevel.checkpoint()
        if answer.error is not None:
            raise answer.error
        return answer.value  # type: ignore[return-value]

    async def close(self) -> None:
        """Close the connection."""
        if not self._closed:
            self._closed = True
            self._lane.close()


def deliver(batch: list[Operation]) -> None:
    """Bring the answers: one call per loop."""
    loops: dict[Callable[..., Any], list[Reply[Any]]] = {}
    for operation in batch:
        if isinstance(operation.reply, Reply):
            loops.setdefault(operation.reply.call, []).append(operation.reply)
    for call, replies in loops.items():
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits there any more
            call(arrive_all, replies)
