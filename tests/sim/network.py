"""The way to the store: requests and answers may be late, lost, or come twice.

The store itself does one step at a time.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from deadletter.model.errors import BackendUnavailable

from .history import Call, History
from .loop import SeededLoop
from .pace import Pace, Rates
from .server import Server
from .watch import Watch

if TYPE_CHECKING:
    from .link import Link

T = TypeVar("T")

PATIENCE = (0.2, 4.0)  # seconds until a caller takes an answer that never comes for lost


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
        self, loop: SeededLoop, server: Server, watch: Watch, chance: random.Random, pace: Pace, *, epoch_ms: int
    ) -> None:
        self.server = server
        self.pace = pace
        self._epoch_ms = epoch_ms
        self.watch = watch
        self.history = History()
        self.rates: Rates = pace.rates
        self.chance = chance
        self.away = False  # the store cannot be reached by anybody
        self.over = False
        self._loop = loop
        self._carriers: set[asyncio.Task[None]] = set()

    async def call(self, request: Request, name: str, *args: Any, **options: Any) -> Any:
        """Send a request and wait for its answer; raises BackendUnavailable where none comes."""
        if self.over:
            raise Over
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._start(self._carry(request, reply, name, args, options))
        return await reply

    def now_ms(self) -> float:
        """The server's clock, between its ticks too; never rounded up to the next one."""
        ticks, part = divmod(self._loop.time() * 1000, 1)
        return self._epoch_ms + ticks + min(part, 0.999)

    def _start(self, carrier: Coroutine[Any, Any, None]) -> None:
        # In a context of its own: a request under way does not care whether its sender still lives.
        task = self._loop.create_task(carrier, context=contextvars.Context())
        self._carriers.add(task)
        task.add_done_callback(self._carriers.discard)

    def _strikes(self, rate: float) -> bool:
        return self.chance.random() < rate

    async def _carry(self, request: Request, reply: asyncio.Future[Any], name: str, args: Any, options: Any) -> None:
        cut, who = request.link.cut, request.link.who
        await asyncio.sleep(self.pace.delay(self.rates, who))
        if self.away or cut.off or self._strikes(self.rates.lose_request):
            await asyncio.sleep(self.chance.uniform(*PATIENCE))
            _fail(reply, f"{name}: the request was lost")
            return
        if self._strikes(self.rates.repeat):
            if request.asked is not None:
                self.history.repeat(request.asked, self.now_ms())
            self._start(self._again(request.shard, name, args, options))
        try:
            answer = self._execute(request.shard, name, args, options)
        except Exception as error:
            _raise(reply, error)
            return
        if self.away or cut.off or self._strikes(self.rates.lose_reply):
            await asyncio.sleep(self.chance.uniform(*PATIENCE))
            _fail(reply, f"{name}: the answer was lost")
            return
        await asyncio.sleep(self.pace.delay(self.rates, who))
        if not reply.done():
            reply.set_result(answer)

    async def _again(self, shard: int, name: str, args: Any, options: Any) -> None:
        await asyncio.sleep(self.chance.choice((0.0, 0.01, self.chance.uniform(0.0, self.rates.longest))))
        self._execute(shard, name, args, options)

    def _execute(self, shard: int, name: str, args: Any, options: Any) -> Any:
        if self.over:
            raise Over
        if name == "inspect":
            return at_once(self.server.first.inspect())
        queue, *rest = args
        answer = at_once(getattr(self.server.part(queue, shard), name)(*rest, **options))
        self.watch.saw(name, args, answer, shard)
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
    """Who sends a call to which shard, and where it stands in the history."""

    link: Link
    shard: int
    asked: Call | None
