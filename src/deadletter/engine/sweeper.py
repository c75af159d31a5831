"""What others left behind: lapsed leases, expired tasks, rows past their keep."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..model.errors import BackendError, Undecodable
from ..model.row import BATCH, RUNNING, Change, Row, Verdict
from ..rules import changes
from .alerting import Absence
from .presence import RESERVED, reserved

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.sweeper")

_LONGEST_PAUSE = 1.0
_TIDY_EVERY = 60.0


async def sweep(queue: DeadLetterQueue, limit: int = BATCH) -> int:
    """One bounded step; the number of rows that it dealt with."""
    rows = await queue.backend.sweep(queue.name, limit)
    batch = [change_for(queue, row) for row in rows[:BATCH]]
    verdicts = await queue.apply(batch) if batch else []
    return sum(verdict is Verdict.DONE for verdict in verdicts)


def change_for(queue: DeadLetterQueue, row: Row) -> Change:
    """What becomes of a row whose lease or time ran out."""
    op = queue.chance.name()
    if row.state != RUNNING:
        return changes.expire(row, op)
    try:
        on_uncertain = queue.options.uncertain(queue.decode(row))
    except Undecodable:
        on_uncertain = queue.options.on_uncertain
    return changes.lapse(row, op, on_uncertain=on_uncertain, max_lease_losses=queue.options.max_lease_losses)


async def tidy(queue: DeadLetterQueue) -> None:
    """Drop what dead processes left in the reserved queues: signs of life, guards of effects, pauses that are over."""
    for kind in RESERVED:
        name = reserved(kind, queue.name)
        lapsed = await queue.backend.sweep(name, BATCH)
        if lapsed:
            gone = [changes.abandon(row.id, row.token or "", queue.chance.name()) for row in lapsed[:BATCH]]
            await queue.backend.apply(name, gone)


async def sweep_until_cancelled(queue: DeadLetterQueue, ended: Callable[[], int] = lambda: 0) -> None:
    """Sweep on a timer of its own, busy or idle: work comes back within its lease and a second.

    ``ended`` tells how many tasks its worker has ended so far. As many rows are forgotten, and a batch more each time:
    what a fast worker leaves behind never grows faster than it is swept.
    """
    pause = min(_LONGEST_PAUSE, queue.options.lease_ms / 2000)
    answered = 0
    while True:
        try:
            steps = 1 + max(0, math.ceil((ended() - answered) / BATCH))
            for _ in range(steps):
                while await sweep(queue) == BATCH:
                    pass
                answered += BATCH
            answered = min(answered, ended())
        except BackendError as error:
            log.warning("cannot sweep: %s", error)
        await queue.clock.sleep(pause)


async def tidy_until_cancelled(queue: DeadLetterQueue) -> None:
    """Tidy once a minute, beside the sweeping: on a slow store it takes longer than a lapsed lease may wait."""
    absence = Absence(queue)
    while True:
        try:
            await tidy(queue)
            await absence.look()
        except BackendError as error:
            log.warning("cannot tidy: %s", error)
        await queue.clock.sleep(_TIDY_EVERY)
