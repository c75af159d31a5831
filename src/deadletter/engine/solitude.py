"""Who is alone in this process: a suspect is judged by the next loss of its worker, which must then be its own doing.

What ``process_task`` runs of one queue and what workers run of it share a process, and may take each other along.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from ..runtime.loops import Bell
from . import context as contexts

if TYPE_CHECKING:
    from .queue import DeadLetterQueue


class Solo:
    """Somebody who is alone until he says that he need not be."""

    def __init__(self, solitude: Solitude, since: float) -> None:
        self._solitude, self.since = solitude, since

    def mingle(self) -> None:
        """Let the others in. May be repeated."""
        self._solitude.end(self)


class Solitude:
    """A room of one queue: while somebody is alone in it, others wait before its door.

    Nobody waits longer than a lease, since the suspect may itself be waiting for who is kept out.
    """

    def __init__(self, queue: DeadLetterQueue) -> None:
        self._queue = queue
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew: at first, and in a child, where nobody is."""
        self._lock = threading.Lock()
        self._inside = 0
        self._solo: Solo | None = None
        self._waiting: list[Bell] = []

    @asynccontextmanager
    async def visited(self) -> AsyncIterator[Solo | None]:
        """Be inside for one attempt of one's own; alone where nobody else is there and no worker runs anything."""
        entered, solo = self._enter(bell := Bell())
        while not entered:
            await self._queue.wait_for(bell, self._patience)
            entered, solo = self._enter(bell := Bell())
        try:
            yield solo
        finally:
            with self._lock:
                self._inside -= 1
            self.end(solo)

    @contextmanager
    def shared(self) -> Iterator[bool]:
        """Be inside as a worker that claims: what it starts is seen by then. False where somebody is to be alone."""
        with self._lock:
            is_open = not self._closed()
            self._inside += is_open
        try:
            yield is_open
        finally:
            with self._lock:
                self._inside -= is_open

    @contextmanager
    def taken(self) -> Iterator[Solo | None]:
        """Be alone as a worker that runs nothing else; None where that cannot be now."""
        with self._lock:
            solo = self._alone() if not self._inside and self._solo is None else None
        try:
            yield solo
        finally:
            self.end(solo)

    def end(self, solo: Solo | None) -> None:
        """Let the others in, where it is this one that keeps them out."""
        with self._lock:
            if solo is None or self._solo is not solo:
                return
            self._solo = None
            waiting, self._waiting = self._waiting, []
        for bell in waiting:
            bell.ring()

    def _enter(self, bell: Bell) -> tuple[bool, Solo | None]:
        """Whether one came in, and is alone; else ``bell`` rings when whoever is alone lets the others in."""
        with self._lock:
            if self._closed():
                self._waiting.append(bell)
                return False, None
            self._inside += 1
            if self._inside > 1 or self._solo is not None or not self._queue.keeper.idle:
                return True, None
            return True, self._alone()

    def _alone(self) -> Solo:
        self._solo = Solo(self, self._queue.clock.monotonic())
        return self._solo

    @property
    def _patience(self) -> float:
        return self._queue.options.lease_ms / 1000

    def _closed(self) -> bool:
        context = contexts.current.get()
        if self._solo is None or (context is not None and not context.over):  # within an attempt, one belongs to it
            return False
        return self._queue.clock.monotonic() < self._solo.since + self._patience
