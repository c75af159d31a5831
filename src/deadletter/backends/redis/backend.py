"""The eleven methods on Redis or Valkey: each queue is one shard, or spread over several."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from ...interfaces.backend import Backend, Signals
from ...interfaces.clock import SystemClock
from ...model.errors import ConfigurationConflict, InvalidSetting
from ...model.row import (
    Change,
    Claim,
    Claimed,
    Counted,
    Counts,
    Finding,
    Grouped,
    Insertion,
    Inspection,
    NewRow,
    Row,
    Scan,
    Slice,
    Verdict,
)
from . import endpoint, inspection
from .keys import prefix
from .listening import Listening
from .placement import MOST
from .routes import connections_to
from .scripts import load_scripts
from .shard import Shard
from .spread import Spread, Steps

if TYPE_CHECKING:
    from ...interfaces import Clock

log = logging.getLogger("deadletter.redis")

_DURABILITY = re.compile(r"(wait|waitaof):([1-9][0-9]?)")
_QUEUES = 1024  # whose shards are remembered


class RedisBackend(Backend):
    """Keeps tasks in Redis ≥ 7.0 or Valkey; every step is one Lua script on each shard that it concerns.

    May be used from several event loops and threads at once, under asyncio and trio. Each asyncio loop has connections
    of its own; a forked child makes them anew.

    Args:
        client: a ``redis.Redis``, ``redis.asyncio.Redis`` or ``RedisCluster`` of either kind (read for its address and
            options alone: never mutated, never closed), or a URL.
        shards: over how many slots each queue is spread, 1 to 64; fixed at a queue's first use. Order holds per shard.
        durability: ``"wait:N"`` or ``"waitaof:N"``: inserts and deaths wait for N replicas (or their AOF) and raise
            DurabilityNotMet where fewer have it within 2 s.
        allow_eviction: accept a server that deletes tasks when memory is short.
        clock: where "now" comes from; the server's own unless a test says otherwise.

    Raises:
        InvalidSetting: for an option or URL that cannot be used; at ``open`` for a server that would lose tasks.
    """

    def __init__(
        self,
        client: endpoint.Client | str,
        *,
        shards: int = 1,
        durability: str | None = None,
        allow_eviction: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(client, str):
            address, told = endpoint.of_url(client)
            shards, durability, allow_eviction = _options(told, shards, durability, allow_eviction)
        elif endpoint.is_client(client):
            address = endpoint.of_client(client)
        else:
            raise InvalidSetting("backend", f"{type(client).__name__} is no client of redis-py that is served here")
        if not isinstance(shards, int) or isinstance(shards, bool) or not 1 <= shards <= MOST:
            raise InvalidSetting("shards", f"{shards!r} is no number of shards; give 1 to {MOST}")
        self.shards = shards
        if durability is not None and not _DURABILITY.fullmatch(durability):
            raise InvalidSetting("durability", f'{durability!r} is not like "wait:1" or "waitaof:1"')
        self._durability = durability
        self._allow_eviction = allow_eviction
        self._clock = None if clock is None or isinstance(clock, SystemClock) else clock
        self._connections = connections_to(address)
        load_scripts()
        self._opened = False
        self._queues: dict[str, Steps] = {}

    @classmethod
    def from_url(cls, url: str, *, clock: Clock | None = None) -> RedisBackend:
        """Make one from a URL.

        ``redis://user:password@host:6379/0``, ``rediss://…`` (TLS), ``unix:///path.sock?db=0``,
        ``redis+sentinel://host,host2/service/0`` or ``redis+cluster://host,host2``.

        Options in the query: ``durability``, ``allow_eviction``, ``shards``, and those of redis-py.
        """
        return cls(url, clock=clock)

    @property
    def url(self) -> str:
        """Without the password."""
        return self._connections.url

    async def open(self) -> None:
        """Connect, and refuse a server that is too old or deletes tasks when memory is short."""
        if self._opened:
            return
        nodes, found = await inspection.ask_all(self._connections)
        try:
            for url, facts in nodes.items():
                inspection.refuse(facts, url, allow_eviction=self._allow_eviction, durability=self._durability)
        except InvalidSetting:
            await self._connections.aclose()  # who is refused closes nothing
            raise
        self._connections.plain = not all(facts.version for facts in nodes.values())
        for finding in [*found, *inspection.findings_of(nodes, durability=self._durability)]:
            if finding.level in ("warning", "error"):
                log.warning("%s: %s", self.url, finding.text)
        self._opened = True

    async def aclose(self) -> None:
        """Close our connections; a client that was given stays open."""
        await self._connections.aclose()

    async def inspect(self) -> Inspection:
        """Version, clock, tier and what could lose tasks."""
        nodes, found = await inspection.ask_all(self._connections)
        oldest = min(nodes.values(), key=lambda facts: facts.numbers)
        tier = inspection.tier_of(nodes)
        if self._durability is not None:
            tier = f"{tier}; inserts and deaths {self._durability}"
        return Inspection(
            backend=oldest.name,
            version=oldest.version,
            now_ms=await self._now_ms(),
            durability=tier,
            findings=[
                *found,
                *inspection.findings_of(nodes, durability=self._durability),
                *await self._connections.findings(),
                *self._spread(),
            ],
        )

    async def insert(self, queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
        """See Backend.insert."""
        if not rows:
            return []
        steps = self._queues.get(queue) or await self._steps(queue, writes=True)
        return await steps.insert(rows)

    async def claim(self, queue: str, claim: Claim) -> Claimed:
        """See Backend.claim."""
        return await (await self._steps(queue)).claim(claim)

    async def apply(self, queue: str, changes: Sequence[Change]) -> list[Verdict]:
        """See Backend.apply."""
        if not changes:
            return []
        return await (await self._steps(queue)).apply(changes)

    async def sweep(self, queue: str, limit: int) -> list[Row]:
        """See Backend.sweep."""
        return await (await self._steps(queue)).sweep(limit)

    async def load(self, queue: str, ids: Sequence[str], *, history: int = 1) -> list[Row | None]:
        """See Backend.load."""
        if not ids:
            return []
        return await (await self._steps(queue)).load(ids, history=history)

    async def scan(self, queue: str, scan: Scan) -> Slice:
        """See Backend.scan."""
        return await (await self._steps(queue)).scan(scan)

    async def count(self, queue: str, scan: Scan, most: int) -> Counted | None:
        """See Backend.count; an index that answers takes no longer for more rows."""
        del most
        return await (await self._steps(queue)).count(scan)

    async def groups(self, queue: str, scan: Scan, by: str) -> Sequence[Grouped] | None:
        """See Backend.groups."""
        return await (await self._steps(queue)).groups(scan, by)

    async def counts(self, queue: str) -> Counts:
        """See Backend.counts."""
        return await (await self._steps(queue)).counts()

    @asynccontextmanager
    async def listen(self, queue: str, after: int | None = None) -> AsyncIterator[Signals]:
        """See Backend.listen. The bell of a queue's first shard rings for all of them.

        Goes on by itself after the server was away, and tells a gap where its history is another then.
        """
        events = (await self._steps(queue)).events(after)
        listening = Listening(self._connections, f"{prefix(queue)}bell", events)
        try:
            await listening.begin()
            async with aclosing(listening.signals()) as signals:
                yield signals
        finally:
            await listening.close()

    async def _steps(self, queue: str, *, writes: bool = False) -> Steps:
        steps = self._queues.get(queue)
        if steps is not None:
            return steps
        await self.open()
        parts = [Shard(prefix(queue, n), self._connections, self._clock, self._durability) for n in range(self.shards)]
        steps = parts[0] if self.shards == 1 else Spread(parts)
        if await self._agreed(queue, f"{prefix(queue)}meta", writes=writes):
            if len(self._queues) >= _QUEUES:
                self._queues.pop(next(iter(self._queues)), None)
            self._queues[queue] = steps
        return steps

    async def _agreed(self, queue: str, meta: str, *, writes: bool) -> bool:
        """Whether the queue is spread as we are told; False where there is no such queue yet."""
        told, stored = await self._connections.command("HMGET", meta, "shards", "format")
        if told is None and stored is not None:  # from before shards were known
            told = 1
        if told is None and writes:
            await self._connections.command("HSETNX", meta, "shards", self.shards)
            told = await self._connections.command("HGET", meta, "shards")
        if told is None:
            return False
        if int(told) != self.shards:
            raise ConfigurationConflict(
                f"queue {queue!r} on {self.url} is kept in {int(told)} shards, and shards={self.shards} was asked for;"
                f" use shards={int(told)}, or move it into a new queue by deadletter export | deadletter import"
            )
        return True

    def _spread(self) -> list[Finding]:
        if self.shards == 1:
            return []
        return [Finding(level="ok", text=f"each queue is spread over {self.shards} shards; order holds within each")]

    async def _now_ms(self) -> int:
        if self._clock is not None:
            return self._clock.now_ms()
        seconds, micros = await self._connections.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


def _options(
    told: dict[str, str], shards: int, durability: str | None, allow_eviction: bool
) -> tuple[int, str | None, bool]:
    if "shards" in told:
        if not re.fullmatch(r"[0-9]{1,4}", told["shards"]):
            raise InvalidSetting("url", f"shards={told['shards']} is no number")
        shards = int(told["shards"])
    if "allow_eviction" in told:
        if told["allow_eviction"] not in ("0", "1"):
            raise InvalidSetting("url", f"allow_eviction={told['allow_eviction']} means nothing; write 0 or 1")
        allow_eviction = told["allow_eviction"] == "1"
    return shards, told.get("durability", durability), allow_eviction
