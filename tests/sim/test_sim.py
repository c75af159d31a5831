"""The real engine under a few hundred seeds.

``SIM_SEED=memory:7`` plays one of them, ``SIM_SEEDS=10000`` more of them.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from deadletter import Task

from .network import Rates
from .play import play, run
from .scenario import Worker, drain
from .world import STORES, Process, World

COUNTS = {"memory": 140, "sqlite": 70, "redis": 3}


def _seeds() -> list[str]:
    one = os.environ.get("SIM_SEED")
    if one:
        return [one]
    count = os.environ.get("SIM_SEEDS")
    return [f"{store}:{n}" for store in STORES for n in range(int(count) if count else COUNTS[store])]


@pytest.mark.parametrize("seed", _seeds())
def test_what_must_hold_holds_under_this_seed(seed: str) -> None:
    play(seed).check()


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
