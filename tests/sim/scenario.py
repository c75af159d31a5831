"""What happens in the world: some live in it, the weather is bad, and then everything must come to an end."""

from __future__ import annotations

import asyncio
import random

from deadletter import State

from .actors import Producer, Worker
from .operators import Operator
from .world import Process, World


async def live(world: World) -> None:
    """The whole story of one world, to the moment where everything must be in order."""
    chance, seed = world.seed.chance("crews"), world.seed
    crews = _crews(chance)
    for name, types in crews[: seed.at_most("workers", len(crews))] if len(crews[0][1]) == 1 else crews:
        world.start(name, Worker(types, chance.randint(1, 4)))
    hurry = chance.choice(((2, 0.5), (1, 2.0)))
    operators = [
        world.start(f"operator{n}", Operator(*hurry)) for n in range(seed.at_most("operators", chance.randint(0, 2)))
    ]
    producers = [
        world.start(f"producer{n}", Producer(world, n)) for n in range(seed.at_most("producers", chance.randint(1, 3)))
    ]
    while world.loop.time() < world.plan.chaos and not _broken(world):
        await asyncio.sleep(0.25)
        _strike(world)
    world.heal()
    await drain(world, [*producers, *operators])


def _crews(chance: random.Random) -> list[tuple[str, list[str]]]:
    """Workers whose types are partly disjoint, and together all."""
    if chance.random() < 0.4:
        return [(f"worker{n}", ["*"]) for n in range(chance.randint(1, 3))]  # of whom one suffices
    return [
        ("worker0", ["mail", "sync"]),
        ("worker1", ["sms", "mail"]),
        *([("worker2", ["s*"])] if chance.random() < 0.5 else []),
    ]


def _broken(world: World) -> bool:
    return bool(world.broken or world.watch.broken)


def _strike(world: World) -> None:
    """A quarter of a second of bad weather."""
    chance, plan = world.chance, world.plan
    hit = chance.choice(world.processes)
    later = world.loop.call_later

    def often(rate: float) -> bool:
        return chance.random() < rate / 4 * len(world.processes)

    if often(plan.kill):
        hit.kill()
    elif often(plan.freeze):
        hit.freeze(chance.choice((0.2, plan.lease * 0.9, plan.lease * 1.5, plan.lease * 4)))
    elif often(plan.stop) and hit.worker is not None and hit.alive and not hit.frozen:
        hit.worker.stop() if chance.random() < 0.5 else hit.task.cancel()
    elif often(plan.cut):
        cut = hit.link.cut
        cut.off = True
        later(chance.uniform(0.1, plan.lease * 2), setattr, cut, "off", False)
    elif often(plan.away / len(world.processes)):
        world.network.away = True
        later(chance.uniform(0.1, plan.lease * 3), setattr, world.network, "away", False)
    elif often(plan.jump):
        hit.clock.offset_ms = chance.choice((-3_600_000, 0, 3_600_000))


async def drain(world: World, busy: list[Process]) -> None:
    """Wait until nothing is left to do; what takes longer than it may is written down."""
    began = world.loop.time()
    limit = began + allowance(world)
    while not _broken(world):
        await asyncio.sleep(0.25)
        now = world.loop.time()
        _check_lapses(world, now)
        alive = sum(life.state in (State.PENDING, State.RUNNING) for life in world.watch.lives.values())
        if not alive and all(process.done for process in busy) and now - began > world.plan.under_way:
            return
        if now > limit:
            stuck = [
                f"{life.id} {life.state}"
                for life in world.watch.lives.values()
                if life.state in (State.PENDING, State.RUNNING)
            ]
            idle = [process.name for process in busy if not process.done]
            world.broken.append(f"I8: {now - began:.0f} s after the faults healed there is still {stuck} {idle}")


def allowance(world: World) -> float:
    """Seconds in which everything must have drained after the faults healed."""
    lease = world.plan.lease
    tasks = world.ledger.offered.values()
    pills = sum(task.payload["do"] == "pill" for task in tasks)
    work = sum((task.payload["n"] + 1) * (task.payload["seconds"] + 0.1) for task in tasks)
    operators = 20 if any(process.name.startswith("operator") for process in world.processes) else 0
    return world.plan.under_way + lease + 1 + 4 * 2.2 + work + pills * 3 * (lease + 2) + 10 + operators


def _check_lapses(world: World, now: float) -> None:
    """I8: a lapsed lease is found within a second, and a moment for the way."""
    if now < world.healed_at + world.plan.under_way + 3:
        return
    for life in world.watch.lives.values():
        if life.state == State.RUNNING and life.lease_ms is not None and life.lease_ms + 3000 < world.server.now_ms():
            world.broken.append(f"I8: the lease on {life.id} lapsed 3 s ago, and nobody has noticed")
