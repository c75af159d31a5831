"""A store that is watched, and children to be killed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from deadletter.backends.memory import MemoryBackend
from deadletter.backends.redis import RedisBackend
from deadletter.backends.sqlite import SQLiteBackend
from deadletter.interfaces import Backend, Clock
from deadletter.model.row import Row, Scan

from ..redis_servers import debian, valkey
from .redis_store import RedisStore
from .store import SqliteStore, Store

ROOT = Path(__file__).parents[2]


class Child:
    """One process; its exit code is negative where a signal ended it."""

    def __init__(self, server: Server, pid: int, name: str) -> None:
        self._server = server
        self.pid = pid
        self.name = name
        self.code: int | None = None

    def ended(self) -> bool:
        """Whether it has."""
        if self.code is None:
            self.code = self._server.ask(do="poll", pid=self.pid)
        return self.code is not None

    def signal(self, number: signal.Signals) -> int:
        """Send a signal, wait for its end, and answer its exit code."""
        if not self.ended():
            os.kill(self.pid, number)  # not yet waited for, so that its id is still its own
            self.code = self._server.ask(do="wait", pid=self.pid)
        assert self.code is not None
        return self.code

    def kill(self) -> int:
        return self.signal(signal.SIGKILL)

    def drain(self) -> int:
        return self.signal(signal.SIGTERM)


class Server:
    """The fork server."""

    def __init__(self) -> None:
        paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.children"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=20)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


# What takes seconds of waiting: in the test command on SQLite alone.
SLOW_ON_REDIS = pytest.mark.parametrize(
    "store", ["sqlite", *(pytest.param(kind, marks=pytest.mark.full) for kind in ("redis", "debian"))], indirect=True
)


def made_store(kind: str, folder: Path) -> Store:
    """A store of a kind, with nothing in it."""
    return SqliteStore(folder) if kind == "sqlite" else RedisStore(folder, {"redis": valkey, "debian": debian}[kind]())


@pytest.fixture(params=["sqlite", "redis", pytest.param("debian", marks=pytest.mark.full)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = made_store(request.param, tmp_path)
    yield store
    store.close()


@pytest.fixture
def start(server: Server, store: Store) -> Iterator[Callable[..., Child]]:
    """A function that starts a child on the store; what is left of them is killed at the end."""
    with starting(server, store) as start_one:
        yield start_one


@contextmanager
def starting(server: Server, store: Store) -> Iterator[Callable[..., Child]]:
    """As ``start``, for who is no test."""
    children: list[Child] = []
    numbers = itertools.count(1)

    def start_one(role: str, **said: Any) -> Child:
        said = {"name": f"{role}-{next(numbers)}", "url": store.url, "folder": str(store.folder), **said}
        pid = server.ask(do="start", role=role, log=str(store.folder / "children.log"), said=said)
        children.append(Child(server, pid, said["name"]))
        return children[-1]

    try:
        yield start_one
    finally:
        for child in children:
            child.kill()


def eventually(predicate: Callable[[], object], within: float = 15.0) -> Any:
    """The first true answer of ``predicate``; fails where there is none within so many seconds."""
    until = time.monotonic() + within
    while True:
        answer = predicate()
        if answer:
            return answer
        assert time.monotonic() < until, f"not within {within} s: {predicate}"
        time.sleep(0.01)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Backend]:
    """A function that opens one store: elsewhere than in memory each time with threads and connections of its own."""
    if request.param == "sqlite":
        return lambda clock=None: SQLiteBackend(tmp_path / "queue.db", clock=clock)
    if request.param == "redis":
        url = valkey().emptied()
        return lambda clock=None: RedisBackend(url, clock=clock)
    made: list[Backend] = []

    def memory(clock: Clock | None = None) -> Backend:
        if not made:
            made.append(MemoryBackend(clock=clock))
        return made[0]

    return memory


async def recount(backend: Backend, queue: str = "default") -> list[Row]:
    """Every row that a scan finds; fails where the tally says otherwise (I3)."""
    rows: list[Row] = []
    for state in ("pending", "running", "succeeded", "dead"):
        scan: Scan | None = Scan(state=state)
        while scan is not None:
            page = await backend.scan(queue, scan)
            rows += page.rows
            scan = Scan(state=state, after=page.after) if page.after is not None else None
    tally = {key: n for key, n in (await backend.counts(queue)).tally.items() if n}
    assert tally == dict(Counter((str(row.state), row.priority, row.type, row.reason or "") for row in rows))
    return rows


async def soon(predicate: Callable[[], Awaitable[object]], within: float = 15.0) -> Any:
    """``eventually`` for an async predicate."""
    with anyio.fail_after(within):
        while not (answer := await predicate()):
            await anyio.sleep(0.005)
        return answer
