"""A TCP port before a server's Unix socket, that loses, holds up and breaks what goes through it."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from .calls import CallLog

Fault = Literal["none", "drop_reply", "reset_before", "reset_mid", "black_hole"]
Plan = Callable[[], Fault]

_RESET = struct.pack("ii", 1, 0)
_LONGEST_WORD = 300


class Proxy:
    """Asks ``plan`` what becomes of each script that a client wants to be run, after ``delay``; all else passes."""

    def __init__(self, target: Path) -> None:
        self.plan: Plan = lambda: "none"
        self.delay: Callable[[], float] = lambda: 0.0
        self.open = 0
        self.met = 0  # faults, by scripts
        self.log: CallLog | None = None  # where it notes which requests reached the server
        self._target = target
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}"

    def faults(self, fault: Fault, times: int) -> None:
        """Let the next ``times`` scripts meet with a fault."""
        left = iter([fault] * times)
        self.plan = lambda: next(left, "none")

    def heal(self) -> None:
        """Let everything pass from now on."""
        self.plan = lambda: "none"

    def close(self) -> None:
        self._over = True
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over:
            if select.select([self._listener], [], [], 0.05)[0]:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._connected, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _connected(self, client: socket.socket) -> None:
        with self._lock:
            self.open += 1
        try:
            with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
                server.connect(str(self._target))
                self._relay(client, server)
        finally:
            with self._lock:
                self.open -= 1

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        dropping = swallowing = False
        for this, data in self._received(client, server):
            if this is server:
                if dropping:
                    _reset(client)
                    return
                client.sendall(data)
                continue
            with self._lock:
                fault = self.plan() if b"EVAL" in data[:64] else "none"
                self.met += fault != "none"
                held = self.delay()
            if held:
                time.sleep(held)
            swallowing = swallowing or fault == "black_hole"
            self._note(data, passed=not swallowing and fault in ("none", "drop_reply"))
            if swallowing:
                continue
            dropping = fault == "drop_reply"
            if fault in ("reset_before", "reset_mid"):
                server.sendall(data[: len(data) // 2] if fault == "reset_mid" else b"")
                _reset(client)
                return
            server.sendall(data)

    def _note(self, data: bytes, *, passed: bool) -> None:
        if self.log is not None and b"EVAL" in data[:64]:
            words = [word.decode("latin-1") for word in data.split(b"\r\n") if len(word) < _LONGEST_WORD]
            self.log.write(passed=passed, request=words)

    def _received(self, *both: socket.socket) -> Iterator[tuple[socket.socket, bytes]]:
        while not self._over:
            for this in select.select(both, [], [], 0.05)[0]:
                data = this.recv(1 << 20)
                if not data:
                    return
                yield this, data


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
