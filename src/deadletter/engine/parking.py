"""Work that waits while a service is down: a circuit's types are paused, probed one task at a time, and let in on a ramp.

::

    closed ──so many failures in a row, or a refusal──▶ open: its glob is paused, in every process
      ▲                                                  │ recovery has passed, and nobody else probes
      │                                                  ▼
    ramp ◀──the probe succeeded: resumed────────────── probing: one task at a time
                                                         │ it failed: put off, no attempt consumed; open again

The pause is the state that processes share: who finds one that a circuit made takes part in it, and who finds it gone
lets work in on a ramp. So an operator can close a circuit by ``resume``, and a circuit outlives the worker that opened it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from ..interfaces.circuit import Circuit
from ..model.errors import BackendError, InvalidTask
from ..model.outcome import Discarded, Failed, Outcome, Postponed, Released, Succeeded
from ..model.query import glob_match
from ..model.record import Pause
from .guard import RowIdempotencyStore
from .pauses import Pauses, lift_one, paused
from .presence import present

if TYPE_CHECKING:
    from .attempt import Attempt
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.parking")

MARK = "circuit open: "  # begins the why of a pause that a circuit made
_TICK = 0.1  # seconds between looks at what has become allowed

CLOSED, OPEN, PROBING, RAMP = "closed", "open", "probing", "ramp"


def opened_by_circuit(pause: Pause) -> bool:
    """Whether a circuit made this pause, and no operator."""
    return pause.why.startswith(MARK)


@attrs.define(eq=False)
class _Lot:
    """One circuit and the types that need it, as one worker sees them; times are monotonic."""

    glob: str
    circuit: Circuit
    state: str = CLOSED
    failures: int = 0  # in a row
    since: float = 0.0  # of the state
    due: float = 0.0  # the next probe
    seen: bool = False  # its pause was there
    right: str | None = (
        None  # to probe, for as long as the recovery takes; a probe that runs longer is joined by another
    )
    probes: set[str] = attrs.field(factory=set)  # tokens of the attempts that began while it was open
    turn: int = 0
    share: int = 1  # workers that let work in at the same time
    started: int = 0  # on this ramp
    sprung: float = 0.0  # starts that the ramp has allowed so far
    last: float = 0.0

    def enter(self, state: str, now: float) -> None:
        self.state, self.since, self.last = state, now, now
        self.failures = self.started = 0
        self.sprung = 0.0

    def allowed(self, now: float) -> int | None:
        """How many more may start on the ramp; None where it is over."""
        step = now - self.last
        rate = self.circuit.rate(self.last - self.since)  # of the moment before: never above the ramp
        if math.isinf(rate):
            self.enter(CLOSED, now)
            return None
        self.sprung += step * rate / self.share
        self.last = now
        return int(self.sprung) - self.started


class Parking:
    """What one worker's breakers allow it to claim, and what its attempts tell them."""

    def __init__(self, queue: DeadLetterQueue, breakers: Mapping[str, Circuit]) -> None:
        for glob, circuit in breakers.items():
            if not isinstance(glob, str) or not glob.isprintable() or not 1 <= len(glob) <= 400:
                raise InvalidTask("breakers", f"{glob!r} can match no type; give a type or a glob such as 'email.*'")
            if not callable(getattr(circuit, "counts", None)) or not callable(getattr(circuit, "rate", None)):
                raise InvalidTask("breakers", f"{circuit!r} is no deadletter.adapters.breakers.Breaker")
        self._queue = queue
        self._lots = [_Lot(glob, circuit) for glob, circuit in breakers.items()]
        self._rights = RowIdempotencyStore(queue)

    def _lot(self, type_: str) -> _Lot | None:
        return next((lot for lot in self._lots if glob_match(lot.glob, type_)), None)

    def rooms(self, free: Sequence[str], known: Sequence[str], globs: Sequence[str]) -> dict[str, int | None]:
        """Each type that may be claimed, and how many of it (None: any number).

        ``free`` are the types that are not paused, of all that are ``known``; ``globs`` are the pauses that stand.
        """
        rooms: dict[str, int | None] = {type_: None for type_ in free if self._lot(type_) is None}
        for lot in self._lots:
            types = [type_ for type_ in known if self._lot(type_) is lot]
            if lot.state == PROBING and not lot.probes and types:
                type_ = types[lot.turn % len(types)]
                if all(glob == lot.glob for glob in globs if glob_match(glob, type_)):  # nobody else has paused it
                    rooms[type_] = 1
            elif lot.state == CLOSED:
                rooms |= dict.fromkeys((type_ for type_ in types if type_ in free), None)
            elif lot.state == RAMP:
                rooms |= self._ramp_rooms(lot, [type_ for type_ in types if type_ in free])
        return rooms

    def _ramp_rooms(self, lot: _Lot, types: Sequence[str]) -> dict[str, int | None]:
        """What the ramp allows, shared out among the types; the rest goes to each in turn."""
        left = lot.allowed(self._queue.clock.monotonic())
        if left is None or not types:
            return dict.fromkeys(types, None)
        each, rest = divmod(max(0, left), len(types))
        lot.turn += 1
        return {type_: each + ((at + lot.turn) % len(types) < rest) for at, type_ in enumerate(types)}

    def entered(self, attempt: Attempt) -> None:
        """An attempt starts."""
        lot = self._lot(attempt.row.type)
        if lot is None:
            return
        if lot.state in (OPEN, PROBING):
            lot.probes.add(attempt.row.token or "")
            log.info("task %s probes circuit %r", attempt.row.id, lot.glob)
        elif lot.state == RAMP:
            lot.started += 1

    async def judge(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Take notice of how an attempt ended; a probe that failed is put off instead."""
        lot = self._lot(attempt.row.type)
        if lot is None:
            return outcome
        down = self._tells_down(lot, outcome)
        if attempt.row.token in lot.probes:
            try:
                if lot.state in (OPEN, PROBING):
                    return await self._probed(lot, outcome, down=down)
            finally:  # not before it is judged: the store may take its time, and another one would start meanwhile
                lot.probes.discard(attempt.row.token)
        if lot.state in (CLOSED, RAMP):
            if isinstance(outcome, Succeeded):
                lot.failures = 0
            elif down:
                lot.failures += 1
                refused = outcome.delay if isinstance(outcome, Postponed) else None
                if refused is not None or lot.failures >= lot.circuit.threshold:
                    await self._open(lot, outcome, refused)
        return outcome

    def _tells_down(self, lot: _Lot, outcome: Outcome) -> bool:
        if isinstance(outcome, Postponed):
            return outcome.refused
        return isinstance(outcome, Failed) and not outcome.permanent and lot.circuit.counts(outcome.error)

    async def _open(self, lot: _Lot, outcome: Outcome, refused: float | None) -> None:
        now = self._queue.clock.monotonic()
        why = "another breaker refuses" if refused is not None else f"{max(1, lot.failures)} failures in a row"
        if isinstance(outcome, Failed):
            why += f", the last a {type(outcome.error).__qualname__}"
        lot.enter(OPEN, now)
        lot.due, lot.seen = now + max(refused or 0.0, lot.circuit.recovery), False
        log.warning("circuit %r opens: %s; its types are parked, a probe follows", lot.glob, why)
        await self._pause(lot, why)

    async def _pause(self, lot: _Lot, why: str) -> None:
        try:
            await self._queue.pause(lot.glob, why=MARK + why)
        except BackendError as error:  # the others go on; we hold still all the same
            log.warning("circuit %r cannot be told to other processes yet: %s", lot.glob, error)

    async def _probed(self, lot: _Lot, outcome: Outcome, *, down: bool) -> Outcome:
        now = self._queue.clock.monotonic()
        if not down and isinstance(outcome, (Succeeded, Failed, Discarded)):  # it answered, whatever it said
            log.info("circuit %r closes: its probe got through", lot.glob)
            await self._quietly(lot, self._close)
            await self._begin_ramp(lot, now)
            return outcome
        if isinstance(outcome, (Postponed, Released)) and not down:  # it says nothing; the next task may
            lot.turn += 1
            return outcome
        # The right lapses by itself: until then nobody else probes, so that many workers probe as often as one.
        lot.enter(OPEN, now)
        lot.right = None
        wait = max(outcome.delay if isinstance(outcome, Postponed) else 0.0, lot.circuit.recovery)
        lot.due = now + wait
        return Postponed(wait, refused=True)

    async def _close(self, lot: _Lot) -> None:
        await lift_one(self._queue, lot.glob, MARK)
        await self._give_up_right(lot)

    async def _give_up_right(self, lot: _Lot) -> None:
        right, lot.right = lot.right, None
        if right is not None:
            await self._rights.abandon(right)

    async def _quietly(self, lot: _Lot, do: Callable[[_Lot], object]) -> None:
        try:
            await do(lot)  # type: ignore[misc]  # a coroutine function of a lot
        except BackendError as error:
            log.warning("circuit %r cannot be told to other processes: %s", lot.glob, error)

    async def _begin_ramp(self, lot: _Lot, now: float) -> None:
        try:
            workers = await present(self._queue)
        except BackendError:
            workers = []
        lot.share = max(1, sum(any(glob_match(lot.glob, each) for each in worker.types) for worker in workers))
        lot.enter(RAMP, now)

    async def keep(self, pauses: Pauses, changed: Callable[[], object]) -> None:
        """Follow what other processes do, ask for probes, and say when more is allowed; until cancelled."""
        while self._lots:
            await self._queue.clock.sleep(_TICK)
            for lot in self._lots:
                try:
                    if await self._step(lot, pauses):
                        changed()
                except BackendError as error:
                    log.debug("circuit %r waits for the store: %s", lot.glob, error)

    async def _step(self, lot: _Lot, pauses: Pauses) -> bool:
        now = self._queue.clock.monotonic()
        standing = lot.glob in pauses.globs
        if lot.state in (CLOSED, RAMP):
            if standing and await self._made_by_circuit(lot):
                log.info("circuit %r was opened by another process; its types are parked", lot.glob)
                lot.enter(OPEN, now)
                lot.due, lot.seen = now + lot.circuit.recovery, True
            return lot.state == RAMP
        lot.seen = lot.seen or standing
        if lot.seen and not standing:
            log.info("circuit %r was closed elsewhere", lot.glob)
            await self._quietly(lot, self._give_up_right)
            await self._begin_ramp(lot, now)
            return True
        if lot.state == PROBING:
            if not lot.probes:
                lot.turn += 1
                if now - lot.since > lot.circuit.recovery:  # nothing was there to probe with; the right has lapsed
                    lot.right = None
                    lot.enter(OPEN, now)
            return not lot.probes
        return now >= lot.due and await self._ask_to_probe(lot, now, standing=standing)

    async def _made_by_circuit(self, lot: _Lot) -> bool:
        return any(pause.types == lot.glob and opened_by_circuit(pause) for pause in await paused(self._queue))

    async def _ask_to_probe(self, lot: _Lot, now: float, *, standing: bool) -> bool:
        if not standing:
            await self._pause(lot, "opened while the store was away")
        elif not await self._made_by_circuit(lot):  # an operator's, of the same glob: nothing runs until it is lifted
            lot.due = now + 1.0
            return False
        begun = await self._rights.begin(f"probe:{lot.glob}", "probe", lot.circuit.recovery)
        if begun.word != "started":  # another worker's
            lot.due = now + max(1.0, begun.remaining or 0.0)
            return False
        lot.right = begun.token
        lot.enter(PROBING, now)
        return True

    async def leave(self) -> None:
        """Give up what is held: another worker may probe."""
        for lot in self._lots:
            if lot.right is not None:
                await self._quietly(lot, self._give_up_right)
