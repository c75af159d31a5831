"""What is proved at volume: parts, each a number of batches that a seed makes and that anyone can run again alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import attrs

SCHEDULES = 50  # of one batch
INPUTS = 5_000
STATES = 100


@attrs.frozen
class Part:
    """A measure of the page.

    Attributes:
        measure: what is counted.
        batch: runs the batch of a seed and answers how many it did; raises with the line that plays it again.
        size: how many a batch does.
        short, long: how many are wanted.
    """

    measure: str
    batch: Callable[[int], int]
    size: int
    short: int
    long: int

    def batches(self, *, long: bool) -> int:
        """How many there are."""
        return -(-(self.long if long else self.short) // self.size)


def _kill_workers(kind: str) -> Callable[[int], int]:
    def batch(seed: int) -> int:
        from ..faults.volume import kill_workers

        return sum(kill_workers(kind, seed).values())

    return batch


def _kill_servers(seed: int) -> int:
    from ..faults.volume import kill_servers

    return kill_servers("valkey" if seed % 2 else "debian", seed)


def _simulate(store: str) -> Callable[[int], int]:
    def batch(seed: int) -> int:
        from ..sim.play import play

        for number in range(seed * SCHEDULES, (seed + 1) * SCHEDULES):
            play(f"{store}:{number}").check()
        return SCHEDULES

    return batch


def _fuzz(target: str) -> Callable[[int], int]:
    def batch(seed: int) -> int:
        from ..fuzz.run import mutated

        fed, broken = mutated(target, seed, range(INPUTS))
        assert broken is None, f"{broken.told}\n{broken.line}  # plays it again"
        return fed

    return batch


def _power(seed: int) -> int:
    """One life on a recorded disk, cut at moments that the seed draws, in the ways in turn."""
    from ..power.disk import WAYS
    from ..power.story import record
    from ..power.test_n3_power_loss import states

    way = WAYS[seed % len(WAYS)]
    with TemporaryDirectory(prefix="deadletter-power-") as folder:
        disk = Path(folder, "disk")
        disk.mkdir()
        recording = anyio.run(record, disk, "FULL", 90, 1000 + seed)
        found = states(recording, way, min(STATES, len(recording.disk.happened)), Path(folder))
        lost = [each for each in found if each.lost]
        assert not lost, f"seed {seed}: {lost[:3]}"
        return len(found)


def _planted(seed: int) -> int:
    """The bugs in one language, each searched for from seed 0."""
    from ..planted.every import BUGS
    from ..planted.notice import search

    bug = random.Random(0).sample(BUGS, len(BUGS))[seed % len(BUGS)]
    assert search(bug) is not None, f"nobody noticed: {bug.where}: {bug.name}"
    return 1


def _bugs() -> int:
    from ..planted.every import BUGS

    return len(BUGS)


PARTS: dict[str, Part] = {
    "kills-sqlite": Part("worker kill -9, SQLite", _kill_workers("sqlite"), 100, 200, 5_000),
    "kills-redis": Part("worker kill -9, Redis", _kill_workers("redis"), 100, 200, 5_000),
    "servers": Part("Redis server kill -9 and restart, AOF always", _kill_servers, 25, 15, 500),
    "power": Part("power-loss states, SQLite", _power, STATES, 2_000, 100_000),
    "sim-memory": Part("simulated schedules, memory", _simulate("memory"), SCHEDULES, 2_500, 90_000),
    "sim-sqlite": Part("simulated schedules, SQLite", _simulate("sqlite"), SCHEDULES, 1_000, 35_000),
    "sim-redis": Part("simulated schedules, Redis", _simulate("redis"), SCHEDULES, 500, 20_000),
    "planted": Part("planted bugs noticed", _planted, 1, _bugs(), _bugs()),
    "fuzz-codec": Part("bad inputs: stored bodies", _fuzz("codec"), INPUTS, INPUTS, 200_000),
    "fuzz-cursor": Part("bad inputs: cursors", _fuzz("cursor"), INPUTS, INPUTS, 150_000),
    "fuzz-glob": Part("bad inputs: globs", _fuzz("glob"), INPUTS, INPUTS, 150_000),
    "fuzz-query": Part("bad inputs: queries", _fuzz("query"), INPUTS, INPUTS, 150_000),
    "fuzz-import": Part("bad inputs: imports", _fuzz("import"), INPUTS, INPUTS, 150_000),
    "fuzz-arguments": Part("bad inputs: arguments", _fuzz("arguments"), INPUTS, INPUTS, 150_000),
    "fuzz-settings": Part("bad inputs: environments", _fuzz("settings"), INPUTS, INPUTS, 40_000),
    "fuzz-url": Part("bad inputs: addresses", _fuzz("url"), INPUTS, INPUTS, 10_000),
}
