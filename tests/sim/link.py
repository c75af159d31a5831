"""The store as one process sees it, over a network that may fail it."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import attrs

from deadletter import Backend
from deadletter.backends.redis.spread import Spread
from deadletter.interfaces.backend import Signals
from deadletter.model.errors import BackendUnavailable
from deadletter.model.row import (
    Change,
    Claim,
    Claimed,
    Counts,
    Hint,
    Insertion,
    Inspection,
    NewRow,
    Row,
    Scan,
    Slice,
    Verdict,
)

from .history import Call
from .network import Network, Over, Request

_ASKED: ContextVar[Call | None] = ContextVar("_ASKED", default=None)


@attrs.define
class Cut:
    """Whether one process is cut off from the store."""

    off: bool = False


class Link(Backend):
    """What each process has one of; a queue on several shards is put together here, by the real ``Spread``."""

    def __init__(self, network: Network, who: str) -> None:
        self.who = who
        self.cut = Cut()
        self.shards = network.server.shards
        self.scan_limit = network.server.first.scan_limit
        self._network = network
        self._spreads: dict[str, Spread] = {}

    @property
    def url(self) -> str:
        return self._network.server.first.url

    async def open(self) -> None:
        """The store is open as long as the world stands."""

    async def aclose(self) -> None:
        """As ``open``."""

    async def _ask(self, name: str, queue: str, *args: Any, **options: Any) -> Any:
        network = self._network
        asked = None
        if queue == network.watch.queue:
            asked = network.history.ask(self.who, name, args, options, network.now_ms())
        token = _ASKED.set(asked)
        try:
            if self.shards == 1:
                answer = await self.send(0, name, queue, *args, **options)
            else:
                answer = await getattr(self._spread(queue), name)(*args, **options)
        finally:
            _ASKED.reset(token)
        if asked is not None:
            network.history.tell(asked, answer, network.now_ms())
        return answer

    def _spread(self, queue: str) -> Spread:
        spread = self._spreads.get(queue)
        if spread is None:
            parts: list[Any] = [_Part(self, queue, shard) for shard in range(self.shards)]
            spread = self._spreads[queue] = Spread(parts)
        return spread

    async def send(self, shard: int, name: str, *args: Any, **options: Any) -> Any:
        """A request to one shard, on behalf of the call that is being made."""
        return await self._network.call(Request(self, shard, _ASKED.get()), name, *args, **options)

    async def inspect(self) -> Inspection:
        return await self.send(0, "inspect")  # type: ignore[no-any-return]

    async def insert(self, queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
        return await self._ask("insert", queue, rows)  # type: ignore[no-any-return]

    async def claim(self, queue: str, claim: Claim) -> Claimed:
        return await self._ask("claim", queue, claim)  # type: ignore[no-any-return]

    async def apply(self, queue: str, changes: Sequence[Change]) -> list[Verdict]:
        return await self._ask("apply", queue, changes)  # type: ignore[no-any-return]

    async def sweep(self, queue: str, limit: int) -> list[Row]:
        return await self._ask("sweep", queue, limit)  # type: ignore[no-any-return]

    async def load(self, queue: str, ids: Sequence[str], *, history: int = 1) -> list[Row | None]:
        return await self._ask("load", queue, ids, history=history)  # type: ignore[no-any-return]

    async def scan(self, queue: str, scan: Scan) -> Slice:
        return await self._ask("scan", queue, scan)  # type: ignore[no-any-return]

    async def counts(self, queue: str) -> Counts:
        return await self._ask("counts", queue)  # type: ignore[no-any-return]

    @asynccontextmanager
    async def listen(self, queue: str, after: int | None = None) -> AsyncIterator[Signals]:  # type: ignore[override]
        """Hints get lost as often as requests do; those of all shards are heard."""
        network = self._network
        if network.over:
            raise Over
        if network.away or self.cut.off or network.chance.random() < network.rates.lose_request:
            raise BackendUnavailable("listen: no connection")
        async with AsyncExitStack() as stack:
            heard = [await stack.enter_async_context(bell.listen(queue, after)) for bell in network.server.bells()]
            if len(heard) == 1:
                yield self._heard(heard[0])
                return
            send, receive = anyio.create_memory_object_stream[Any](100)
            group = await stack.enter_async_context(anyio.create_task_group())
            for signals in heard:
                group.start_soon(_pass_on, signals, send.clone())
            with send, receive:
                yield self._heard(_received(receive))
                group.cancel_scope.cancel()

    async def _heard(self, signals: Signals) -> Signals:  # type: ignore[misc]
        network = self._network
        async with aclosing(signals) as heard:  # type: ignore[type-var]
            async for signal in heard:
                deaf = network.away or self.cut.off or network.chance.random() < network.rates.lose_reply
                if not (isinstance(signal, Hint) and deaf):
                    yield signal


async def _pass_on(signals: Signals, send: Any) -> None:
    async with aclosing(signals) as heard, send:  # type: ignore[type-var]
        async for signal in heard:
            await send.send(signal)


async def _received(receive: Any) -> AsyncGenerator[Any, None]:
    async for signal in receive:
        yield signal


class _Part:
    """One shard of a queue, with the methods of ``Shard``."""

    def __init__(self, link: Link, queue: str, shard: int) -> None:
        self._link = link
        self._queue = queue
        self._shard = shard

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._link.send, self._shard, name, self._queue)
