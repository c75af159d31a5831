"""The way to the store: requests and answers may be late, lost, or come twice.

The store itself does one step at a time.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import attrs

from deadletter import Backend
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

from .history import Call, History
from .loop import SeededLoop
from .watch import Watch

T = TypeVar("T")

FAULTY = (0.0, 0.05, 0.2, 0.5)
PATIENCE = (0.2, 4.0)  # seconds until a caller takes an answer that never comes for lost


@attrs.frozen(kw_only=True)
class Rates:
    """How often what goes wrong."""

    lose_request: float = 0.0
    lose_reply: float = 0.0
    slow: float = 0.0
    repeat: float = 0.0
    longest: float = 0.05  # seconds that a slow message takes at most

    @classmethod
    def drawn(cls, chance: random.Random, longest: float) -> Rates:
        """Each on its own."""
        lose_request, lose_reply, slow, repeat = (chance.choice(FAULTY) for _ in range(4))
        return cls(lose_request=lose_request, lose_reply=lose_reply, slow=slow, repeat=repeat, longest=longest)

    @classmethod
    def moderate(cls, longest: float) -> Rates:
        """A bad day."""
        return cls(lose_request=0.05, lose_reply=0.05, slow=0.05, repeat=0.05, longest=longest)


class Over(Exception):
    """The simulation has ended; what is still under way comes here to die."""


def at_once(step: Coroutine[Any, Any, T]) -> T:
    """Run one step of the store without letting anybody else run."""
    while True:
        try:
            step.send(None)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class Network:
    """Carries every call to the one store, and shows the watch what happened there."""

    def __init__(
        self, loop: SeededLoop, store: Backend, watch: Watch, chance: random.Random, rates: Rates, *, epoch_ms: int
    ) -> None:
        self.store = store
        self._epoch_ms = epoch_ms
        self.watch = watch
        self.history = History()
        self.rates = rates
        self.chance = chance
        self.away = False  # the store cannot be reached by anybody
        self.over = False
        self._loop = loop
        self._carriers: set[asyncio.Task[None]] = set()

    async def call(self, link: Link, name: str, *args: Any, **options: Any) -> Any:
        """Send a request and wait for its answer; raises BackendUnavailable where none comes."""
        if self.over:
            raise Over
        reply: asyncio.Future[Any] = self._loop.create_future()
        asked = None
        if args and args[0] == self.watch.queue:
            asked = self.history.ask(link.who, name, args[1:], options, self.now_ms())
        self._start(self._carry(Request(link.cut, reply, asked), name, args, options))
        answer = await reply
        if asked is not None:
            self.history.tell(asked, answer, self.now_ms())
        return answer

    def now_ms(self) -> float:
        """The server's clock, between its ticks too."""
        return self._epoch_ms + self._loop.time() * 1000

    def _start(self, carrier: Coroutine[Any, Any, None]) -> None:
        # In a context of its own: a request under way does not care whether its sender still lives.
        task = self._loop.create_task(carrier, context=contextvars.Context())
        self._carriers.add(task)
        task.add_done_callback(self._carriers.discard)

    def _delay(self) -> float:
        if self.chance.random() < self.rates.slow:
            return self.chance.uniform(0.0, self.rates.longest)
        return self.chance.uniform(0.0005, 0.01)

    def _strikes(self, rate: float) -> bool:
        return self.chance.random() < rate

    async def _carry(self, request: Request, name: str, args: Any, options: Any) -> None:
        cut, reply = request.cut, request.reply
        await asyncio.sleep(self._delay())
        if self.away or cut.off or self._strikes(self.rates.lose_request):
            await asyncio.sleep(self.chance.uniform(*PATIENCE))
            _fail(reply, f"{name}: the request was lost")
            return
        if self._strikes(self.rates.repeat):
            if request.asked is not None:
                self.history.repeat(request.asked, self.now_ms())
            self._start(self._again(name, args, options))
        try:
            answer = self._execute(name, args, options)
        except Exception as error:
            _raise(reply, error)
            return
        if self.away or cut.off or self._strikes(self.rates.lose_reply):
            await asyncio.sleep(self.chance.uniform(*PATIENCE))
            _fail(reply, f"{name}: the answer was lost")
            return
        await asyncio.sleep(self._delay())
        if not reply.done():
            reply.set_result(answer)

    async def _again(self, name: str, args: Any, options: Any) -> None:
        await asyncio.sleep(self.chance.choice((0.0, 0.01, self.chance.uniform(0.0, self.rates.longest))))
        self._execute(name, args, options)

    def _execute(self, name: str, args: Any, options: Any) -> Any:
        if self.over:
            raise Over
        answer = at_once(getattr(self.store, name)(*args, **options))
        self.watch.saw(name, args, answer)
        return answer


def _fail(reply: asyncio.Future[Any], why: str) -> None:
    _raise(reply, BackendUnavailable(why))


def _raise(reply: asyncio.Future[Any], error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)


@attrs.define
class Cut:
    """Whether one process is cut off from the store."""

    off: bool = False


@attrs.frozen(eq=False)
class Request:
    """A call under way: who waits for its answer, and where it stands in the history."""

    cut: Cut
    reply: asyncio.Future[Any]
    asked: Call | None


class Link(Backend):
    """The store as one process sees it."""

    def __init__(self, network: Network, who: str) -> None:
        self.who = who
        self.cut = Cut()
        self._network = network
        self.scan_limit = network.store.scan_limit

    @property
    def url(self) -> str:
        return self._network.store.url

    async def open(self) -> None:
        """The store is open as long as the world stands."""

    async def aclose(self) -> None:
        """As ``open``."""

    async def inspect(self) -> Inspection:
        return await self._network.call(self, "inspect")  # type: ignore[no-any-return]

    async def insert(self, queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
        return await self._network.call(self, "insert", queue, rows)  # type: ignore[no-any-return]

    async def claim(self, queue: str, claim: Claim) -> Claimed:
        return await self._network.call(self, "claim", queue, claim)  # type: ignore[no-any-return]

    async def apply(self, queue: str, changes: Sequence[Change]) -> list[Verdict]:
        return await self._network.call(self, "apply", queue, changes)  # type: ignore[no-any-return]

    async def sweep(self, queue: str, limit: int) -> list[Row]:
        return await self._network.call(self, "sweep", queue, limit)  # type: ignore[no-any-return]

    async def load(self, queue: str, ids: Sequence[str], *, history: int = 1) -> list[Row | None]:
        return await self._network.call(self, "load", queue, ids, history=history)  # type: ignore[no-any-return]

    async def scan(self, queue: str, scan: Scan) -> Slice:
        return await self._network.call(self, "scan", queue, scan)  # type: ignore[no-any-return]

    async def counts(self, queue: str) -> Counts:
        return await self._network.call(self, "counts", queue)  # type: ignore[no-any-return]

    @asynccontextmanager
    async def listen(self, queue: str, after: int | None = None) -> AsyncIterator[Signals]:  # type: ignore[override]
        """Hints get lost as often as requests do."""
        network = self._network
        if network.over:
            raise Over
        if network.away or self.cut.off or network.chance.random() < network.rates.lose_request:
            raise BackendUnavailable("listen: no connection")
        async with network.store.listen(queue, after) as signals:
            yield self._heard(signals)

    async def _heard(self, signals: Signals) -> Signals:  # type: ignore[misc]
        network = self._network
        async with aclosing(signals) as heard:  # type: ignore[type-var]
            async for signal in heard:
                deaf = network.away or self.cut.off or network.chance.random() < network.rates.lose_reply
                if not (isinstance(signal, Hint) and deaf):
                    yield signal
