"""Stored events, read one after the other, and how it is noticed that a server's history is another than it was.

A primary that dies may take its last events along: the replica that follows it counts on from an earlier number, and
gives the numbers that it does not know to other events. So the last entry that was read is read again each time.
"""

from __future__ import annotations

import abc
import heapq
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs

from ...model.event import EventKind
from ...model.row import EventRow
from .client import Connections
from .keys import unescaped
from .placement import packed

AT_ONCE = 1_000  # events read in one step


class Events(abc.ABC):
    """Where one listener stands in the events of a queue."""

    @abc.abstractmethod
    async def begin(self) -> None:
        """Learn where the last event is, where the first to be told is the next one."""

    @abc.abstractmethod
    async def read(self) -> list[EventRow]:
        """The next ones, AT_ONCE of a shard at most, each telling how many before it are gone.

        A row of kind ``gap`` says that the history is another than it was.
        """


class ShardEvents(Events):
    """Those of one shard."""

    def __init__(self, prefix: str, connections: Connections, after: int | None) -> None:
        self._prefix, self._connections = prefix, connections
        self._after = after
        self._last: EventRow | None = None

    @property
    def seq(self) -> int:
        """Of the last event that was told."""
        return self._after or 0

    async def begin(self) -> None:
        """See Events.begin."""
        if self._after is None:
            self._after = await self._position()

    async def read(self) -> list[EventRow]:
        """See Events.read."""
        await self.begin()
        seq = self.seq
        command = ("XRANGE", f"{self._prefix}events", f"{seq}-0", "+", "COUNT", AT_ONCE + 1)
        found = [_event(entry[0], entry[1]) for entry in await self._connections.command(*command)]
        told: list[EventRow] = []
        if found and found[0].seq == seq:
            known, self._last = self._last, found[0]
            if known is None or known == found[0]:
                del found[0]
            else:
                told.append(_gap(seq - 1, found[0].at_ms, 1))
        elif not found and seq:
            position = await self._position()
            if position < seq:
                self._after, self._last = position, None
                return [_gap(position, await self._now_ms(), seq - position)]
        for event in found:
            told.append(event.following(self.seq))
            self._after, self._last = event.seq, event
        return told

    async def _position(self) -> int:
        return int(await self._connections.command("HGET", f"{self._prefix}meta", "seq") or 0)

    async def _now_ms(self) -> int:
        seconds, micros = await self._connections.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


class SpreadEvents(Events):
    """Those of several shards, by time; those of one shard in their order.

    ``each`` asks all at once, and goes on without shards that are away.
    """

    def __init__(
        self,
        shards: Sequence[ShardEvents],
        each: Callable[[Mapping[int, Awaitable[None]]], Awaitable[object]],
    ) -> None:
        self._shards, self._each = shards, each
        self._positions: list[int] = []
        self._read: dict[int, list[EventRow]] = {n: [] for n in range(len(shards))}  # and not told yet

    async def begin(self) -> None:
        """See Events.begin."""
        for shard in self._shards:
            await shard.begin()
        self._positions = [shard.seq for shard in self._shards]

    async def read(self) -> list[EventRow]:
        """See Events.read."""
        if not self._positions:
            await self.begin()
        await self._each({n: self._read_one(n) for n in range(len(self._shards))})
        lines = [[(event.at_ms, n, event) for event in self._read[n]] for n in sorted(self._read)]
        found: list[EventRow] = []
        for _, n, event in heapq.merge(*lines, key=lambda entry: entry[:2]):
            self._positions[n] = event.seq
            found.append(attrs.evolve(event, seq=packed(self._positions)))
        for read in self._read.values():
            read.clear()
        return found

    async def _read_one(self, n: int) -> None:
        self._read[n] += await self._shards[n].read()


def _gap(seq: int, at_ms: int, missed: int) -> EventRow:
    return EventRow(seq, EventKind.GAP, at_ms, missed=missed)


def _event(entry_id: bytes, flat: Any) -> EventRow:
    pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    told = {name.decode(): unescaped(value.decode()) for name, value in pairs}
    detail = {name: told[name] for name in ("reason", "fingerprint", "why") if told.get(name)}
    seq = int(entry_id.partition(b"-")[0])
    return EventRow(
        seq, told["kind"], int(told["at"]), told["id"] or None, told["type"] or None, int(told["n"]), detail
    )
