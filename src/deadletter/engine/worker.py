"""A worker: feeds due tasks to processors, sweeps what others left, and leaves nothing behind.

In one event loop run the feeder (claims), the attempts, the settler (outcomes), the sweeper and the listener; the
queue's keeper extends the leases from its own thread.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import anyio

from ..interfaces.circuit import Circuit
from ..model.errors import BackendError, DeadLetterError, InvalidTask
from ..model.row import BATCH, PENDING, RUNNING, Change, Hint, Verdict
from ..model.task import Duration, seconds
from ..runtime.crew import Crew, open_crew
from ..runtime.loops import Bell, loop_caller
from .attempt import Attempt, call, decide, stopped
from .feeder import Feeder
from .parking import Parking
from .pauses import Pauses
from .presence import Presence
from .retention import retain_once, retain_until_cancelled
from .settler import Settler
from .sweeper import sweep_until_cancelled, tidy_until_cancelled
from .telling import teller

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.worker")

_LISTEN_AGAIN = 0.5  # seconds until the next try to be woken by the store
_LAST_WAIT = 5.0  # seconds that the last outcomes wait for a store that is away


class Worker:
    """Runs registered processors on due tasks; made by ``DeadLetterQueue.worker``.

    Attributes:
        name: unique; stands on every lease and failure.
        concurrency: the most attempts at a time, async and in threads together.
        batch: the most that one claim brings.
    """

    def __init__(
        self,
        queue: DeadLetterQueue,
        *,
        concurrency: int = 32,
        types: Sequence[str] | None = None,
        batch: int = BATCH,
        shutdown_grace: Duration = 25,
        name: str | None = None,
        breakers: Mapping[str, Circuit] | None = None,
    ) -> None:
        if not isinstance(concurrency, int) or concurrency < 1:
            raise InvalidTask("concurrency", f"{concurrency!r} is no number of attempts; give 1 or more")
        if not isinstance(batch, int) or not 1 <= batch <= BATCH:
            raise InvalidTask("batch", f"{batch!r} is no batch; give 1 to {BATCH}")
        if isinstance(types, str):
            raise InvalidTask("types", f"{types!r} is one name; give a list of names or globs")
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{queue.chance.name()[:6]}"
        self.concurrency = concurrency
        self.parking = Parking(queue, queue.breakers if breakers is None else breakers)
        self._queue = queue
        self._globs = list(types) if types is not None else None
        self.batch = batch
        self._grace = seconds("shutdown_grace", shutdown_grace)
        self._attempts: dict[str, Attempt] = {}
        self._ended = 0  # tasks, for good
        self._stopping = False
        self.until_idle = False
        self._awaits_quiet = False  # somebody waits for the last verdict
        self._bell: Bell | None = None
        self._wake_feeder: Callable[[], None] = lambda: None
        self._call: Callable[..., object] = lambda: None

    @property
    def types(self) -> list[str]:
        """The types that it takes."""
        return self._queue.registry.types(self._globs)

    @property
    def running(self) -> int:
        """How many attempts run right now."""
        return len(self._attempts)

    @property
    def stopping(self) -> bool:
        """Whether it claims nothing more."""
        return self._stopping

    def stop(self) -> None:
        """Begin to drain: no new claims; ``run`` returns when what runs has ended, or its grace is over.

        From any thread.
        """
        self._stopping = True
        if self._bell is not None:
            self._bell.ring()

    async def run(self) -> None:
        """Work until cancelled or stopped; then drain for ``shutdown_grace`` and release what is left."""
        await self._work(until_idle=False)

    async def run_until_idle(self) -> None:
        """Work until nothing runs and nothing is due that is known here and not paused: for tests and cron."""
        await self._work(until_idle=True)

    async def _work(self, *, until_idle: bool) -> None:
        if self._bell is not None:
            raise DeadLetterError(f"worker {self.name} runs already; make another one")
        self._stopping, self.until_idle, self._awaits_quiet = False, until_idle, until_idle
        self._bell = bell = Bell()
        self._queue.registry.watchers.append(bell.ring)
        self._wake_feeder = bell.ring
        self._call = loop_caller()
        over = anyio.Event()
        try:
            if until_idle and self._queue.spooler is not None:
                await self._queue.spooler.drain_quietly()  # before opening begins to do the same in the background
            await self._queue.open()
            async with anyio.create_task_group() as group:
                group.start_soon(self._live, over)
                try:
                    await over.wait()
                finally:
                    self.stop()
            if until_idle:  # nobody else does where cron runs us
                await retain_once(self._queue)
        finally:
            self._queue.registry.watchers.remove(bell.ring)
            self._bell = None

    async def _live(self, over: anyio.Event) -> None:
        # Shielded: being cancelled means to drain, and a drain that is cancelled midway would lose outcomes.
        with anyio.CancelScope(shield=True):
            settler = Settler(self._queue.apply, self._queue.clock, self._verdicts)
            limiter = anyio.CapacityLimiter(self.concurrency)
            async with open_crew() as crew, anyio.create_task_group() as group:
                group.start_soon(settler.run)
                if not self.until_idle:
                    group.start_soon(Presence(self._queue, self).keep)
                    group.start_soon(sweep_until_cancelled, self._queue, lambda: self._ended)
                    group.start_soon(tidy_until_cancelled, self._queue)
                    group.start_soon(retain_until_cancelled, self._queue)
                    if self._queue.spooler is not None:
                        group.start_soon(self._queue.spooler.watch)
                group.start_soon(self._listen)
                if self._queue.threads.inline:
                    group.start_soon(self._queue.keeper.serve)
                pauses = Pauses(self._queue, self._wake_feeder)
                group.start_soon(pauses.keep)
                group.start_soon(self.parking.keep, pauses, self._wake_feeder)
                feeder = Feeder(self, self._queue, crew, settler, limiter, pauses)
                try:
                    await feeder.feed()
                finally:
                    await self._drain(settler)
                    await self.parking.leave()
                    group.cancel_scope.cancel()
        over.set()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._queue.backend.listen(self._queue.name) as signals:
                    self._wake_feeder()  # what was stored before we listened was told to nobody
                    async for signal in signals:
                        if isinstance(signal, Hint):  # an event by itself brings no work
                            self._wake_feeder()
            except BackendError as error:
                log.warning("no wake-ups until the store is back: %s", error)
            await self._queue.clock.sleep(_LISTEN_AGAIN)

    async def _drain(self, settler: Settler) -> None:
        with anyio.move_on_after(self._grace):
            await self._quiet(settler)
        for attempt in list(self._attempts.values()):
            attempt.stop("shutdown")
        settler.give_up = self._queue.clock.monotonic() + _LAST_WAIT
        with anyio.move_on_after(2 * _LAST_WAIT):
            await self._quiet(settler)

    async def _quiet(self, settler: Settler) -> None:
        await self.quiet(settler, over=lambda: False)

    async def quiet(self, settler: Settler, over: Callable[[], bool]) -> None:
        """Return when nothing runs and every outcome is stored or given up, or once ``over`` says so."""
        self._awaits_quiet = True
        while self._bell is not None and (self._attempts or settler.pending) and not over():
            await self._bell.wait()
        self._awaits_quiet = self.until_idle

    async def sleep(self, seconds: float | None) -> None:
        """Return at its next bell, or once ``seconds`` have passed."""
        if self._bell is None:
            return
        if seconds is None:
            await self._bell.wait()
        else:
            await self._queue.wait_for(self._bell, seconds)

    def running_of(self, type_: str) -> int:
        """How many attempts of a type run right now."""
        return sum(attempt.row.type == type_ for attempt in self._attempts.values())

    def _verdicts(self, batch: Sequence[Change], verdicts: Sequence[Verdict | None]) -> None:
        for change, verdict in zip(batch, verdicts, strict=True):
            if verdict is Verdict.STALE or verdict is Verdict.MISSING:
                log.warning(
                    "the outcome of %s came too late (%s): its lease was lost, it is perhaps done twice",
                    change.id,
                    verdict,
                )
            elif change.to not in (PENDING, RUNNING):
                self._ended += 1
        self._queue.keeper.settled(batch)
        if self._awaits_quiet:
            self._wake_feeder()

    def enter(self, attempt: Attempt, crew: Crew, settler: Settler) -> None:
        """Start an attempt in a task of its own."""
        token = attempt.row.token or ""
        self._attempts[token] = attempt
        self.parking.entered(attempt)
        crew.start(self._attempt, attempt, settler)
        self._queue.keeper.add(attempt, self._call)

    async def _attempt(self, cancel: Callable[[], object], attempt: Attempt, settler: Settler) -> None:
        token = attempt.row.token or ""
        attempt.cancel = cancel
        try:
            outcome = await call(attempt, scoped=False) if attempt.stopped is None else stopped(attempt)
            attempt.cancel = None
            outcome = await self.parking.judge(attempt, outcome)
            self._queue.keeper.remove(attempt)
            settler.put(decide(attempt, outcome))
            if attempt.in_thread and attempt.stopped != "shutdown":
                await self._outlive(attempt)
        except Exception as error:
            told = teller(self._queue, attempt.task, attempt.row.redact)(error)
            log.error(  # noqa: TRY400 - the traceback may show what is hidden
                "an attempt of %s could not be judged; it runs again when its lease lapses\n%s", attempt.row.id, told
            )
        finally:
            self._queue.keeper.remove(attempt)
            self._attempts.pop(token, None)
            self._wake_feeder()

    async def _outlive(self, attempt: Attempt) -> None:
        """A thread that cannot be stopped keeps its slot."""
        bell = Bell()
        attempt.cancel = bell.ring  # at shutdown nobody waits for it
        attempt.when_thread_ends(bell.ring)
        with anyio.CancelScope(shield=True):  # under trio the scope that stopped the attempt is still cancelled
            await bell.wait()
