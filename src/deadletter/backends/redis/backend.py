"""The eleven methods on one Redis or Valkey server."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
from redis import exceptions

from ...interfaces.backend import Backend, Signals
from ...interfaces.clock import SystemClock
from ...model.errors import DurabilityNotMet, InvalidSetting
from ...model.row import (
    BATCH,
    DEAD,
    Change,
    Claim,
    Claimed,
    Counts,
    EventRow,
    Hint,
    Inserted,
    Insertion,
    Inspection,
    NewRow,
    Row,
    Scan,
    Slice,
    Verdict,
)
from . import endpoint, inspection
from .client import Connections, Ear
from .keys import prefix, unescaped
from .records import change_args, claim_args, insert_args, row_of, scan_args, texts_of
from .scripts import load_script

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from ...interfaces import Clock

log = logging.getLogger("deadletter.redis")

_prefix = functools.lru_cache(1024)(prefix)
_VERDICTS = {str(verdict).encode(): verdict for verdict in Verdict}
_INSERTED = {str(word).encode(): word for word in Inserted}
_FEW = 2_000  # fields of tally or counters that come in one answer
_EVENTS = 1_000  # read at once
_WAIT_MS = 2_000  # for replicas
_DURABILITY = re.compile(r"(wait|waitaof):([1-9][0-9]?)")


class RedisBackend(Backend):
    """Keeps tasks in Redis ≥ 7.0 or Valkey; every step is one Lua script.

    May be used from several event loops and threads at once, under asyncio and trio. Each asyncio loop has connections
    of its own; a forked child makes them anew.

    Args:
        client: a ``redis.Redis``, a ``redis.asyncio.Redis`` (read for its address and options alone: never mutated,
            never closed), or a URL.
        shards: over how many slots a queue is spread; this version knows 1.
        durability: ``"wait:N"`` or ``"waitaof:N"``: inserts and deaths wait for N replicas (or their AOF) and raise
            DurabilityNotMet where fewer have it within 2 s.
        allow_eviction: accept a server that deletes tasks when memory is short.
        clock: where "now" comes from; the server's own unless a test says otherwise.

    Raises:
        InvalidSetting: for an option or URL that cannot be used; at ``open`` for a server that would lose tasks.
    """

    def __init__(
        self,
        client: redis.Redis | redis.asyncio.Redis | str,
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
        if shards != 1:
            raise InvalidSetting("shards", f"{shards!r}: this version keeps a queue in one slot; leave shards out")
        if durability is not None and not _DURABILITY.fullmatch(durability):
            raise InvalidSetting("durability", f'{durability!r} is not like "wait:1" or "waitaof:1"')
        self._durability = durability
        self._allow_eviction = allow_eviction
        self._clock = None if clock is None or isinstance(clock, SystemClock) else clock
        self._connections = Connections(address)
        self._known: inspection.Facts | None = None

    @classmethod
    def from_url(cls, url: str, *, clock: Clock | None = None) -> RedisBackend:
        """``redis://user:password@host:6379/0``, ``rediss://…`` (TLS) or ``unix:///path.sock?db=0``.

        Options in the query: ``durability``, ``allow_eviction``, ``shards``, and those of redis-py.
        """
        return cls(url, clock=clock)

    @property
    def url(self) -> str:
        """Without the password."""
        return self._connections.url

    async def open(self) -> None:
        """Connect, and refuse a server that is too old or deletes tasks when memory is short."""
        if self._known is not None:
            return
        facts = await inspection.ask(self._connections.command)
        try:
            inspection.refuse(facts, self.url, allow_eviction=self._allow_eviction, durability=self._durability)
        except InvalidSetting:
            await self._connections.aclose()  # who is refused closes nothing
            raise
        self._connections.plain = not facts.version
        for finding in inspection.findings(facts, durability=self._durability):
            if finding.level in ("warning", "error"):
                log.warning("%s: %s", self.url, finding.text)
        self._known = facts

    async def aclose(self) -> None:
        """Close our connections; a client that was given stays open."""
        await self._connections.aclose()

    async def inspect(self) -> Inspection:
        """Version, clock, tier and what could lose tasks."""
        facts = await inspection.ask(self._connections.command)
        tier = facts.durability
        if self._durability is not None:
            tier = f"{tier}; inserts and deaths {self._durability}"
        return Inspection(
            backend=facts.name,
            version=facts.version,
            now_ms=await self._now_ms(),
            durability=tier,
            findings=inspection.findings(facts, durability=self._durability),
        )

    async def insert(self, queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
        """See Backend.insert."""
        if not rows:
            return []
        answer = await self._run("insert", queue, insert_args(rows), then=self._wait())
        if self._durability is not None:
            self._hold(answer.pop(), rows[0].id)
        now_ms = int(answer[1])
        return [_insertion(new, told, now_ms) for new, told in zip(rows, answer[2:], strict=False)]

    async def claim(self, queue: str, claim: Claim) -> Claimed:
        """See Backend.claim."""
        _, now, due, suspects, flat, words, *rows = await self._run("claim", queue, claim_args(claim))
        texts = texts_of(flat)
        return Claimed(
            rows=[row_of(row, texts) for row in rows],
            words={words[at].decode(): words[at + 1].decode() for at in range(0, len(words), 2)},
            now_ms=int(now),
            next_due_ms=int(due) if due else None,
            suspects=suspects == 1,
        )

    async def apply(self, queue: str, changes: Sequence[Change]) -> list[Verdict]:
        """See Backend.apply."""
        if not changes:
            return []
        died = next((change.id for change in changes if change.to == DEAD), None) if self._durability else None
        answer = await self._run("apply", queue, change_args(changes), then=self._wait() if died else ())
        if died is not None:
            self._hold(answer.pop(), died)
        return [_VERDICTS[word] for word in answer[2:]]

    async def sweep(self, queue: str, limit: int) -> list[Row]:
        """See Backend.sweep."""
        _, _, flat, *rows = await self._run("sweep", queue, [min(limit, BATCH)])
        texts = texts_of(flat)
        return [row_of(row, texts) for row in rows]

    async def load(self, queue: str, ids: Sequence[str], *, history: int = 1) -> list[Row | None]:
        """See Backend.load."""
        if not ids:
            return []
        _, _, flat, *rows = await self._run("load", queue, [history, *ids])
        texts = texts_of(flat)
        return [row_of(row, texts) if row else None for row in rows]

    async def scan(self, queue: str, scan: Scan) -> Slice:
        """See Backend.scan."""
        _, now, flat, time, id_, *rows = await self._run("scan", queue, scan_args(scan))
        texts = texts_of(flat)
        after = (int(time), id_.decode()) if time else None
        return Slice(rows=[row_of(row, texts) for row in rows], after=after, now_ms=int(now))

    async def counts(self, queue: str) -> Counts:
        """See Backend.counts."""
        _, now, tally, stats, pending, dead, overdue = await self._run("counts", queue, [_FEW])
        tally = tally if tally is not None else await self._all(queue, "tally")
        stats = stats if stats is not None else await self._all(queue, "stats")
        late: dict[str, int] = {}
        for at in range(0, len(overdue), 2):
            type_ = unescaped(overdue[at].decode())
            late[type_] = late.get(type_, 0) + int(overdue[at + 1])
        return Counts(
            tally=dict(_tallied(tally[at], tally[at + 1]) for at in range(0, len(tally), 2)),
            lifetime={tuple(orjson.loads(stats[at])): int(stats[at + 1]) for at in range(0, len(stats), 2)},
            oldest_pending_ms=int(pending) if pending else None,
            oldest_dead_ms=int(dead) if dead else None,
            overdue=late,
            now_ms=int(now),
        )

    @asynccontextmanager
    async def listen(self, queue: str, after: int | None = None) -> AsyncIterator[Signals]:
        """See Backend.listen."""
        await self.open()
        ear = await self._connections.listen(f"{_prefix(queue)}bell")
        try:
            if after is None:
                after = int(await self._connections.command("HGET", f"{_prefix(queue)}meta", "seq") or 0)
            async with aclosing(self._signals(queue, ear, after)) as signals:
                yield signals
        finally:
            await ear.close()

    async def _signals(self, queue: str, ear: Ear, seq: int) -> AsyncGenerator[Hint | EventRow, None]:
        told = True
        while True:
            while told:
                fresh = await self._events(queue, seq)
                for event in fresh:
                    seq = event.seq
                    yield event
                told = len(fresh) == _EVENTS
            try:
                told = await ear.hear()
            except (exceptions.RedisError, OSError) as error:
                raise self._connections.away(error) from error
            yield Hint()

    async def _events(self, queue: str, after: int) -> list[EventRow]:
        key = f"{_prefix(queue)}events"
        found = await self._connections.command("XRANGE", key, f"({after}-0", "+", "COUNT", _EVENTS)
        return [_event(entry[0], entry[1]) for entry in found]

    async def _all(self, queue: str, key: str) -> list[bytes]:
        """A large hash, read in steps; what changes meanwhile may be counted before or after."""
        found: dict[bytes, bytes] = {}
        cursor: int | bytes = 0
        while True:
            answer = await self._connections.command("HSCAN", f"{_prefix(queue)}{key}", cursor, "COUNT", _FEW // 2)
            cursor, page = answer
            found.update(page if isinstance(page, dict) else zip(page[::2], page[1::2], strict=True))
            if int(cursor) == 0:
                return [part for pair in found.items() for part in pair]

    async def _now_ms(self) -> int:
        if self._clock is not None:
            return self._clock.now_ms()
        seconds, micros = await self._connections.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def _run(self, name: str, queue: str, args: Sequence[Any], then: Sequence[Any] = ()) -> list[Any]:
        if self._known is None:
            await self.open()
        now = "" if self._clock is None else self._clock.now_ms()
        return await self._connections.script(load_script(name), f"{_prefix(queue)}meta", [now, *args], then)

    def _wait(self) -> Sequence[Any]:
        if self._durability is None:
            return ()
        how, _, replicas = self._durability.partition(":")
        return ("WAIT", replicas, _WAIT_MS) if how == "wait" else ("WAITAOF", 0, replicas, _WAIT_MS)

    def _hold(self, told: Any, task_id: str) -> None:
        reached = told[1] if isinstance(told, list) else told
        if int(reached) < int((self._durability or "wait:0").partition(":")[2]):
            raise DurabilityNotMet(task_id)


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


def _insertion(new: NewRow, told: Any, now_ms: int) -> Insertion:
    if told == b"stored":
        lease_ms = now_ms + new.lease_ms if new.lease_ms is not None else None
        return Insertion(Inserted.STORED, new.id, new.state, 0, new.token, lease_ms, now_ms)
    word, id_, state, generation, token, lease, body = told
    return Insertion(
        _INSERTED[word],
        id_.decode(),
        state.decode(),
        int(generation or 0),
        unescaped(token.decode()) or None,
        int(lease) if lease else None,
        now_ms,
        body,
    )


def _tallied(field: bytes, n: bytes) -> tuple[tuple[str, int, str, str], int]:
    state, rank, length, rest = field.split(b" ", 3)
    cut = int(length)
    type_, reason = unescaped(rest[cut:].decode()), unescaped(rest[:cut].decode())
    return (state.decode(), int(rank), type_, reason), int(n)


def _event(entry_id: bytes, flat: Any) -> EventRow:
    pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    told = {name.decode(): unescaped(value.decode()) for name, value in pairs}
    detail = {name: told[name] for name in ("reason", "fingerprint", "why") if told.get(name)}
    seq = int(entry_id.partition(b"-")[0])
    return EventRow(
        seq, told["kind"], int(told["at"]), told["id"] or None, told["type"] or None, int(told["n"]), detail
    )
