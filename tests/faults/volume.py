"""Kills at volume: a batch on a store of its own, everything checked at its end, and a seed that plays it again."""

from __future__ import annotations

import atexit
import functools
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..redis_servers import Server as RedisServer
from ..redis_servers import debian_program, valkey_program
from .conftest import Child, Server, eventually, made_store, starting
from .doom import POINTS, TORN
from .invariants import check
from .redis_store import RedisStore
from .store import Store
from .test_01_worker_killed import PATIENT, SETTINGS, check_outcomes, some_tasks
from .test_03_server_killed import kill_server

BATCH = 100  # worker kills on one store
AT_ONCE = 4  # doomed workers beside each other
SERVER_BATCH = 25  # kills of one server
STUCK = 30.0  # seconds in which somebody must have died


def kill_workers(kind: str, seed: int, kills: int = BATCH) -> Counter[str]:
    """Kill so many workers, each at a point of its own; how many died where."""
    server = _server()
    with (
        TemporaryDirectory(prefix="deadletter-kills-") as folder,
        _opened(kind, Path(folder)) as store,
        starting(server, store) as start,
    ):
        return _kill(store, start, server, random.Random(f"{kind}:{seed}"), kills)


def _kill(store: Store, start: Callable[..., Child], server: Server, chance: random.Random, kills: int) -> Counter[str]:
    points = (*POINTS, TORN) if store.over_a_wire else POINTS
    fates = itertools.cycle(chance.sample(points, len(points)))
    numbers = itertools.count()
    died: Counter[str] = Counter()
    working: dict[int, tuple[str, Child]] = {}
    killed: list[str] = []
    store.enqueue(*some_tasks(numbers, 100))
    for at in range(kills + AT_ONCE):
        if at < kills:
            point = next(fates)
            child = start("worker", kill_at=point, after=chance.randint(1, 4), concurrency=4, **SETTINGS)
            working[child.pid] = (point, child)
            killed.append(child.name)
        if at >= AT_ONCE:
            point, child = working.pop(_next_death(server, working))
            assert child.code == -signal.SIGKILL, f"{child.name} should have died at {point}: {child.code}"
            died[point] += 1
        if at % 10 == 9 and store.dlq.sync.stats().by_state["pending"] < 60:
            store.enqueue(*some_tasks(numbers, 60))
    finishers = [start("worker", **PATIENT) for _ in range(2)]
    eventually(lambda: _drained(store), within=60)
    assert [child.drain() for child in finishers] == [0, 0]
    check(store, killed=killed)
    check_outcomes(store)
    return died


def _next_death(server: Server, working: dict[int, tuple[str, Child]]) -> int:
    until = time.monotonic() + STUCK
    while time.monotonic() < until:
        found = server.ask(do="any", within=1.0)
        if found is not None:
            pid, code = found
            working[pid][1].code = code
            return int(pid)
    raise AssertionError(f"nobody died in {STUCK:g} s: {sorted(point for point, _ in working.values())}")


def _drained(store: Store) -> bool:
    counted = store.dlq.sync.stats().by_state
    return not counted["pending"] and not counted["running"]


def kill_servers(program: str, seed: int, kills: int = SERVER_BATCH) -> int:
    """Kill a Redis whose log is flushed always so often, under load; nothing that it acknowledged is lost."""
    path = {"valkey": valkey_program, "debian": debian_program}[program]()
    with TemporaryDirectory(prefix="deadletter-kills-") as folder:
        redis = RedisServer(path, "--appendonly", "yes", "--appendfsync", "always")
        try:
            store = RedisStore(Path(folder), redis)
            try:
                with starting(_server(), store) as start:
                    kill_server(store, start, kills, seed=seed)
            finally:
                store.close()
        finally:
            redis.end()
    return kills


@contextmanager
def _opened(kind: str, folder: Path) -> Iterator[Store]:
    store = made_store(kind, folder)
    try:
        yield store
    finally:
        store.close()


@functools.cache
def _server() -> Server:
    """One for all batches of this process: it takes a second to import everything."""
    server = Server()
    atexit.register(server.close)
    return server
