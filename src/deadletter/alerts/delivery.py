"""Alerts on their way: tasks of a queue of their own, so that a delivery is retried, counted, kept and replayed as any task.

Each channel has a worker of its own: one that hangs stops no other. A task's type is ``<channel>.<kind>``, its id follows
from alert and channel: what is owed twice is stored once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

from ..engine.alerting import KINDS, alerts_queue
from ..engine.queue import DeadLetterQueue
from ..interfaces.alerter import Alert, Alerter
from ..interfaces.retry_policy import RetryPolicy
from ..model.errors import InvalidTask
from ..model.outcome import PermanentError, RetryAfter
from ..model.task import Task
from ..retry import Exponential, RetryFor
from .webhook import check_channel

if TYPE_CHECKING:
    from ..engine.worker import Worker

log = logging.getLogger("deadletter.monitor")

_REMEMBERED = 7 * 24 * 3600  # seconds that a delivered alert stays known: as long as a dead monitor may owe it again
_TRIED = 24 * 3600
_AT_A_TIME = 4
LEASE = 60.0  # seconds after which what a dead monitor was sending is sent by another one
GRACE = 5.0  # seconds that a delivery under way has when its monitor is stopped; then it is repeated elsewhere


def delivery_policy() -> RetryPolicy:
    """How deliveries are tried again: after seconds at first, every ten minutes later, for a day."""
    return RetryFor(Exponential(base=2, factor=3, cap=600, jitter="equal"), _TRIED)


@attrs.frozen
class Owed:
    """An alert, and the channels that it is owed to."""

    alert: Alert
    channels: Sequence[str]

    def dump(self) -> dict[str, Any]:
        """As JSON-like data."""
        return {**_document(self.alert), "channels": list(self.channels)}

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Owed:
        """What ``dump`` gave."""
        return cls(_alert(data), data["channels"])


class Delivery:
    """Sends what is owed to a queue through the alerters of this process.

    Raises:
        InvalidTask: for two alerters of one name, or what is none.
    """

    def __init__(self, queue: DeadLetterQueue, alerters: Sequence[Alerter], policy: RetryPolicy | None = None) -> None:
        self._alerters: dict[str, Alerter] = {}
        for alerter in alerters:
            if not isinstance(alerter, Alerter):
                raise InvalidTask("alerters", f"{type(alerter).__name__} is no deadletter.Alerter")
            name = check_channel(alerter.channel)
            if name in self._alerters:
                raise InvalidTask("alerters", f"two of them are named {name!r}; give one another name=")
            self._alerters[name] = alerter
        self.queue = DeadLetterQueue(
            queue.backend,
            name=alerts_queue(queue.name),
            retry=policy or delivery_policy(),
            keep_finished=_REMEMBERED,
            dlq_ttl=queue.options.keep_letters_ms / 1000 if queue.options.keep_letters_ms is not None else None,
            lease=LEASE,
            clock=queue.clock,
            chance=queue.chance,
            threads=queue.threads,
        )
        for name, alerter in self._alerters.items():
            for kind in KINDS:
                self.queue.processor(f"{name}.{kind}", timeout=60)(_Sender(alerter))

    @property
    def channels(self) -> Sequence[str]:
        """The names of the channels."""
        return tuple(self._alerters)

    def workers(self) -> list[Worker]:
        """A worker for each channel."""
        return [
            self.queue.worker(types=[f"{name}.{kind}" for kind in KINDS], concurrency=_AT_A_TIME, shutdown_grace=GRACE)
            for name in self._alerters
        ]

    async def owe(self, owed: Sequence[Owed]) -> None:
        """Store deliveries; safe to repeat."""
        tasks = [
            Task(
                id=f"{each.alert.id}.{channel}",
                type=f"{channel}.{each.alert.kind}",
                payload=_document(each.alert),
                expires_in=_TRIED,  # where no monitor knows the channel any more
            )
            for each in owed
            for channel in each.channels
        ]
        await self.queue.enqueue_many(tasks)


class _Sender:
    """Delivers one task by one channel."""

    def __init__(self, alerter: Alerter) -> None:
        self._alerter = alerter

    async def __call__(self, task: Task) -> None:
        alert = _alert(task.payload)
        try:
            await self._alerter.send(alert)
        except Exception as error:
            final = isinstance(error, PermanentError)
            log.log(
                logging.ERROR if final else logging.WARNING,
                "alert %s (%s) was not delivered by %s%s: %s",
                *(alert.id, alert.kind, self._alerter.channel),
                ", and stays as a dead letter" if final else " yet",
                str(error) if isinstance(error, PermanentError | RetryAfter) else f"{type(error).__name__}: {error}",
            )
            raise


def _document(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "kind": alert.kind,
        "at": alert.at.isoformat(),
        "queue": alert.queue,
        "title": alert.title,
        "data": alert.data,
    }


def _alert(document: Mapping[str, Any]) -> Alert:
    return Alert(
        id=document["id"],
        kind=document["kind"],
        at=datetime.fromisoformat(document["at"]),
        queue=document["queue"],
        title=document["title"],
        data=document["data"],
    )
