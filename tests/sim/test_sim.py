"""The real engine under a few hundred seeds.

``SIM_SEED=memory:7`` plays one of them, ``SIM_SEEDS=10000`` more of them.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from deadletter import Task

from .actors import Worker
from .pace import Pace, Priorities, Rates
from .play import play, run
from .scenario import drain
from .seed import Seed
from .server import STORES
from .world import Process, World

COUNTS = {"memory": 64, "sqlite": 32, "redis": 5}
FULL = {"memory": 2_500, "sqlite": 1_000, "redis": 500}
SOAK = {"memory": 90_000, "sqlite": 35_000, "redis": 20_000}


def _seeds() -> list[str]:
    one = os.environ.get("SIM_SEED")
    if one:
        return [one]
    count = os.environ.get("SIM_SEEDS")
    return [f"{store}:{n}" for store in STORES for n in range(int(count) if count else COUNTS[store])]


def _stretches(first: dict[str, int], end: dict[str, int], size: int) -> list[tuple[str, int, int]]:
    return [(store, n, min(n + size, end[store])) for store in STORES for n in range(first[store], end[store], size)]


@pytest.mark.parametrize("seed", _seeds())
def test_what_must_hold_holds_under_this_seed(seed: str) -> None:
    play(seed).check()


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("store", "first", "end"), _stretches(COUNTS, FULL, 50))
def test_what_must_hold_holds_under_many_seeds(store: str, first: int, end: int) -> None:
    for number in range(first, end):
        play(f"{store}:{number}").check()


@pytest.mark.soak
@pytest.mark.parametrize(("store", "first", "end"), _stretches(FULL, SOAK, 500))
def test_what_must_hold_holds_under_very_many_seeds(store: str, first: int, end: int) -> None:
    for number in range(first, end):
        play(f"{store}:{number}").check()


def test_seeds_differ_in_what_they_are_made_of() -> None:
    """With priorities and without, drawn rates and fixed ones, one shard and several: each is among a few dozen seeds."""
    worlds = [World(Seed.of(f"memory:{number}")) for number in range(40)]
    for world in worlds:
        world.loop.close()
    assert {type(world.pace) for world in worlds} == {Pace, Priorities}
    assert {world.network.server.shards for world in worlds} == {1, 2, 3}
    assert len({world.plan.rates for world in worlds}) > 10


@pytest.mark.parametrize("seed", range(5))
def test_low_progresses_while_high_never_ends(seed: int) -> None:
    """I9: one worker, always more high tasks than it can do, and a low one that must not wait for their end."""

    async def flood(process: Process) -> None:
        ledger = process.world.ledger
        for number in range(200):
            priority = "low" if number == 10 else "high"
            task = Task(
                type="mail", id=f"{priority}-{number}", payload={"do": "ok", "n": 0, "seconds": 0.1}, priority=priority
            )
            ledger.offer(task)
            ledger.acknowledge(task, await process.queue.enqueue(task))
            await asyncio.sleep(0.02)

    async def story(world: World) -> None:
        world.network.rates = Rates()
        producer = world.start("producer", flood)
        world.start("worker", Worker(["mail"], 1))
        await asyncio.sleep(5)
        world.heal()
        await drain(world, [producer])

    world = World("memory", seed)
    run(world, story).check()
    order = [began.task_id for began in world.ledger.runs]
    assert order.index("low-10") < 40, order
