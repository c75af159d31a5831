"""A worker: feeds due tasks to processors, sweeps what others left, and leaves nothing behind.

In one event loop run the feeder (claims), the attempts, the settler (outcomes), the sweeper and the listener; the
queue's keeper extends the leases from its own thread.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio

from ..interfaces.circuit import Circuit
from ..model.errors import BackendError, DeadLetterError, InvalidTask, Undecodable
from ..model.row import BATCH, PENDING, RUNNING, Change, Claim, Claimed, Hint, Row, Verdict
from ..model.task import Duration, seconds
from ..rules import changes
from ..runtime.crew import Crew, open_crew
from ..runtime.loops import Bell, loop_caller
from .attempt import Attempt, begin, call, decide, stopped
from .parking import Parking
from .pauses import Pauses
from .presence import Presence
from .retention import retain_once, retain_until_cancelled
from .settler import Settler, persist
from .sweeper import sweep_until_cancelled
from .telling import teller

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.worker")

_LOW_FIRST = 10  # each 10th claim looks at low first, so that it is never starved
_SAFETY_POLL = 5.0  # seconds: what a lost hint costs at most
_LISTEN_AGAIN = 0.5  # seconds until the next try to be woken by the store
_AWAY_FROM_ONE = 1.0  # seconds until the next look whether somebody is still alone in this process
_FIRST_WAIT = 0.05  # seconds, doubled while the store is away
_LAST_WAIT = 5.0  # seconds that the last outcomes wait for a store that is away
_ORDER, _REVERSED = (0, 1, 2), (2, 1, 0)


class Worker:
    """Runs registered processors on due tasks; made by ``DeadLetterQueue.worker``.

    Attributes:
        name: unique; stands on every lease and failure.
        concurrency: the most attempts at a time, async and in threads together.
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
        self._batch = batch
        self._grace = seconds("shutdown_grace", shutdown_grace)
        self._attempts: dict[str, Attempt] = {}
        self._ended = 0  # tasks, for good
        self._stopping = False
        self._until_idle = False
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
        self._stopping, self._until_idle, self._awaits_quiet = False, until_idle, until_idle
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
                if not self._until_idle:
                    group.start_soon(Presence(self._queue, self).keep)
                    group.start_soon(sweep_until_cancelled, self._queue, lambda: self._ended)
                    group.start_soon(retain_until_cancelled, self._queue)
                    if self._queue.spooler is not None:
                        group.start_soon(self._queue.spooler.watch)
                group.start_soon(self._listen)
                if self._queue.threads.inline:
                    group.start_soon(self._queue.keeper.serve)
                pauses = Pauses(self._queue, self._wake_feeder)
                group.start_soon(pauses.keep)
                group.start_soon(self.parking.keep, pauses, self._wake_feeder)
                feeder = _Feeder(self, self._queue, crew, settler, limiter, pauses)
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
        """Return when nothing runs and every outcome is stored or given up."""
        self._awaits_quiet = True
        while self._bell is not None and (self._attempts or settler.pending):
            await self._bell.wait()
        self._awaits_quiet = self._until_idle

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


class _Feeder:
    """Claims what there is room for, and sleeps until something is due."""

    def __init__(
        self,
        worker: Worker,
        queue: DeadLetterQueue,
        crew: Crew,
        settler: Settler,
        limiter: anyio.CapacityLimiter,
        pauses: Pauses,
    ) -> None:
        self._worker = worker
        self._queue = queue
        self._crew = crew
        self._settler = settler
        self._limiter = limiter
        self._pauses = pauses
        self._claims = 0
        self._op: str | None = None  # of a claim whose answer never came: asked again, it answers with what it got

    async def feed(self) -> None:
        """Feed until the worker stops, or is idle where that is its end."""
        wait = _FIRST_WAIT
        while not self._worker.stopping:
            try:
                if await self._feed_once():
                    return
                wait = _FIRST_WAIT
            except BackendError as error:
                log.warning("cannot claim: %s", error)
                await self._sleep(wait)
                wait = min(wait * 2, _SAFETY_POLL)

    async def _feed_once(self) -> bool:
        worker = self._worker
        room = worker.concurrency - worker.running
        if room <= 0:
            await self._sleep(None)
            return False
        quiet = not worker.running and not self._settler.pending  # what ends during the claim may bring new work
        with self._queue.solitude.shared() as is_open:
            claimed = await self._claim(min(room, worker._batch)) if is_open else None  # noqa: SLF001 - one worker in two halves
        if claimed is None:
            await self._sleep(_AWAY_FROM_ONE)
            return False
        if claimed.suspects:
            await self._run_suspect()
            return False
        return not claimed.rows and await self._rest(claimed, quiet=quiet)

    async def _rest(self, claimed: Claimed, *, quiet: bool) -> bool:
        """Sleep until something may be due; True where the worker only runs until it is idle, and it is."""
        worker = self._worker
        due_in = None if claimed.next_due_ms is None else (claimed.next_due_ms - claimed.now_ms) / 1000
        if worker._until_idle:  # noqa: SLF001
            if worker.running or self._settler.pending:
                await self._sleep(None)
                return False
            return quiet and not await self._queue.sweep()  # nobody else sweeps where cron runs us
        if due_in is not None and due_in <= 0:  # due, and cannot be claimed: expired, or written by a newer version
            if await self._queue.sweep():
                return False
            due_in = 1.0
        await self._sleep(_SAFETY_POLL if due_in is None else min(due_in, _SAFETY_POLL))
        return False

    async def _sleep(self, seconds: float | None) -> None:
        bell = self._worker._bell  # noqa: SLF001
        if bell is None:
            return
        if seconds is None:
            await bell.wait()
            return
        await self._queue.wait_for(bell, seconds)

    async def _claim(self, limit: int) -> Claimed:
        self._claims += 1
        order = _REVERSED if self._claims % _LOW_FIRST == 0 else _ORDER
        rooms = self._rooms(await self._claimable())
        free = [type_ for type_, room in rooms if room is None]
        limited = [(type_, room) for type_, room in rooms if room is not None and room > 0]
        # A claim has one limit, so that a type with a limit of its own is asked for by itself, rank by rank.
        orders = [(rank,) for rank in order] if limited else [order]
        answers: list[Claimed] = []
        left = limit
        for ranks in orders:
            for types, room in [*(([type_], room) for type_, room in limited), *([(free, limit)] if free else [])]:
                taken = sum(row.type in types for answer in answers for row in answer.rows)
                most = min(left, room - taken)
                if most > 0:
                    answers.append(await self._ask(types, most, ranks))
                    left -= len(answers[-1].rows)
        if self._op is not None and not answers:  # what a lost answer had got would wait out its lease
            answers.append(await self._ask([], limit, order))
        due = [answer.next_due_ms for answer in answers if answer.next_due_ms is not None]
        return Claimed(
            rows=[row for answer in answers for row in answer.rows],
            now_ms=answers[-1].now_ms if answers else 0,
            next_due_ms=min(due) if due else None,
            suspects=any(answer.suspects for answer in answers),
        )

    async def _claimable(self) -> Mapping[str, int | None]:
        """Types that neither a pause nor a circuit holds, and how many a circuit lets in."""
        known = self._worker.types
        free = await self._pauses.unpaused(known)
        return self._worker.parking.rooms(free, known, self._pauses.globs)

    def _rooms(self, types: Mapping[str, int | None]) -> list[tuple[str, int | None]]:
        """Each type that may be claimed, and how many more of it may run (None: no limit of its own)."""
        registry = self._queue.registry
        rooms: list[tuple[str, int | None]] = []
        for type_, most in types.items():
            registration = registry.get(type_)
            if registration is None or registration.concurrency is None:
                rooms.append((type_, most))
                continue
            running = sum(attempt.row.type == type_ for attempt in self._worker._attempts.values())  # noqa: SLF001
            left = registration.concurrency - running
            rooms.append((type_, left if most is None else min(left, most)))
        return rooms

    async def _ask(self, types: list[str], limit: int, order: tuple[int, ...], *, alone: bool = False) -> Claimed:
        """Claim, and start what was got; a lost claim that is repeated may bring what was paused meanwhile."""
        options = self._queue.options
        if self._op is None:
            self._op = self._queue.chance.name()
        sent = self._queue.clock.monotonic()
        claimed = await self._queue.backend.claim(
            self._queue.name,
            Claim(
                op=self._op,
                limit=limit,
                types=types,
                order=order,
                lease_ms=options.lease_ms,
                owner=self._worker.name,
                max_losses=options.suspicious,
                alone=alone,
                start=0 if alone else BATCH,  # dying of a lease that nothing ran under would be unjust
                keep_ms=options.keep_letters_ms,
            ),
        )
        self._op = None
        wanted = frozenset(types)
        rows = [row for row in claimed.rows if row.type in wanted]
        for row in claimed.rows:
            if row.type not in wanted:
                self._settler.put(changes.release(row, f"{row.token}.s"))
        if alone:
            await self._tell_started(rows)
        now = self._queue.clock.monotonic()
        for row in rows:
            self._start(row, sent, claimed.now_ms, now)
        return claimed

    async def _tell_started(self, rows: list[Row]) -> None:
        """From here on a vanished worker counts as a loss; leaves in ``rows`` what is still ours."""
        for row in list(rows):
            log.warning("%s ran under %d workers that vanished; it runs alone now", row.id, row.lease_losses)
            start = changes.start(row, f"{row.op}.b")
            store = partial(self._queue.apply, [start])
            [verdict] = await persist(store, self._queue.clock, lambda: self._settler.give_up)
            if verdict not in (Verdict.DONE, Verdict.REPEATED):
                rows.remove(row)

    async def _run_suspect(self) -> None:
        """Run one row whose workers vanished too often, with nobody beside it."""
        worker = self._worker
        worker._awaits_quiet = True  # noqa: SLF001
        while (worker.running or self._settler.pending) and not worker.stopping:
            await self._sleep(None)
        worker._awaits_quiet = worker._until_idle  # noqa: SLF001
        if worker.stopping:
            return
        types = [type_ for type_, room in (await self._claimable()).items() if room != 0]
        with self._queue.solitude.taken() as solo:
            if solo is None:  # a process_task runs beside us: it must not be judged for that one
                await self._sleep(_AWAY_FROM_ONE)
            elif types:
                await self._ask(types, 1, _ORDER, alone=True)
            while worker.running and not worker.stopping:
                await self._sleep(None)

    def _start(self, row: Row, sent: float, now_ms: int, now: float) -> None:
        registration = self._queue.registry.get(row.type)
        if registration is None:  # unregistered meanwhile: not ours any more
            self._settler.put(changes.release(row, f"{row.token}.s"))
            return
        try:
            attempt = begin(self._queue, row, registration, worker=self._worker.name, sent=sent, now_ms=now_ms)
        except Undecodable as error:
            why = type(error.__cause__ or error).__name__  # what it says may quote the body
            log.error("%s cannot be read and is kept as a dead letter: %s", row.id, why)  # noqa: TRY400
            self._settler.put(
                changes.quarantine(row, f"{row.token}.s", str(error), self._queue.options.keep_letters_ms)
            )
            return
        if self._queue.keeper.too_late(attempt, now):
            log.warning("the lease on %s was slow to arrive and is about to end; it is given back", row.id)
            self._settler.put(changes.release(row, attempt.op))
            return
        attempt.limiter = self._limiter
        self._worker.enter(attempt, self._crew, self._settler)
