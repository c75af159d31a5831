"""Where all is kept: one store, or each queue spread over several of one kind."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio

from deadletter import Backend, Clock
from deadletter.backends.memory import MemoryBackend
from deadletter.backends.redis.keys import prefix
from deadletter.backends.redis.shard import Shard
from deadletter.backends.redis.spread import Spread
from deadletter.backends.sqlite import SQLiteBackend
from deadletter.model.row import EventRow

from .redis_store import InlineRedis

T = TypeVar("T")

STORES: dict[str, Callable[[Clock], Backend]] = {
    "memory": lambda clock: MemoryBackend(clock=clock),
    "sqlite": lambda clock: SQLiteBackend(":memory:", clock=clock, inline=True),
    "redis": InlineRedis,
}


class Server:
    """The shards of every queue; what is spread lies in a store a shard, or, on Redis, in a slot a shard."""

    def __init__(self, kind: str, clock: Clock, shards: int) -> None:
        self.shards = shards
        self._clock = clock
        self._stores = [STORES[kind](clock) for _ in range(1 if kind == "redis" else shards)]

    @property
    def first(self) -> Backend:
        """What a question about no queue goes to."""
        return self._stores[0]

    def part(self, queue: str, shard: int) -> Any:
        """One shard of a queue, with the methods of ``Shard``."""
        store = self._stores[0]
        if self.shards > 1 and isinstance(store, InlineRedis):
            return Shard(prefix(queue, shard), store._connections, self._clock, None)
        return _Bound(self._stores[shard], queue)

    def whole(self, queue: str) -> Any:
        """A queue with all of its shards, asked one after the other."""
        parts = [self.part(queue, shard) for shard in range(self.shards)]
        return parts[0] if self.shards == 1 else _InTurn(parts)

    def bells(self) -> list[Backend]:
        """The stores that tell whether there is work."""
        return self._stores

    async def events(self, queue: str) -> list[EventRow]:
        """All that are stored, those of a shard in their order."""
        heard: list[EventRow] = []
        for shard in range(self.shards):
            part = self.part(queue, shard)
            if isinstance(part, Shard):
                heard += await part.events(0).read()
                continue
            with anyio.move_on_after(0.1):
                async with self._stores[shard].listen(queue, 0) as signals:
                    async for signal in signals:
                        if isinstance(signal, EventRow):
                            heard.append(signal)
        return heard


class _Bound:
    """One queue of a backend."""

    def __init__(self, store: Backend, queue: str) -> None:
        self._store = store
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        return functools.partial(getattr(self._store, name), self._queue)


class _InTurn(Spread):
    """Whose shards are asked without letting anybody else run."""

    async def _each(self, calls: Mapping[int, Awaitable[T]], *, patient: bool = False) -> dict[int, T]:
        return {shard: await call for shard, call in calls.items()}
