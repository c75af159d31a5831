"""Somebody at the command line, in a hurry: looks, retries, edits, purges, cancels, pauses, and lifts what they paused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import anyio

from deadletter import Query, State
from deadletter.model.errors import BackendUnavailable, DeadLetterError

from .actors import Processors
from .world import Process

PAUSED = ("mail", "s*", "*")
LONGER = 3.0  # seconds for which they go on after all has healed, when there are letters at last


class Operator:
    """Meddles at so many terminals at once; ``longest``: seconds between two commands, at most."""

    def __init__(self, terminals: int, longest: float) -> None:
        self._terminals = terminals
        self._longest = longest

    async def __call__(self, process: Process) -> None:
        care = asyncio.get_running_loop().create_task(process.queue.keeper.serve())
        async with anyio.create_task_group() as group:
            for _ in range(self._terminals):
                group.start_soon(self._meddle, process)
        care.cancel()
        while not await lifted(process):
            await asyncio.sleep(0.2)

    async def _meddle(self, process: Process) -> None:
        world = process.world
        while world.loop.time() < world.healed_at + LONGER:
            await asyncio.sleep(world.chance.uniform(self._longest / 20, self._longest))
            if not world.ledger.offered:
                continue
            try:
                await _Command(process, world.chance.choice(sorted(world.ledger.offered))).any()
            except DeadLetterError as error:
                world.ledger.told.append((type(error).__name__, ""))


async def lifted(process: Process) -> bool:
    """Resume all that is paused; False where that has to be tried again."""
    try:
        await process.queue.resume("*")
    except BackendUnavailable:
        return False
    return True


class _Command:
    """One command, perhaps on one task."""

    def __init__(self, process: Process, task_id: str) -> None:
        self._process = process
        self._task_id = task_id
        self._queue = process.queue
        self._told = process.world.ledger.told
        self._chance: random.Random = process.world.chance

    async def any(self) -> None:
        """Do one of all."""
        commands: list[Callable[[], Awaitable[object]]] = [
            *(self.one_attempt, self.one_attempt, self.cancel, self.look, self.resume),
            *(() if self._process.world.healed else (self.pause,)),
            *(self.retry, self.retry, self.retry, self.edit, self.retry_some, self.retry_some),
            *(self.purge, self.purge, self.purge_one, self.purge_one),
        ]
        await self._chance.choice(commands)()

    async def one_attempt(self) -> None:
        record = await self._queue.get(self._task_id)
        if record.task.payload.get("do") in (None, "pill"):
            return
        processors = Processors(self._process)
        processor = processors.sync if record.task.type == "sync" else processors.run
        if await self._queue.process_task(self._task_id, processor):
            self._told.append(("processed", self._task_id))

    async def _letter(self) -> str | None:
        dead = await self._queue.list(limit=5)
        return self._chance.choice([item.task.id for item in dead.items]) if dead.items else None

    def _rate(self) -> float | None:
        """At one a second, a letter may live again, and die again, between the scan and its turn."""
        return self._chance.choice((None, 1.0, 5.0))

    async def retry(self) -> None:
        picked = await self._letter()
        if picked is not None:
            chance = self._chance
            await self._queue.retry(picked, reset_attempts=chance.random() < 0.7, delay=chance.choice((0, 1)))
            self._told.append(("replayed", picked))

    async def edit(self) -> None:
        """Retry with another payload, or as another type."""
        picked = await self._letter()
        if picked is not None:
            task = (await self._queue.get(picked)).task
            kind = self._chance.choice(("ok", "permanent"))
            type_ = "mail" if task.type == "sms" and self._chance.random() < 0.5 else None
            await self._queue.retry(picked, payload={**task.payload, "do": kind}, type=type_, why="it was wrong")
            self._told.append(("replayed", picked))

    async def cancel(self) -> None:
        if await self._queue.cancel(self._task_id):
            self._told.append(("cancelled", self._task_id))

    async def look(self) -> None:
        await self._queue.stats()
        await self._queue.groups()
        assert all([record.state == State.DEAD async for record in self._queue.scan()])

    async def retry_some(self) -> None:
        await self._queue.retry_all(Query(type=self._chance.choice(("mail", "s*"))), limit=3, rate=self._rate())

    async def purge(self) -> None:
        reason = self._chance.choice(("permanent", "rejected", "retries_exhausted"))
        await self._queue.purge(Query(reason=reason), rate=self._rate())

    async def purge_one(self) -> None:
        picked = await self._letter()
        if picked is not None:
            await self._queue.purge(Query(ids=[picked]))

    async def pause(self) -> None:
        await self._queue.pause(self._chance.choice(PAUSED), why="to see what happens")

    async def resume(self) -> None:
        await self._queue.resume(self._chance.choice(PAUSED))
