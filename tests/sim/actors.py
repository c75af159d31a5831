"""Who lives in the world: producers with lists of tasks, and workers whose processors do what a task's payload says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import attrs

from deadletter import Discard, PermanentError, Postpone, RetryAfter, Task, current_attempt
from deadletter.model.errors import BackendUnavailable, BatchFailed, IdempotencyConflict, TaskConflict

from .ledger import Run
from .world import Process, World

POSTPONE = random.Random()  # whether a postponing task still postpones; seeded with each world
TYPES = ("mail", "sms", "sync")
KINDS = (
    *("ok", "ok", "ok", "fail", "fail", "permanent", "reject", "postpone", "discard", "later", "long", "timeout"),
    *("cancel", "pill"),
)
DEADLY = ("permanent", "permanent", "reject", "ok")  # for operators who want letters


class Producer:
    """Enqueues a list of tasks, each until the queue says that it has it."""

    def __init__(self, world: World, number: int) -> None:
        chance = world.chance
        most = world.seed.at_most("tasks", chance.randint(3, 9))
        self._tasks = [draw_task(world, f"p{number}-{n}") for n in range(most)]
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
        chance = world.seed.chance(key)
    kind = chance.choice(DEADLY if world.seed.number % 3 == 0 else KINDS)
    type_ = chance.choice(TYPES)
    if key is not None and world.network.server.shards > 1:  # there only an id that nobody chose may have a key
        task_id = f"00000000-0000-7000-8000-{len(world.ledger.drawn):012x}"
    world.ledger.drawn.append(task_id)
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
        world = self._process.world
        hashed = world.watch.lives[task.id].key  # of the type that it was enqueued as
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
