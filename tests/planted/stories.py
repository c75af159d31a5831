"""Stories for bugs that the simulation's bad weather meets too seldom: each arranges the one moment that matters."""

from __future__ import annotations

import asyncio

import attrs

from deadletter import Task
from deadletter.model.errors import LeaseLost

from ..sim.actors import Worker
from ..sim.pace import Rates
from ..sim.scenario import drain
from ..sim.world import Process, World


def _task(id_: str, do: str, seconds: float, key: str | None = None) -> Task:
    return Task(type="mail", id=id_, payload={"do": do, "n": 0, "seconds": seconds}, idempotency_key=key)


def _producer(world: World, *tasks: Task) -> Process:
    """Enqueues all of them at once."""

    async def enqueue(process: Process) -> None:
        async def one(task: Task) -> None:
            world.ledger.acknowledge(task, await process.queue.enqueue(task))

        alone = process.queue.backend.shards == 1  # a spread queue takes no chosen id with a key
        stored = [task if alone else attrs.evolve(task, idempotency_key=None) for task in tasks]
        for task in stored:
            world.ledger.offer(task)
        await asyncio.gather(*map(one, stored))

    return world.start("producer", enqueue)


async def cut_off(world: World) -> None:
    """A worker is cut off in the middle of a long attempt, keyed or not: it must stop, and nobody may run beside it."""
    world.network.rates = Rates()
    lease = world.plan.lease
    producer = _producer(world, _task("long", "ok", 4 * lease, world.chance.choice((None, "k"))))
    workers = [world.start(f"worker{n}", Worker(["mail"], 1)) for n in range(2)]
    while not world.ledger.runs:
        await asyncio.sleep(0.1)
    first = world.ledger.runs[0]
    cut = next(worker for worker in workers if worker.lane.name == first.process).link.cut
    await asyncio.sleep(lease / 2)
    cut.off = True
    await asyncio.sleep(2 * lease)
    cut.off = False
    world.heal()
    await drain(world, [producer])
    if first.outcome == "succeeded":
        world.broken.append(f"an attempt went on for {first.ended} s under a lease that was lost")


async def stand_still(world: World) -> None:
    """An operator processes a task, and stands still until a worker has had it: no success may be told."""
    world.network.rates = Rates()
    lease = world.plan.lease
    producer = _producer(world, _task("taken", "permanent", 0.0))
    while "taken" not in world.ledger.acknowledged:
        await asyncio.sleep(0.05)
    told: list[object] = []

    async def work(task: Task) -> None:
        del task
        await asyncio.sleep(world.chance.uniform(0.1, lease / 4))

    async def process_it(process: Process) -> None:
        try:
            told.append(await process.queue.process_task("taken", work))
        except LeaseLost:
            told.append(LeaseLost)

    operator = world.start("operator", process_it)
    await asyncio.sleep(0.05)
    operator.freeze(2 * lease + 3)
    world.start("worker", Worker(["mail"], 1))
    await asyncio.sleep(2 * lease + 5)
    world.heal()
    await drain(world, [producer, operator])
    if True in told:
        world.broken.append("an operator was told of a success, and the task is dead")


async def calm(world: World) -> None:
    """Nothing goes wrong: each task runs once, loses no lease, and is answered under its own id."""
    world.network.rates = Rates()
    tasks = [_task(f"t{n}", "ok", world.chance.choice((0.0, 0.05))) for n in range(30)]
    producer = _producer(world, *tasks)
    world.start("worker", Worker(["mail"], 4))
    world.heal()
    await drain(world, [producer])
    runs = [began.task_id for began in world.ledger.runs]
    if sorted(runs) != sorted(task.id for task in tasks):
        world.broken.append(f"30 tasks ran {len(runs)} times")
    crossed = [f"{given} as {answered}" for given, answered in world.ledger.acknowledged.items() if given != answered]
    if crossed:
        world.broken.append(f"answers were crossed: {crossed}")
