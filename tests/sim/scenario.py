"""Who lives in the world: producers, workers, an operator, and whoever breaks things."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from deadletter import Discard, PermanentError, Postpone, Query, RetryAfter, State, Task, current_attempt
from deadletter.model.errors import BackendUnavailable, BatchFailed, DeadLetterError, IdempotencyConflict, TaskConflict
from deadletter.rules.codec import key_hash

from .ledger import Run
from .world import QUEUE, Process, World

POSTPONE = random.Random()  # whether a postponing task still postpones; seeded with each world
TYPES = ("mail", "sms", "sync")
KINDS = (
    "ok",
    "ok",
    "ok",
    "fail",
    "fail",
    "permanent",
    "reject",
    "postpone",
    "discard",
    "later",
    "long",
    "timeout",
    "cancel",
    "pill",
)


async def live(world: World) -> None:
    """The whole story of one world, to the moment where everything must be in order."""
    chance = world.chance
    producers = [world.start(f"producer{n}", Producer(world, n)) for n in range(chance.randint(1, 3))]
    for name, types in _crews(chance):
        world.start(name, Worker(types, chance.randint(1, 4)))
    operators = [world.start(f"operator{n}", operate) for n in range(chance.randint(0, 2))]
    while world.loop.time() < world.plan.chaos and not _broken(world):
        await asyncio.sleep(0.25)
        _strike(world)
    world.heal()
    await drain(world, [*producers, *operators])


def _crews(chance: random.Random) -> list[tuple[str, list[str]]]:
    """Workers whose types are partly disjoint, and together all."""
    if chance.random() < 0.4:
        return [(f"worker{n}", ["*"]) for n in range(chance.randint(1, 3))]
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
    return world.plan.under_way + lease + 1 + 4 * 2.2 + work + pills * 3 * (lease + 2) + 10


def _check_lapses(world: World, now: float) -> None:
    """I8: a lapsed lease is found within a second, and a moment for the way."""
    if now < world.healed_at + world.plan.under_way + 3:
        return
    for life in world.watch.lives.values():
        if life.state == State.RUNNING and life.lease_ms is not None and life.lease_ms + 3000 < world.server.now_ms():
            world.broken.append(f"I8: the lease on {life.id} lapsed 3 s ago, and nobody has noticed")


class Producer:
    """Enqueues a list of tasks, each until the queue says that it has it."""

    def __init__(self, world: World, number: int) -> None:
        chance = world.chance
        self._tasks = [draw_task(world, f"p{number}-{n}") for n in range(chance.randint(3, 9))]
        self._pause = chance.uniform(0.05, world.plan.chaos / 12)

    async def __call__(self, process: Process) -> None:
        ledger, chance = process.world.ledger, process.world.chance
        left = [task for task in self._tasks if task.id not in ledger.acknowledged and task.id not in ledger.refused]
        while left:
            batch = left[: chance.choice((1, 1, 1, 3))]
            try:
                await self._store(process, batch)
            except BackendUnavailable:
                await asyncio.sleep(chance.uniform(0, 1))
            except BatchFailed as error:
                if not isinstance(error.__cause__, BackendUnavailable):
                    ledger.refused.add(batch[error.index].id)
            except (IdempotencyConflict, TaskConflict):
                ledger.refused.add(batch[0].id)
            await asyncio.sleep(chance.uniform(0, self._pause))
            left = [task for task in left if task.id not in ledger.acknowledged and task.id not in ledger.refused]

    async def _store(self, process: Process, batch: list[Task]) -> None:
        ledger, queue = process.world.ledger, process.queue
        for task in batch:
            ledger.offer(task)
        if len(batch) > 1:
            answers = await queue.enqueue_many(batch)
        else:
            answers = [await queue.enqueue(batch[0], on_dead=process.world.chance.choice(("keep", "replay")))]
        for task, answer in zip(batch, answers, strict=True):
            ledger.acknowledge(task, answer)


def draw_task(world: World, task_id: str) -> Task:
    """A task, and in its payload what becomes of it."""
    chance = world.chance
    key = chance.choice((None, None, None, "k0", "k1", "k2"))
    if key is not None and chance.random() < 0.9:
        chance = random.Random(world.seed + key)
    kind = chance.choice(KINDS)
    type_ = chance.choice(TYPES)
    seconds = chance.choice((0.0, 0.05, 0.5))
    if kind == "long":
        seconds = 8.0
    if type_ == "sync":
        kind, seconds = (kind if kind not in ("long", "timeout", "cancel") else "ok"), 0.0
    return Task(
        type=type_,
        id=task_id,
        payload={
            "do": kind,
            "n": chance.choice((1, 2, 9)) if kind in ("fail", "later", "timeout", "cancel") else 0,
            "seconds": seconds,
        },
        priority=chance.choice(("high", "normal", "low")),
        idempotency_key=key,
        delay=chance.choice((0, 0, 0, 2)),
        timeout=0.3 if kind == "timeout" else None,
        expires_in=chance.choice((None, None, None, 3)),
        on_uncertain=chance.choice((None, None, None, "dead")),
    )


@attrs.frozen
class Worker:
    """A worker process."""

    types: list[str]
    concurrency: int

    async def __call__(self, process: Process) -> None:
        processors = Processors(process)
        for type_ in TYPES:
            process.queue.processor(type_)(processors.sync if type_ == "sync" else processors.run)
        worker = process.queue.worker(
            types=self.types, concurrency=self.concurrency, shutdown_grace=3, name=process.name
        )
        process.worker = worker
        await worker.run()


class Processors:
    """Does what a task's payload says, and writes it into the ledger."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._lane = process.lane.name

    def _begin(self, task: Task) -> Run:
        token = self._process.queue.tokens[id(task)][1]
        key = task.idempotency_key
        hashed = key_hash(QUEUE, task.type, key) if key is not None else None
        world = self._process.world
        now, number = world.loop.time(), current_attempt().number
        late = now > world.watch.leases[token].until
        return world.ledger.begin(Run(task.id, hashed, token, self._lane, now, number, late=late))

    def _end(self, run: Run, outcome: str) -> None:
        self._process.world.ledger.end(run, self._process.world.loop.time(), outcome)

    async def run(self, task: Task) -> Any:
        """An async processor."""
        run = self._begin(task)
        try:
            said = task.payload
            if said["do"] == "pill":
                self._process.kill()
                await asyncio.Event().wait()
            await asyncio.sleep(said["seconds"] + (1 if said["do"] == "timeout" and run.number <= said["n"] else 0))
            result = _act(said, run.number)
        except BaseException as error:
            self._end(run, type(error).__name__)
            raise
        self._end(run, "rejected" if result is False else "succeeded")
        return result

    def sync(self, task: Task) -> Any:
        """A sync one; a thread cannot be killed in the middle without its process, so the pill is no pill here."""
        run = self._begin(task)
        try:
            result = _act(task.payload, run.number)
        except BaseException as error:
            self._end(run, type(error).__name__)
            raise
        self._end(run, "rejected" if result is False else "succeeded")
        return result


def _act(said: Mapping[str, Any], number: int) -> object:
    kind, again = said["do"], number <= said["n"]
    if kind == "permanent":
        raise PermanentError("never")
    if kind == "discard":
        raise Discard("nothing to do")
    if kind == "postpone" and POSTPONE.random() < 0.5:
        raise Postpone(0.5, "not now")
    if again and kind == "fail":
        raise ValueError("it failed")
    if again and kind == "later":
        raise RetryAfter(0.7, "in a moment")
    if again and kind == "cancel":
        raise asyncio.CancelledError
    return kind != "reject"


def random_half(said: Mapping[str, Any]) -> bool:
    """Whether a postponing task still postpones: seldom for long."""
    return POSTPONE.random() < 0.5


POSTPONE = random.Random()


async def operate(process: Process) -> None:
    """Somebody at the command line, in a hurry."""
    world, queue = process.world, process.queue
    care = asyncio.get_running_loop().create_task(queue.keeper.serve())
    while not world.healed:
        await asyncio.sleep(world.chance.uniform(0.1, 2))
        if not world.ledger.offered:
            continue
        try:
            await _meddle(process, world.chance.choice(sorted(world.ledger.offered)))
        except DeadLetterError as error:
            world.ledger.told.append((type(error).__name__, ""))
    care.cancel()


async def _meddle(process: Process, task_id: str) -> None:
    world, queue = process.world, process.queue
    chance, told = world.chance, world.ledger.told
    processors = Processors(process)

    async def one_attempt() -> None:
        record = await queue.get(task_id)
        if record.task.payload.get("do") in (None, "pill"):
            return
        processor = processors.sync if record.task.type == "sync" else processors.run
        if await queue.process_task(task_id, processor):
            told.append(("processed", task_id))

    async def retry() -> None:
        dead = await queue.list(limit=5)
        if dead.items:
            picked = chance.choice([item.task.id for item in dead.items])
            await queue.retry(picked, reset_attempts=chance.random() < 0.7, delay=chance.choice((0, 1)))
            told.append(("replayed", picked))

    async def cancel() -> None:
        if await queue.cancel(task_id):
            told.append(("cancelled", task_id))

    async def look() -> None:
        await queue.stats()
        await queue.groups()
        assert all([record.state == State.DEAD async for record in queue.scan()])

    actions: list[Callable[[], Any]] = [
        one_attempt,
        one_attempt,
        retry,
        retry,
        cancel,
        look,
        lambda: queue.retry_all(Query(type=chance.choice(("mail", "s*"))), limit=3),
        lambda: queue.purge(Query(reason=chance.choice(("permanent", "retries_exhausted")))),
    ]
    await chance.choice(actions)()
