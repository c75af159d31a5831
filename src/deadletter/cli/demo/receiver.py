"""The demo's receiver: a flaky HTTP server in a process of its own, told on stdin what to be.

``down`` closes its port and drops what is in flight; ``up`` opens it again; ``mend`` makes it understand the new
format. Each is answered by a line on stdout. Every delivery that it takes is a line (its id) in its log before it says
so.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

LATENCY = 0.05  # seconds per delivery
FLAKY = 0.03  # of all deliveries are refused for no reason


class Receiver:
    """What it knows and how it feels."""

    def __init__(self, log: Path, drop_every: int) -> None:
        self._log = log.open("a", encoding="utf-8", buffering=1)
        self._drop_every = drop_every
        self._lock = threading.Lock()
        self._chance = random.Random(7)  # noqa: S311 - flakiness that repeats
        self._taken = 0
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.mended = False

    @property
    def up(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    def start(self) -> int:
        """Listen, on the same port as before; answer the port."""
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.receiver = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self._port

    def stop(self) -> None:
        """Listen no more; what is in flight gets no answer."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def take(self, task_id: str, payload: dict[str, object]) -> tuple[int, str] | None:
        """Decide on a delivery; None drops the connection."""
        with self._lock:
            if not self.up:
                return None
            if self._chance.random() < FLAKY:
                return 503, "Service Unavailable: out of connections"
            if payload.get("gone"):
                return 410, "Gone: this customer has left"
            if payload.get("format") == 2 and not self.mended:
                return 500, "Internal Server Error: KeyError: 'tax_id'"
            self._taken += 1
            if not (self._drop_every and self._taken % self._drop_every == 0):
                self._log.write(f"{task_id}\n")
            return 200, "OK"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    receiver: Receiver

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that was killed before it heard the answer."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(LATENCY)
        answer = cast("_Server", self.server).receiver.take(self.headers["webhook-id"], json.loads(body))
        if answer is None:
            self.close_connection = True
            return
        status, said = answer
        self.send_response(status)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the log is ours."""


def main() -> None:
    """Serve until stdin ends. Arguments: the log's path, and n to lose each n-th delivery (0: none)."""
    receiver = Receiver(Path(sys.argv[1]), int(sys.argv[2]))
    print(receiver.start(), flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "down":
            receiver.stop()
        elif word == "up":
            receiver.start()
        elif word == "mend":
            receiver.mended = True
        print(word, flush=True)


if __name__ == "__main__":
    main()
