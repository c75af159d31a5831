"""The monitor: any number of them on a queue, of which one is elected, and all of which deliver."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import anyio
import attrs
from anyio.abc import TaskGroup

from ..interfaces.alerter import Alert, Alerter
from ..interfaces.retry_policy import RetryPolicy
from ..model.errors import BackendError, InvalidTask
from ..model.row import Row
from ..model.task import Duration, from_ms, seconds
from ..runtime.chance import new_id
from . import drafts
from .book import Notes
from .calendar import Daily, QuietHours, parse_time, parse_zone
from .delivery import Delivery
from .drafts import Desk
from .facts import lifetime
from .grouping import Timing
from .heartbeat import Heartbeat
from .levels import Limits
from .routes import Route, Routing
from .seat import Deposed, Seat
from .watch import Plan, Watch

if TYPE_CHECKING:
    from ..engine.queue import DeadLetterQueue

log = logging.getLogger("deadletter.monitor")

_WAITS = 5.0  # seconds between two tries to be elected
_AFTER_ERROR, _LONGEST_WAIT = 1.0, 30.0
_ABSENT_MS = 120_000


@attrs.frozen
class Tested:
    """What became of one test alert. ``error`` is None where it was sent."""

    channel: str
    error: str | None = None


class Monitor:
    """Watches a queue and tells people: ``async with Monitor(dlq, [EmailAlerter(...)]):`` in a service of your own.

    Any number may run on a queue, in any processes: one is elected, and tells each thing once. What it owes is stored
    before it is sent; a delivery that fails is tried again for a day, and then is a dead letter of the queue
    ``<name>:alerts``.

    Args:
        dlq: the queue.
        alerters: the channels, each with a name of its own.
        threshold: more letters than this are worth an alert; default: the queue's ``alert_threshold``.
        critical_threshold: more than this are critical; default: ten times ``threshold``.
        group_wait: how long after its first death a cause is told.
        group_interval: how long until the next word on the same cause, and until one without letters is resolved.
        repeat_interval: how long until what nobody mended is told again.
        summary_at: local time of the daily summary; None for no summary.
        timezone: of ``summary_at``.
        routes: who is told what; default: every channel everything.
        quiet_hours: in which only what is critical or goes by an urgent route is told.
        dashboard: URL of the dashboard, for links.
        heartbeat: URL that is asked each ``heartbeat_interval`` while all is well: whoever watches it notices when we die.
        retry: how deliveries are tried again.
        name: of this monitor; default: host and process.

    Raises:
        InvalidTask: names the argument.
    """

    def __init__(
        self,
        dlq: DeadLetterQueue,
        alerters: Sequence[Alerter],
        *,
        threshold: int | None = None,
        critical_threshold: int | None = None,
        group_wait: Duration = 5,
        group_interval: Duration = 300,
        repeat_interval: Duration = 4 * 3600,
        summary_at: str | None = "09:00",
        timezone: str = "UTC",
        routes: Sequence[Route] = (),
        quiet_hours: QuietHours | None = None,
        dashboard: str | None = None,
        heartbeat: str | None = None,
        heartbeat_interval: Duration = 60,
        retry: RetryPolicy | None = None,
        name: str | None = None,
    ) -> None:
        self._queue = dlq
        self._delivery = Delivery(dlq, alerters, retry)
        self._alerters = tuple(alerters)
        limits = _limits(dlq.options.alert_threshold if threshold is None else threshold, critical_threshold)
        self._plan = Plan(
            timing=Timing(
                wait_ms=round(seconds("group_wait", group_wait) * 1000),
                interval_ms=max(1, round(seconds("group_interval", group_interval) * 1000)),
                repeat_ms=max(1, round(seconds("repeat_interval", repeat_interval) * 1000)),
            ),
            limits=limits,
            daily=None
            if summary_at is None
            else Daily(parse_time("summary_at", summary_at), parse_zone("timezone", timezone)),
            quiet=quiet_hours,
            routing=Routing(routes, self._delivery.channels),
            desk=Desk(dlq.name, _dashboard(dashboard)),
        )
        self._heartbeat = Heartbeat(heartbeat, seconds("heartbeat_interval", heartbeat_interval), dlq.clock)
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{dlq.chance.name()[:6]}"
        self._group: TaskGroup | None = None
        self.elected = False

    async def __aenter__(self) -> Self:
        await self._queue.open()
        self._group = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self.run)
        return self

    async def __aexit__(self, *_: object) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)  # an error of the block goes its own way, in no group

    async def run(self) -> None:
        """Watch and deliver until cancelled; no error of a store or channel ends it."""
        await self._queue.open()
        try:
            async with anyio.create_task_group() as group:
                for worker in self._delivery.workers():
                    group.start_soon(worker.run)
                group.start_soon(self._heartbeat.run)
                await self._reign()
        finally:
            with anyio.CancelScope(shield=True):
                await self._delivery.queue.aclose()

    async def test(self) -> list[Tested]:
        """Send a test alert through every channel, at once and without the store; answer what became of each."""
        draft = drafts.test_alert(self._plan.desk)
        told = from_ms(self._queue.clock.now_ms())
        alert = Alert(id=new_id(), kind=draft.kind, at=told, queue=self._queue.name, title=draft.title, data=draft.data)
        found: list[Tested] = []
        for alerter in self._alerters:
            try:
                with anyio.fail_after(60):
                    await alerter.send(alert)
                found.append(Tested(alerter.channel))
            except Exception as error:  # somebody else's code; the other channels are tested all the same
                said = " ".join(str(error).split())
                found.append(Tested(alerter.channel, said or type(error).__name__))
        return found

    async def _reign(self) -> None:
        wait = _AFTER_ERROR
        while True:
            began = self._queue.clock.monotonic()
            seat = Seat(self._queue, self.name)
            try:
                row = await seat.take()
                if row is not None:
                    await self._reign_once(seat, row)
                else:
                    await self._queue.clock.sleep(_WAITS)
            except Deposed:
                log.warning("monitor %s was deposed: its lease had lapsed, and another one goes on", self.name)
            except BackendError as error:
                log.warning("cannot watch queue %s, and try again: %s", self._queue.name, error)
            except Exception:
                log.exception("monitor %s failed, and begins anew from what is stored", self.name)
            else:
                wait = _AFTER_ERROR
                continue
            finally:
                self.elected = self._heartbeat.well = False
            if self._queue.clock.monotonic() - began > 2 * _LONGEST_WAIT:
                wait = _AFTER_ERROR
            await self._queue.clock.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _reign_once(self, seat: Seat, row: Row) -> None:
        notes, lapsed_ms, now_ms = await self._notes(row)
        watch = Watch(self._queue, self._plan, seat, notes, self._delivery.owe)
        self.elected = True
        log.info("monitor %s watches queue %s on %s", self.name, self._queue.name, self._queue.backend.url)
        try:
            if lapsed_ms is not None and now_ms - lapsed_ms > _ABSENT_MS:
                draft = drafts.absent(self._plan.desk, since_ms=lapsed_ms, until_ms=now_ms)
                await watch.tell(draft, now_ms)
            await watch.run(self._heartbeat.is_well)
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(2):
                await self._give_up(seat)  # so that another one may go on at once, whatever became of us

    async def _notes(self, row: Row) -> tuple[Notes, int | None, int]:
        """The book to go on with, when our predecessor's lease ended, and the time."""
        counts = await self._queue.backend.counts(self._queue.name)
        now_ms = counts.now_ms
        if row.body:
            try:
                notes = Notes.load(self._plan.timing, row.body)
            except (ValueError, KeyError, TypeError) as error:
                raise BackendError(f"the monitor's book cannot be read here, and is left alone: {error}") from None
            return notes, row.lease_ms, now_ms
        notes = Notes.begin(self._plan.timing, row.created_ms)
        notes.reckoned = lifetime(counts)
        if self._plan.daily is not None:
            notes.day = self._plan.daily.due(None, now_ms)  # today's, if its time is over, is not made up for
        return notes, None, now_ms

    async def _give_up(self, seat: Seat) -> None:
        try:
            await seat.leave()
        except BackendError:
            return  # the lease lapses


def _limits(threshold: object, critical: object) -> Limits:
    for name, value in (("threshold", threshold), ("critical_threshold", critical)):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not whole and not (name == "critical_threshold" and value is None):
            raise InvalidTask(name, f"{value!r:.60} is no number of letters; give a whole number, 0 or more")
    assert isinstance(threshold, int)  # noqa: S101 - for the type checkers; checked above
    most = critical if isinstance(critical, int) else 10 * threshold
    if most < threshold:
        raise InvalidTask("critical_threshold", f"{most} is below the threshold of {threshold}; give as much or more")
    return Limits(threshold, most)


def _dashboard(url: str | None) -> str | None:
    if url is None:
        return None
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or not url.isprintable() or " " in url:
        raise InvalidTask("dashboard", f"{url!r:.80} is no URL; write it like https://dlq.example.com")
    return url
