"""A fork finds no connection of ours open.

What SQLite knows of a file's locks it keeps per process, by inode: a child that inherits an open connection believes
that it holds its parent's locks, and takes none of its own. Then another process may truncate the log under it (how to
corrupt a database, section 2.6). So connections are closed before a fork and opened anew after it, on both sides.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType

PATIENCE = 5.0  # seconds that a fork waits for a transaction to end


class Gate:
    """Held while a connection is used. A fork waits for it, and calls ``close`` while it holds it."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = weakref.WeakMethod(close)
        self._lock = threading.Lock()
        self._shut = False
        _gates.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def shut(self) -> None:
        """Before a fork: close, and let nobody open. One that stays busy is left open."""
        self._shut = self._lock.acquire(timeout=PATIENCE)
        close = self._close()
        if self._shut and close is not None:
            close()

    def reopen(self) -> None:
        """After it, in the parent."""
        if self._shut:
            self._shut = False
            self._lock.release()

    def renew(self) -> None:
        """After it, in the child: who held the lock is not here."""
        self._lock = threading.Lock()
        self._shut = False


_gates: weakref.WeakSet[Gate] = weakref.WeakSet()
_shut: list[Gate] = []


def _before() -> None:
    _shut.extend(_gates)
    for gate in _shut:
        gate.shut()


def _in_parent() -> None:
    while _shut:
        _shut.pop().reopen()


def _in_child() -> None:
    _shut.clear()
    for gate in list(_gates):
        gate.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
