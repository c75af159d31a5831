"""What a worker is fed: it claims what there is room for, starts it, and sleeps until something is due."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import anyio

from ..model.errors import BackendError, Undecodable
from ..model.row import BATCH, Claim, Claimed, Row, Verdict
from ..rules import changes
from ..runtime.crew import Crew
from .attempt import begin
from .pauses import Pauses
from .settler import Settler, persist

if TYPE_CHECKING:
    from .queue import DeadLetterQueue
    from .worker import Worker

log = logging.getLogger("deadletter.worker")

_LOW_FIRST = 10  # each 10th claim looks at low first, so that it is never starved
_SAFETY_POLL = 5.0  # seconds: what a lost hint costs at most
_AWAY_FROM_ONE = 1.0  # seconds until the next look whether somebody is still alone in this process
_FIRST_WAIT = 0.05  # seconds, doubled while the store is away
_ORDER, _REVERSED = (0, 1, 2), (2, 1, 0)


class Feeder:
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
                await self._worker.sleep(wait)
                wait = min(wait * 2, _SAFETY_POLL)

    async def _feed_once(self) -> bool:
        worker = self._worker
        room = worker.concurrency - worker.running
        if room <= 0:
            await self._worker.sleep(None)
            return False
        quiet = not worker.running and not self._settler.pending  # what ends during the claim may bring new work
        with self._queue.solitude.shared() as is_open:
            claimed = await self._claim(min(room, worker.batch)) if is_open else None
        if claimed is None:
            await self._worker.sleep(_AWAY_FROM_ONE)
            return False
        if claimed.suspects:
            await self._run_suspect()
            return False
        return not claimed.rows and await self._rest(claimed, quiet=quiet)

    async def _rest(self, claimed: Claimed, *, quiet: bool) -> bool:
        """Sleep until something may be due; True where the worker only runs until it is idle, and it is."""
        worker = self._worker
        due_in = None if claimed.next_due_ms is None else (claimed.next_due_ms - claimed.now_ms) / 1000
        if worker.until_idle:
            if worker.running or self._settler.pending:
                await self._worker.sleep(None)
                return False
            return quiet and not await self._queue.sweep()  # nobody else sweeps where cron runs us
        if due_in is not None and due_in <= 0:  # due, and cannot be claimed: expired, or written by a newer version
            if await self._queue.sweep():
                return False
            due_in = 1.0
        await self._worker.sleep(_SAFETY_POLL if due_in is None else min(due_in, _SAFETY_POLL))
        return False

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
            left = registration.concurrency - self._worker.running_of(type_)
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
        await worker.quiet(self._settler, over=lambda: worker.stopping)
        if worker.stopping:
            return
        types = [type_ for type_, room in (await self._claimable()).items() if room != 0]
        with self._queue.solitude.taken() as solo:
            if solo is None:  # a process_task runs beside us: it must not be judged for that one
                await self._worker.sleep(_AWAY_FROM_ONE)
            elif types:
                await self._ask(types, 1, _ORDER, alone=True)
            while worker.running and not worker.stopping:
                await self._worker.sleep(None)

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
