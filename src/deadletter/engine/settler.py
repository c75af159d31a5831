"""Single items of many callers, joined into few backend calls, without a timer.

The first caller calls the backend itself; only those who arrive meanwhile wait, and the one that waited longest takes
them all along in the next call.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import attrs

from ..model.errors import BackendUnavailable, DurabilityNotMet
from ..model.row import BATCH, DEAD, Change, NewRow, Verdict
from ..runtime.loops import Bell, Reply

if TYPE_CHECKING:
    from ..interfaces import Clock

In = TypeVar("In", bound=NewRow | Change)
Out = TypeVar("Out")

log = logging.getLogger("deadletter.settler")

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 2.0


@attrs.define(eq=False)
class _Line(Generic[In, Out]):
    """Who waits in one event loop."""

    busy: bool = False
    crowded: bool = False  # the last call took several along
    waiting: deque[tuple[In, Reply[Out | None]]] = attrs.field(factory=deque)


class Coalescer(Generic[In, Out]):
    """Joins single items of different callers in one loop into batches of at most 100.

    Args:
        flush: does a batch; may raise, and then each caller gets the error.
        alone: whether the answers mean that the batch must be sent again one by one (nothing of it was done). So it
            is where
            a batch fails though the store is there: one bad item fails no stranger.
    """

    def __init__(
        self,
        flush: Callable[[list[In]], Awaitable[Sequence[Out]]],
        alone: Callable[[Sequence[Out]], bool] = lambda _: False,
    ) -> None:
        self._flush = flush
        self._alone = alone
        self._lines: dict[int, _Line[In, Out]] = {}

    def _line(self) -> _Line[In, Out]:
        name = threading.get_ident()
        return self._lines.get(name) or self._lines.setdefault(name, _Line())

    def forget(self) -> None:
        """Drop all state: after a fork nobody waits here."""
        self._lines.clear()

    async def __call__(self, item: In) -> Out:
        """The answer to one item."""
        line = self._line()
        if line.busy:
            reply: Reply[Out | None] = Reply()
            line.waiting.append((item, reply))
            answer = await self._wait(line, item, reply)
            if answer is not None:
                return answer
            return await self._lead(line, item)
        line.busy = True
        if line.crowded:
            return await self._lead_crowd(line, item)
        try:
            return (await self._flush([item]))[0]
        finally:
            self._hand_over(line)

    async def _lead_crowd(self, line: _Line[In, Out], item: In) -> Out:
        """Lead once those have come back who were answered together: else every other call would be of one item."""
        try:
            for _ in range(2):  # trio runs what is due in one turn in any order
                await anyio.lowlevel.checkpoint()
        except BaseException:
            self._hand_over(line)
            raise
        return await self._lead(line, item)

    async def _wait(self, line: _Line[In, Out], item: In, reply: Reply[Out | None]) -> Out | None:
        try:
            return await reply.wait()
        except BaseException as error:
            if (item, reply) in line.waiting:
                line.waiting.remove((item, reply))
            elif reply.leads:  # cancelled just when its turn had come
                self._hand_over(line)
            reply.error = error  # nobody waits for it any more
            raise

    def _hand_over(self, line: _Line[In, Out]) -> None:
        line.busy = False
        if line.waiting:
            line.busy = True
            _, reply = line.waiting.popleft()
            reply.leads = True
            reply.arrive()

    async def _lead(self, line: _Line[In, Out], item: In) -> Out:
        others = [line.waiting.popleft() for _ in range(min(BATCH - 1, len(line.waiting)))]
        line.crowded = bool(others)
        answers: list[Any] = []
        with anyio.CancelScope(shield=True):  # others wait for this call: their leader may not leave midway
            try:
                answers = await self._send([item, *(other for other, _ in others)])
            except BaseException:  # asyncio's own cancel breaks shields: the others go again, which is safe
                line.waiting.extendleft(waiter for waiter in reversed(others) if waiter[1].error is None)
                raise
            finally:
                self._hand_over(line)
        for (_, reply), answer in zip(others, answers[1:], strict=True):
            if isinstance(answer, BaseException):
                reply.error = answer
            else:
                reply.value = answer
            reply.arrive()
        mine: Out | BaseException = answers[0]
        if isinstance(mine, BaseException):
            raise mine
        return mine

    async def _send(self, items: list[In]) -> list[Out | BaseException]:
        try:
            answers = await self._flush(items)
        except DurabilityNotMet:
            return await self._short(items)
        except Exception as error:  # each caller is told
            if len(items) == 1 or isinstance(error, BackendUnavailable):
                return [error for _ in items]
        else:
            if len(items) == 1 or not self._alone(answers):
                return list(answers)
        one_by_one: list[Out | BaseException] = []
        for item in items:
            one_by_one += await self._send([item])
        return one_by_one

    async def _short(self, items: list[In]) -> list[Out | BaseException]:
        """Too few replicas have it: told to each whom that concerns. What else was done asks no replica when repeated."""
        concerned = [isinstance(item, NewRow) or item.to == DEAD for item in items]
        others = [item for item, waits in zip(items, concerned, strict=True) if not waits]
        answers = iter(await self._send(others) if others else [])
        return [
            DurabilityNotMet(item.id) if waits else next(answers) for item, waits in zip(items, concerned, strict=True)
        ]


async def persist(
    apply: Callable[[], Awaitable[list[Verdict]]], clock: Clock, give_up: Callable[[], float]
) -> list[Verdict]:
    """Call ``apply`` until the store answers: what an attempt did must not be forgotten since the store was away.

    Its ops make a repeat safe. Raises BackendUnavailable once the clock's monotonic time has passed ``give_up()``.
    """
    wait = _FIRST_WAIT
    while True:
        try:
            return await apply()
        except BackendUnavailable as error:
            if clock.monotonic() >= give_up():
                raise
            if wait == _FIRST_WAIT:
                log.warning("outcomes wait for the store: %s", error)
        await clock.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


class Settler:
    """A worker's outcomes on their way to the store: nobody waits for a verdict, and what piles up goes together.

    ``on_verdicts`` gets a batch and its verdicts, None for a change that could not be stored. ``give_up`` is the
    monotonic time after which a store that is away is waited for no longer.
    """

    def __init__(
        self,
        apply: Callable[[Sequence[Change]], Awaitable[list[Verdict]]],
        clock: Clock,
        on_verdicts: Callable[[Sequence[Change], Sequence[Verdict | None]], None],
    ) -> None:
        self._apply = apply
        self._clock = clock
        self._on_verdicts = on_verdicts
        self._waiting: deque[Change] = deque()
        self._bell = Bell()
        self._under_way = 0
        self.give_up = math.inf  # lowered when the worker must leave

    @property
    def pending(self) -> int:
        """How many changes are not yet known to be stored."""
        return len(self._waiting) + self._under_way

    def put(self, change: Change) -> None:
        """Store this soon; in the worker's loop, never blocks."""
        if not self._waiting:
            self._bell.ring()
        self._waiting.append(change)

    async def run(self) -> None:
        """Store what comes, until cancelled."""
        while True:
            await self._bell.wait()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                self._under_way = len(batch)
                try:
                    await self._settle(batch)
                finally:
                    self._under_way = 0

    async def _settle(self, batch: list[Change]) -> None:
        try:
            verdicts: Sequence[Verdict | None] = await persist(
                lambda: self._apply(batch), self._clock, lambda: self.give_up
            )
        except BackendUnavailable:
            log.error("%d outcomes could not be stored; their tasks run again when their leases lapse", len(batch))  # noqa: TRY400
            verdicts = [None] * len(batch)
        except DurabilityNotMet as error:  # else they would run again if they were not stored, which they are
            log.warning("outcomes are stored, and too few replicas have them yet: %s", error)
            verdicts = [None] * len(batch)
        except Exception:
            if len(batch) > 1:  # one bad change fails no stranger
                for change in batch:
                    await self._settle([change])
                return
            log.exception(
                "the outcome of %s was refused by the store; it runs again when its lease lapses", batch[0].id
            )
            verdicts = [None]
        self._on_verdicts(batch, verdicts)
