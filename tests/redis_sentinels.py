"""A real primary with its replica, and the Sentinels that watch them; a missing program fails, nothing is skipped."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import redis

from .redis_servers import Server, debian_program, free_ports


class Trio:
    """A primary, its replica, and three Sentinels that watch them."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(5)
        local = ("--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
        self.primary = Server(debian_program(), "--port", str(ports[0]), *local)
        self.replica = Server(
            debian_program(), "--port", str(ports[1]), "--replicaof", "127.0.0.1", str(ports[0]), *local
        )
        self.ports = ports[2:]
        program = shutil.which("redis-sentinel")
        assert program is not None, "install redis-sentinel: apt-get install redis-sentinel"
        self.watchers = []
        for port in self.ports:
            file = folder / f"{port}.conf"
            file.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor main 127.0.0.1 {ports[0]} 2\n"
                "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 4000\n"
            )
            self.watchers.append(subprocess.Popen([program, str(file)], stdout=subprocess.DEVNULL))
        self.wait_until_watched()

    def wait_until_watched(self) -> None:
        until = time.monotonic() + 30
        for port in self.ports:
            with redis.Redis(port=port) as client:
                while True:
                    try:
                        told = client.sentinel_master("main")
                        if told["num-other-sentinels"] == 2 and told["num-slaves"] == 1:
                            break
                    except redis.ConnectionError:
                        pass
                    assert time.monotonic() < until
                    time.sleep(0.02)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/main/0"

    def emptied(self) -> Trio:
        """Nothing is stored any more."""
        with self.primary.client() as client:
            client.flushall()
        return self

    def end(self) -> None:
        for watcher in self.watchers:
            watcher.kill()
            watcher.wait()
        self.primary.end()
        self.replica.end()


@functools.cache
def sentinels() -> Trio:
    """One for the whole process, for who takes none of it away."""
    folder = Path(tempfile.mkdtemp(prefix="deadletter-sentinels-"))
    made = Trio(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(made.end)
    return made
