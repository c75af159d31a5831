"""What the engine knows of alerts: who monitors a queue, and what was delivered.

The elected monitor of a queue is the owner of one leased row in a reserved queue. Alerts are tasks of an ordinary queue
beside it, one for each channel: whoever reads or replays letters can do so with those that could not be delivered.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import attrs

from ..model.row import RUNNING, Scan
from ..model.task import from_ms
from .presence import reserved

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.alerting")

SEAT = "monitor"  # the id of the elected monitor's row
LEASE_MS = 30_000
KINDS = (
    *("task_dead", "threshold_exceeded", "threshold_critical", "threshold_resolved"),
    *("overdue", "daily_summary", "purge_summary", "monitor_absent", "test"),
)

_ABSENT_AFTER_MS = 120_000
_FORGOTTEN_AFTER_MS = 7 * 24 * 3600 * 1000
_TOLD_EVERY_MS = 3600_000
_LONGEST_NAME = 100


def seats(queue: str) -> str:
    """The reserved queue that holds the elected monitor's row."""
    return reserved("monitors", queue)


def alerts_queue(queue: str) -> str:
    """The name of the queue whose tasks are the alerts about another."""
    name = f"{queue}:alerts"
    if len(name) <= _LONGEST_NAME:
        return name
    mark = hashlib.blake2b(queue.encode(), digest_size=6).hexdigest()
    return f"{queue[: _LONGEST_NAME - 20]}~{mark}:alerts"


@attrs.frozen(kw_only=True)
class MonitorInfo:
    """The monitor that a queue has, or had.

    Attributes:
        name: of the process that was elected last.
        last_seen: its last sign of life.
        absent: True where it has been silent for over two minutes, and for less than a week: nobody is told of deaths.
    """

    name: str
    last_seen: datetime
    absent: bool


async def monitor_seen(queue: DeadLetterQueue) -> MonitorInfo | None:
    """Who monitors this queue; None where nobody ever did."""
    await queue.open()
    page = await queue.backend.scan(seats(queue.name), Scan(state=RUNNING, history=0, body=False))
    for row in page.rows:
        if row.id == SEAT and row.lease_ms is not None:
            silent_ms = page.now_ms - row.lease_ms
            return MonitorInfo(
                name=row.owner or "",
                last_seen=from_ms(min(row.lease_ms - LEASE_MS, page.now_ms)),
                absent=_ABSENT_AFTER_MS - LEASE_MS < silent_ms < _FORGOTTEN_AFTER_MS,
            )
    return None


async def delivered(queue: DeadLetterQueue) -> Mapping[tuple[str, str, str], int]:
    """How many alerts about this queue were delivered, over all processes, since it was made.

    The keys are (``alerts_sent`` or ``alerts_failed``, channel, kind). A delivery that fails is counted each time that
    it does, whether it succeeds later or not.
    """
    await queue.open()
    found: dict[tuple[str, str, str], int] = {}
    counts = await queue.backend.counts(alerts_queue(queue.name))
    for (counter, type_, _), n in counts.lifetime.items():
        name = {"succeeded": "alerts_sent", "failures": "alerts_failed"}.get(counter)
        channel, _, kind = type_.rpartition(".")
        if name is not None and kind in KINDS:
            key = (name, channel, kind)
            found[key] = found.get(key, 0) + n
    return found


class Absence:
    """Tells the log where a queue has lost its monitor: it cannot tell so itself."""

    def __init__(self, queue: DeadLetterQueue) -> None:
        self._queue = queue
        self._told_ms: int | None = None

    async def look(self) -> None:
        """Look, and say so at most once an hour."""
        found = await monitor_seen(self._queue)
        now_ms = self._queue.clock.now_ms()
        if found is None or not found.absent:
            self._told_ms = None
        elif self._told_ms is None or now_ms - self._told_ms >= _TOLD_EVERY_MS:
            self._told_ms = now_ms
            log.warning(
                "monitor_absent: nobody is told of dead letters in queue %s since %s, when monitor %s was last seen",
                *(self._queue.name, f"{found.last_seen:%Y-%m-%d %H:%M:%SZ}", found.name),
                extra={"kind": "monitor_absent", "queue": self._queue.name},
            )
