"""Who notices a planted bug: searches that go from seed to seed until one shows it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import anyio
import attrs

from deadletter.backends.memory import MemoryBackend
from deadletter.backends.redis import RedisBackend
from deadletter.backends.sqlite import SQLiteBackend
from deadletter.model.row import Claim, NewRow
from deadletter.testing import VirtualClock

from ..redis_servers import valkey
from ..sim.play import play, run, undisturbed
from ..sim.scope import Scope, explore
from ..sim.seed import Seed
from ..sim.world import World
from ..unit.backends import test_sqlite_differs_nowhere as on_sqlite
from ..unit.backends.redis import test_lua_is_the_machine as on_redis
from .bug import Bug
from .stories import calm, cut_off, stand_still

HOUR_MS = 3_600_000


@attrs.frozen
class Search:
    """Plays a seed; how many are played before a bug counts as unnoticed."""

    shows: Callable[[int], bool]
    seeds: int


@attrs.frozen
class Noticed:
    """How long it took."""

    seeds: int
    seconds: float


def search(bug: Bug) -> Noticed | None:
    """The seeds that it took; None where none of them showed it."""
    how = SEARCHES[bug.noticed_by]
    began = time.monotonic()
    logging.disable(logging.CRITICAL)
    try:
        with bug.planted():
            for seed in range(how.seeds):
                if how.shows(seed):
                    return Noticed(seed + 1, round(time.monotonic() - began, 2))
    finally:
        logging.disable(logging.NOTSET)
    return None


def _simulated(seed: int) -> bool:
    return bool(play(f"memory:{seed}").wrong)


def _fails(agree: Callable[[int], None]) -> Callable[[int], bool]:
    def shows(seed: int) -> bool:
        try:
            agree(seed)
        except Exception:  # a difference, or the store's own refusal
            return True
        return False

    return shows


class TwoProcesses:
    """Two backends on one file, and a call goes to either; a claim and its repeat to the same."""

    def __init__(self, stores: Sequence[Any], dice: random.Random) -> None:
        self._stores = stores
        self._dice = dice

    def __getattr__(self, name: str) -> Any:
        async def call(queue: str, *given: Any, **options: Any) -> Any:
            named = isinstance(given[0], Claim) if given else False
            at = crc32(given[0].op.encode()) % 2 if named else self._dice.randrange(2)
            return await getattr(self._stores[at], name)(queue, *given, **options)

        return call


def _two_processes(seed: int) -> None:
    dice, clock = random.Random(seed), VirtualClock()

    async def run(folder: str) -> None:
        files = [
            SQLiteBackend(Path(folder) / "queue.db", clock=clock, inline=True, synchronous="NORMAL") for _ in range(2)
        ]
        pair = on_sqlite.Pair(clock, (MemoryBackend(clock=clock), TwoProcesses(files, dice)), dice)  # type: ignore[arg-type]
        try:
            for _ in range(on_sqlite.STEPS):
                await dice.choice([pair.insert, pair.claim, pair.claim, pair.apply, pair.apply, pair.sweep])()
                clock.advance(dice.choice([0, 0.001, 0.1, 0.6]))
        finally:
            for file in files:
                await file.aclose()

    with TemporaryDirectory() as folder:
        anyio.run(run, folder)


def _clock_is_the_servers(seed: int) -> None:
    """Redis tells the time, to the millisecond, whatever the caller's machine believes."""
    del seed

    def told() -> float:
        with valkey().client() as client:
            seconds, micros = client.time()
        return float(seconds * 1000 + micros // 1000)

    async def run() -> None:
        backend = RedisBackend(valkey().emptied())
        try:
            for delay_ms in (0, 60_000):
                await backend.insert("q", [NewRow(id=f"in {delay_ms}", type="a", due_ms=delay_ms, digest="x")])
            for op in range(20):  # a clock that only counts seconds is right once in a thousand times
                before = told()
                claimed = await backend.claim("q", Claim(op=str(op), types=["a"], lease_ms=1000, limit=2, owner="w"))
                assert before <= claimed.now_ms <= told()
                assert [row.id for row in claimed.rows] == (["in 0"] if op == 0 else [])
        finally:
            await backend.aclose()

    real = time.time_ns
    time.time_ns = lambda: real() + HOUR_MS * 1_000_000
    try:
        anyio.run(run)
    finally:
        time.time_ns = real


def _told(story: Callable[[World], Awaitable[None]]) -> Callable[[int], bool]:
    return lambda seed: bool(run(World(Seed.of(f"memory:{seed}")), story).wrong)


SMALL_WORLDS = (
    Scope(("killer", "retry", "purge"), dead=True),
    Scope(("killer", "killer", "retry", "retry"), dead=True),
)


def _in_every_order(seed: int) -> bool:
    """What needs three steps in one order is met by drawn seeds once in thousands: here the n-th world is gone through."""
    with undisturbed():
        return bool(explore(SMALL_WORLDS[seed]).wrong)


SEARCHES = {
    "simulation": Search(_simulated, 500),
    "a worker that is cut off": Search(_told(cut_off), 100),
    "an operator that stands still": Search(_told(stand_still), 200),
    "a day without a fault": Search(_told(calm), 20),
    "a small world in every order": Search(_in_every_order, len(SMALL_WORLDS)),
    "SQLite beside memory": Search(_fails(on_sqlite.agree), 300),
    "two processes on SQLite beside memory": Search(_fails(_two_processes), 100),
    "Redis beside memory": Search(_fails(on_redis.agree), 300),
    "a caller whose clock is an hour off": Search(_fails(_clock_is_the_servers), 1),
}


def all_quiet(name: str, seeds: int) -> bool:
    """Whether a search is quiet where nothing is planted."""
    return not any(SEARCHES[name].shows(seed) for seed in range(seeds))
