"""The calls of a DeadLetterQueue, blocking, over one event loop on a thread of its own."""

from __future__ import annotations

import atexit
import functools
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from ..model.event import Event
from ..model.query import Query
from ..model.record import TaskRecord
from ..runtime.threads import start_thread
from .queue import DeadLetterQueue

P = ParamSpec("P")
T = TypeVar("T")

_SCAN_STEP = 100  # records a crossing: one costs as much as a thousand more records


class _Crossing:
    """This process's portal, opened at the first call and kept: one opened for each call costs five times as much."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._thread: threading.Thread | None = None
        self._left_behind: list[BlockingPortal] = []

    def portal(self) -> BlockingPortal:
        if self._portal is None:
            with self._lock:
                if self._portal is None:
                    self._portal = self._open()
        return self._portal

    def _open(self) -> BlockingPortal:
        opened: Future[BlockingPortal] = Future()

        async def serve() -> None:
            async with BlockingPortal() as portal:
                opened.set_result(portal)
                await portal.sleep_until_stopped()

        self._thread = start_thread("sync", functools.partial(anyio.run, serve, backend="asyncio"))
        return opened.result()

    def close(self) -> None:
        """End the loop and what still runs in it: an open portal would outlive the interpreter's other threads."""
        portal, thread, self._portal = self._portal, self._thread, None
        if portal is not None and thread is not None:
            portal.start_task_soon(portal.stop, True)
            thread.join(2)

    def after_fork(self) -> None:
        """Forget the parent's loop, whose thread is not here; it is kept from being collected, which would close it."""
        self._lock = threading.Lock()
        if self._portal is not None:
            self._left_behind.append(self._portal)
        self._portal = None


_crossing = _Crossing()
atexit.register(_crossing.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crossing.after_fork)


def call_soon(function: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """Start a coroutine function in the loop that all blocking calls share; it sees the caller's context variables."""
    return _crossing.portal().start_task_soon(function)


def wait_for(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function in that loop and wait for what it returns."""
    return call_soon(function).result()


def blocking(
    method: Callable[Concatenate[DeadLetterQueue, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncQueue, P], T]:
    """The same method of SyncQueue."""

    @functools.wraps(method)
    def call(self: SyncQueue, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return wait_for(functools.partial(method, self._queue, *args, **kwargs))

    return call


class SyncQueue:
    """The same calls as those of a DeadLetterQueue, blocking, from any thread: ``dlq.sync.enqueue(task)``.

    Called inside a coroutine, they block its loop until they are done; ``await`` the queue's own there.
    """

    def __init__(self, queue: DeadLetterQueue) -> None:
        self._queue = queue

    def __repr__(self) -> str:
        return f"{self._queue!r}.sync"

    open = blocking(DeadLetterQueue.open)
    aclose = blocking(DeadLetterQueue.aclose)
    enqueue = blocking(DeadLetterQueue.enqueue)
    enqueue_many = blocking(DeadLetterQueue.enqueue_many)
    process_task = blocking(DeadLetterQueue.process_task)
    capture = blocking(DeadLetterQueue.capture)
    get = blocking(DeadLetterQueue.get)
    list = blocking(DeadLetterQueue.list)
    groups = blocking(DeadLetterQueue.groups)
    stats = blocking(DeadLetterQueue.stats)
    retry = blocking(DeadLetterQueue.retry)
    retry_all = blocking(DeadLetterQueue.retry_all)
    purge = blocking(DeadLetterQueue.purge)
    erase = blocking(DeadLetterQueue.erase)
    cancel = blocking(DeadLetterQueue.cancel)
    pause = blocking(DeadLetterQueue.pause)
    resume = blocking(DeadLetterQueue.resume)
    paused = blocking(DeadLetterQueue.paused)

    def scan(self, query: Query = Query()) -> Iterator[TaskRecord]:  # noqa: B008 - frozen
        """All that match, newest first, paged for you."""
        records = self._queue.scan(query)
        while step := wait_for(functools.partial(_some, records)):
            yield from step

    @contextmanager
    def subscribe(self, *kinds: str, after: int | None = None) -> Iterator[Iterator[Event]]:
        """What happens to this queue's tasks from now on: ``with dlq.sync.subscribe("dead") as events``.

        The iterator blocks until the next event.
        """
        process = os.getpid()
        with ExitStack() as stack:
            subscription = _crossing.portal().wrap_async_context_manager(self._queue.subscribe(*kinds, after=after))
            try:
                yield _each(stack.enter_context(subscription))
            finally:
                if os.getpid() != process:  # in a forked child: it is the parent's, whose loop is not here to end it
                    stack.pop_all()


async def _some(records: AsyncIterator[TaskRecord]) -> list[TaskRecord]:
    some: list[TaskRecord] = []
    async for record in records:
        some.append(record)
        if len(some) == _SCAN_STEP:
            break
    return some


def _each(events: AsyncIterator[Event]) -> Iterator[Event]:
    async def next_one() -> Event | None:
        return await anext(events, None)

    while (event := wait_for(next_one)) is not None:
        yield event
