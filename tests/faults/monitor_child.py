"""A monitor in a process of its own, which kills itself where it is told to: ``monitor_child.py URL WEBHOOK [POINT]``.

Everything that takes long by default is short here: leases, and the intervals of the groups.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import anyio

from deadletter import Alert, DeadLetterQueue
from deadletter.alerts import Monitor, WebhookAlerter, delivery, monitor, seat, watch

POINTS = ("reading", "stored", "owed", "settled", "sending", "sent")


def reach(point: str) -> None:
    """Die here, if this is the place."""
    if sys.argv[3:] == [point]:
        os.kill(os.getpid(), signal.SIGKILL)


class Doomed(watch.Watch):
    """Dies around each of its steps that count."""

    async def _store(self) -> None:
        owes = bool(self._notes.owed)
        if owes:
            reach("reading")
        told = bool(self._notes.causes.causes)
        await super()._store()
        if owes:
            reach("stored")
        elif told and self._settles:
            reach("settled")

    _settles = False

    async def _settle_debts(self) -> None:
        self._settles = bool(self._notes.owed)
        await super()._settle_debts()
        self._settles = False


class Hook(WebhookAlerter):
    """Dies before and after a request."""

    async def send(self, alert: Alert) -> None:
        reach("sending")
        await super().send(alert)
        reach("sent")


async def main() -> None:
    url, hook = sys.argv[1:3]
    seat.LEASE_MS = 1_500
    delivery.LEASE = 1.5
    monitor._WAITS = 0.2
    monitor.Watch = Doomed
    watch._LONGEST = 0.5
    async with DeadLetterQueue(url) as dlq:
        watcher = Monitor(
            dlq,
            [Hook(hook)],
            threshold=1_000_000,
            group_wait=0.3,
            group_interval=2,
            repeat_interval=3600,
            summary_at=None,
        )
        owe = watcher._delivery.owe

        async def doomed_owe(owed: Sequence[Any]) -> None:
            await owe(owed)
            reach("owed")

        watcher._delivery.owe = doomed_owe  # type: ignore[method-assign]
        sys.stdout.write("up\n")
        sys.stdout.flush()
        await watcher.run()


if __name__ == "__main__":
    anyio.run(main)
