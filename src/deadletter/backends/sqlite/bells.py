"""The doorbell beside the file: a process that commits work wakes those of other processes that sleep.

Each listening process binds a datagram socket in the directory ``<file>-bells``; whoever commits work sends one byte to
each socket that it finds there. Bytes may be lost, so a listener looks at the file's version once a second too, and
each 15 ms where there are no such sockets.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import sys
import threading
from collections.abc import Callable
from sqlite3 import Connection
from typing import Self

from ...runtime.threads import start_thread
from .forks import Gate

SOCKETS = hasattr(socket, "AF_UNIX")
SAFETY_SECONDS = 1.0
POLL_SECONDS = 0.015
REST_SECONDS = 0.01  # after a ring: those of a busy writer are heard together, for each costs both processes
_SUN_PATH = 100  # longer paths do not fit into a socket's address


class Doorbell:
    """Where the sockets are."""

    def __init__(self, path: str) -> None:
        self.directory = f"{path}-bells"
        self.own = ""  # the name of this process's socket

    def ring(self) -> None:
        """Wake every other process that listens; never blocks, never raises."""
        if not SOCKETS:
            return
        try:
            names = [entry.name for entry in os.scandir(self.directory)]
        except OSError:  # nobody listens
            return
        others = [name for name in names if name != self.own]
        if not others:
            return
        with (
            contextlib.suppress(OSError),
            _Place(self.directory) as place,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            sender.setblocking(False)
            for name in others:
                self._send(sender, place, name)

    def _send(self, sender: socket.socket, place: _Place, name: str) -> None:
        try:
            sender.sendto(b"!", place.address(name))
        except ConnectionRefusedError:  # its process is gone
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.directory, name))
        except OSError:  # full: it has enough to wake up for
            return

    def bind(self) -> socket.socket | None:
        """Hang up a bell; None where that is not possible."""
        if not SOCKETS:
            return None
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        bell.setblocking(False)
        for _ in range(100):  # the last listener may take the directory away between the two
            name = f"{os.getpid()}-{os.urandom(4).hex()}"
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.directory, 0o700)
                with _Place(self.directory) as place:
                    bell.bind(place.address(name))
            except FileNotFoundError:
                continue
            except OSError:
                break
            self.own = name
            return bell
        bell.close()
        return None

    def unbind(self, bell: socket.socket) -> None:
        """Take the bell down; the directory goes with the last one."""
        bell.close()
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.directory, self.own))
        self.own = ""
        with contextlib.suppress(OSError):
            os.rmdir(self.directory)


class _Place:
    """The directory as it fits into a socket's address."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        if len(os.fsencode(self._directory)) > _SUN_PATH - 24:
            if not sys.platform.startswith("linux"):
                raise OSError(errno.ENAMETOOLONG, "too long for a socket's address", self._directory)
            self._descriptor = os.open(self._directory, os.O_RDONLY)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def address(self, name: str) -> str:
        if self._descriptor is not None:
            return f"/proc/self/fd/{self._descriptor}/{name}"
        return os.path.join(self._directory, name)


class Listener:
    """A thread that waits for the bell and calls ``heard`` when another process committed something."""

    def __init__(self, doorbell: Doorbell, connect: Callable[[], Connection], heard: Callable[[], None]) -> None:
        self._doorbell = doorbell
        self._connect = connect
        self._heard = heard
        self._stopping = False
        self._bound = threading.Event()
        self._bell: socket.socket | None = None
        self._connection: Connection | None = None
        self._version: object = None
        self._gate = Gate(self.close)
        self._wake, self._woken = socket.socketpair()
        self._thread = start_thread("listen", self._run)
        self._bound.wait(1)  # what is committed from here on rings

    def stop(self) -> None:
        """End the thread; does not wait for it."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._wake.send(b"!")

    def _run(self) -> None:
        self._bell = bell = self._doorbell.bind()
        self._bound.set()
        rung = False
        try:
            while not self._stopping:
                with self._gate:
                    news = self._look()
                if news or rung:
                    self._heard()
                    self._wait(None, REST_SECONDS)
                rung = self._wait(bell, POLL_SECONDS if bell is None else SAFETY_SECONDS)
        finally:
            with self._gate:
                self.close()
            if bell is not None:
                self._doorbell.unbind(bell)
            self._wake.close()
            self._woken.close()

    def _look(self) -> bool:
        """Whether the file has changed since the last look."""
        if self._connection is None:
            try:
                self._connection = self._connect()
            except Exception:  # the writer tells; the bell works without
                return False
        seen = self._connection.execute("PRAGMA data_version").fetchone()
        changed = self._version not in (None, seen)  # of another connection, it is another number: look once too often
        self._version = seen
        return changed

    def close(self) -> None:
        """Close the connection; the next look opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _wait(self, bell: socket.socket | None, seconds: float) -> bool:
        """Until it is time, or somebody rings (True) or stops us."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            if bell is not None:
                selector.register(bell, selectors.EVENT_READ)
            ready = selector.select(seconds)
        rung = bell is not None and any(key.fileobj is bell for key, _ in ready)
        if bell is not None and rung:
            with contextlib.suppress(BlockingIOError):
                while bell.recv(16):
                    pass
        return rung
