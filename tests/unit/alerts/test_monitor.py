"""A monitor on a virtual clock: what it tells, when, to whom, and what it goes on with after another one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import orjson
import pytest

from deadletter import BackendUnavailable, DeadLetterQueue, InvalidTask, PermanentError, RetryAfter, Task
from deadletter.alerts import LogAlerter, Monitor, QuietHours, Route, delivered, monitor_seen
from deadletter.engine.alerting import LEASE_MS, SEAT, Absence, alerts_queue, seats
from deadletter.model.row import FailureRow, NewRow
from deadletter.retry import Schedule
from deadletter.rules import changes
from deadletter.testing import VirtualClock

from .conftest import Recorder, Watching

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """One loop is enough for most; ``test_channels`` has both, and so has the last test here."""
    return str(request.param)


Die = Callable[..., Awaitable[list[str]]]


async def test_a_death_is_told_with_all_that_one_needs(
    watching: Watching, die: Die, dlq: DeadLetterQueue, recorder: Recorder
) -> None:
    async with watching():
        (id_,) = await die(payload={"card": "4111111111111111"}, error=ValueError("card 4111111111111111 is bad"))
        await dlq.clock.sleep(8)
    (alert,) = recorder.alerts
    assert (alert.kind, alert.queue) == ("task_dead", "default")
    data = alert.data
    assert (data["count"], data["new"], data["status"], data["sample_id"]) == (1, 1, "new", id_)
    assert (data["type"], data["error_type"], data["reason"]) == ("mail.send", "ValueError", "captured")
    assert data["message"] == "card [redacted] is bad"
    assert "4111" not in orjson.dumps(data).decode()
    assert "1 task of mail.send died: ValueError" in alert.title


async def test_a_storm_of_ten_thousand_is_one_alert_with_two_monitors(anyio_backend: str) -> None:
    """They die in a burst, before the clock moves on: one alert says 10,000, and one of two monitors sends it."""
    clock = VirtualClock()
    first, second = Recorder(), Recorder()
    async with DeadLetterQueue("memory://", clock=clock) as dlq:

        async def passing(seconds: float) -> None:
            for _ in range(round(seconds * 4)):
                for _ in range(40):
                    await anyio.lowlevel.checkpoint()
                clock.advance(0.25)

        options: dict[str, Any] = {"threshold": 20_000, "repeat_interval": 86_400}
        async with Monitor(dlq, [first], **options) as one, Monitor(dlq, [second], **options) as two:
            await passing(2)
            assert one.elected != two.elected
            tasks = [Task(type="mail.send") for _ in range(10_000)]
            for at in range(0, 10_000, 100):
                await dlq.insert([_dead(dlq, task) for task in tasks[at : at + 100]])
            await passing(60)
            counts = await delivered(dlq)
    assert [alert.data["count"] for alert in first.alerts + second.alerts] == [10_000]
    assert "10,000 tasks of mail.send died" in (first.alerts + second.alerts)[0].title
    assert counts == {("alerts_sent", "recorder", "task_dead"): 1}


def _dead(dlq: DeadLetterQueue, task: Task) -> NewRow:
    failure = FailureRow(attempt=1, error_type="TimeoutError", message="no answer", fingerprint="f00d")
    return attrs.evolve(dlq.new_row(task), state="dead", reason="rejected", history=[failure])


async def test_letters_that_were_there_before_anybody_watched_are_told_once(
    watching: Watching, die: Die, dlq: DeadLetterQueue, recorder: Recorder
) -> None:
    await die(3)
    await die(2, type="charge")
    for _ in range(2):
        async with watching():
            await dlq.clock.sleep(10)
    assert sorted(alert.data["count"] for alert in recorder.of("task_dead")) == [2, 3]


async def test_what_dies_right_after_it_was_started_is_told(dlq: DeadLetterQueue, die: Die, recorder: Recorder) -> None:
    """Before it is even elected."""
    async with Monitor(dlq, [recorder]):
        await die(4)
        await dlq.clock.sleep(20)
    assert sum(alert.data["new"] for alert in recorder.of("task_dead")) == 4


async def test_what_is_mended_is_told_and_what_comes_back_too(
    watching: Watching, die: Die, dlq: DeadLetterQueue, recorder: Recorder
) -> None:
    async with watching(group_interval=30):
        await die(3)
        await dlq.clock.sleep(10)
        await dlq.purge(everything=True, why="test data")
        await dlq.clock.sleep(80)
        await die()
        await dlq.clock.sleep(20)
    assert recorder.statuses == ["new", "resolved", "regressed"]
    assert "TimeoutError" in recorder.of("task_dead")[1].title
    (purged,) = recorder.of("purge_summary")
    assert (purged.data["count"], purged.data["why"]) == (3, {"test data": 3})


async def test_thresholds(watching: Watching, die: Die, dlq: DeadLetterQueue, recorder: Recorder) -> None:
    async with watching(threshold=2, critical_threshold=5, group_wait=1):
        await die(3)
        await dlq.clock.sleep(10)
        await die(3)
        await dlq.clock.sleep(10)
        await dlq.purge(everything=True)
        await dlq.clock.sleep(10)
    kinds = [alert.kind for alert in recorder.alerts if alert.kind.startswith("threshold")]
    assert kinds == ["threshold_exceeded", "threshold_critical", "threshold_resolved"]
    assert [alert.data["count"] for alert in recorder.alerts if alert.kind.startswith("threshold")] == [3, 6, 0]


async def test_due_tasks_that_no_worker_knows_are_told(
    watching: Watching, dlq: DeadLetterQueue, recorder: Recorder
) -> None:
    await dlq.enqueue(Task(type="orphan"))
    await dlq.enqueue(Task(type="held"))
    await dlq.pause("held", why="on purpose")
    async with watching(group_interval=30):
        await dlq.clock.sleep(80)
        (alert,) = recorder.of("overdue")
        assert alert.data["by_type"] == {"orphan": 1}

        @dlq.processor("orphan")
        async def run(_: Task) -> None: ...

        await dlq.worker().run_until_idle()
        await dlq.clock.sleep(60)
    assert [alert.data["status"] for alert in recorder.of("overdue")] == ["new", "resolved"]


async def test_the_daily_summary_says_what_goes_within_a_day(
    anyio_backend: str, clock: VirtualClock, die: Die, dlq: DeadLetterQueue, recorder: Recorder
) -> None:
    hour = 1_750_000_000_000 // 3_600_000 * 3600  # the virtual clock begins on 2025-06-15 at 15:06:40
    clock.advance(hour - 1_750_000_000 + 3600)  # 16:00 in UTC, 18:00 in Vienna
    short = DeadLetterQueue(dlq.backend, clock=clock, dlq_ttl=26 * 3600)
    await short.capture(Task(type="soon"), ValueError("x"))
    await die(2)
    async with Monitor(dlq, [recorder], summary_at="18:30", timezone="Europe/Vienna") as monitor:
        while not monitor.elected:
            await clock.sleep(0.1)
        clock.advance(28 * 60)
        await clock.sleep(60)
        assert recorder.of("daily_summary") == []
        await clock.sleep(90)
        (first,) = recorder.of("daily_summary")
        clock.advance(23 * 3600)
        await clock.sleep(1)
        assert len(recorder.of("daily_summary")) == 1
        clock.advance(3600)
        await clock.sleep(10)
    assert (first.data["count"], first.data["going_within_24h"]) == (3, 0)
    second = recorder.of("daily_summary")[1]
    assert (second.data["going_within_24h"], second.data["going_by_type"]) == (1, {"soon": 1})
    assert (second.data["day"], second.data["died"]) == ("2025-06-16", 0)
    assert "1 will be purged within 24 h" in second.title


async def test_quiet_hours_hold_all_but_what_is_urgent(
    clock: VirtualClock, die: Die, dlq: DeadLetterQueue, recorder: Recorder
) -> None:
    pager = Recorder("pager")
    routes = [Route(types="charge*", channels="pager", urgent=True)]
    quiet = QuietHours("15:00", "16:00")  # it is 15:06
    async with Monitor(dlq, [recorder, pager], routes=routes, quiet_hours=quiet, threshold=2):
        await clock.sleep(1)
        await die(5)
        await die(1, type="charge.card")
        await clock.sleep(30)
        assert [alert.data["type"] for alert in pager.of("task_dead")] == ["charge.card"]
        assert recorder.alerts == []
        clock.advance(3550)
        await clock.sleep(20)
    assert [alert.data["count"] for alert in recorder.of("task_dead")] == [5]
    assert len(recorder.of("threshold_exceeded")) == 1


async def test_routes_go_by_type_priority_and_kind(die: Die, dlq: DeadLetterQueue) -> None:
    pager, mail = Recorder("pager"), Recorder("mail")
    routes = [
        Route(types="noise.*", channels=()),
        Route(priorities="high", channels="pager"),
        Route(kinds=["threshold_exceeded", "purge_summary"], channels="mail"),
        Route(kinds="task_dead", channels=["mail"]),
    ]
    async with Monitor(dlq, [pager, mail], routes=routes, threshold=2):
        await dlq.clock.sleep(1)
        await die(2, type="noise.a")
        await die(1, priority="high")
        await die(1, priority="low")
        await dlq.clock.sleep(30)
    assert [(alert.kind, alert.data["priority"]) for alert in pager.alerts] == [("task_dead", "high")]
    assert sorted(alert.kind for alert in mail.alerts) == ["task_dead", "threshold_exceeded"]


async def test_a_channel_that_fails_is_tried_again_and_stops_no_other(
    watching: Watching, die: Die, dlq: DeadLetterQueue, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 19: it raises, and asks for patience. The others are told at once, tasks do not notice."""
    bad = Recorder("bad", failures=[OSError("down"), RetryAfter(5, "slow down"), OSError("down")])
    async with watching(bad, recorder, retry=Schedule([0.5] * 4, jitter=0)):
        await die()
        await dlq.clock.sleep(9)
        assert len(recorder.alerts) == 1
        await dlq.clock.sleep(12)
        assert await dlq.enqueue(Task(type="x"))
    (alert,) = bad.alerts
    assert alert.id == recorder.alerts[0].id, "a delivery that is repeated is of the same alert"
    counts = await delivered(dlq)
    assert counts["alerts_failed", "bad", "task_dead"] == 3
    assert counts["alerts_sent", "bad", "task_dead"] == counts["alerts_sent", "recorder", "task_dead"] == 1
    assert any("was not delivered by bad yet: OSError: down" in record.getMessage() for record in caplog.records)


async def test_a_channel_that_hangs_stops_no_other(
    anyio_backend: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 19, on the real clock."""
    monkeypatch.setattr("deadletter.alerts.delivery.GRACE", 0.1)
    hung = Recorder("hung", hangs=True)
    async with (
        DeadLetterQueue("memory://") as dlq,
        Monitor(dlq, [hung, recorder], group_wait=0, threshold=0, group_interval=600),
    ):
        with anyio.fail_after(20):
            for n in range(3):
                await dlq.capture(Task(type=f"t{n}"), ValueError(str(n)))
                while not any(f"t{n}" in str(alert.data) for alert in recorder.alerts):
                    await anyio.sleep(0.02)
        assert ("alerts_sent", "hung", "task_dead") not in await delivered(dlq)


async def test_what_can_never_be_delivered_is_a_letter_of_a_queue_of_its_own(
    watching: Watching, die: Die, dlq: DeadLetterQueue
) -> None:
    gone = Recorder("gone", failures=[PermanentError("https://example.com answered 410")])
    async with watching(gone):
        await die()
        await dlq.clock.sleep(20)
    alerts = DeadLetterQueue(dlq.backend, name="default:alerts", clock=dlq.clock)
    (letter,) = (await alerts.list()).items
    assert (letter.task.type, letter.reason) == ("gone.task_dead", "permanent")
    await alerts.retry(letter.id)
    async with watching(gone):
        await dlq.clock.sleep(20)
    assert len(gone.alerts) == 1, "and may be replayed like any other"


async def test_a_monitor_goes_on_where_another_one_was_killed(
    watching: Watching, die: Die, dlq: DeadLetterQueue, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N10, I10: killed while it holds the election, between two alerts; the next one takes over within the lease."""
    async with watching() as first:
        await die(4)
        await dlq.clock.sleep(10)
        await die(3)
        await dlq.clock.sleep(5)
        monkeypatch.setattr(first, "_give_up", _nothing)  # a killed one says no farewell
    await die(2)
    began = dlq.clock.monotonic()
    async with watching():
        assert dlq.clock.monotonic() - began <= LEASE_MS / 1000 + 6
        await dlq.clock.sleep(400)
    assert [(alert.data["status"], alert.data["count"], alert.data["new"]) for alert in recorder.of("task_dead")] == [
        ("new", 4, 4),
        ("more", 9, 5),
    ]


async def _nothing(*_: Any) -> None: ...


@pytest.mark.parametrize("at", ["read", "stored", "owed"])
async def test_dying_between_any_two_steps_loses_nothing_and_doubles_nothing(
    watching: Watching, die: Die, dlq: DeadLetterQueue, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """The step is cut before the book is stored, after it, and after the deliveries are; each time once."""
    failed: list[str] = []

    def fail_once(name: str) -> None:
        if not failed:
            failed.append(name)
            raise BackendUnavailable("cut here")

    async with watching() as monitor:
        apply, owe = dlq.backend.apply, monitor._delivery.owe

        async def cut_apply(queue: str, changes: Any) -> Any:
            telling = queue == seats(dlq.name) and any(b"task_dead" in (change.body or b"") for change in changes)
            if telling and at == "read":
                fail_once(at)
            verdicts = await apply(queue, changes)
            if telling and at == "stored":
                fail_once(at)
            return verdicts

        async def cut_owe(owed: Any) -> None:
            await owe(owed)
            if at == "owed":
                fail_once(at)

        monkeypatch.setattr(dlq.backend, "apply", cut_apply)
        monkeypatch.setattr(monitor._delivery, "owe", cut_owe)
        monkeypatch.setattr("deadletter.alerts.monitor.Watch", _Rewired(monitor))
        await die(2)
        await dlq.clock.sleep(60)
    assert failed == [at] or at == "owed"
    assert [alert.data["count"] for alert in recorder.of("task_dead")] == [2]


class _Rewired:
    """Watches made from now on go through what the test put in place."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def __call__(self, queue: Any, plan: Any, seat: Any, notes: Any, owe: Any) -> Any:
        from deadletter.alerts.watch import Watch

        return Watch(queue, plan, seat, notes, self._monitor._delivery.owe)


async def test_a_gap_in_the_events_is_made_up_for_from_the_letters(
    dlq: DeadLetterQueue, die: Die, recorder: Recorder, watching: Watching
) -> None:
    async with watching():
        await die(2)
        await dlq.clock.sleep(10)
    dead = await die(30)
    shelf = dlq.backend._queues["default"]  # type: ignore[attr-defined]
    while shelf.events[0].task_id != dead[-5]:
        shelf.events.popleft()
    async with watching():
        await dlq.clock.sleep(400)
    told = [(alert.data["count"], alert.data["new"]) for alert in recorder.of("task_dead")]
    assert told == [(2, 2), (32, 30)]


async def test_a_stranger_who_was_deposed_changes_nothing_any_more(
    watching: Watching, die: Die, dlq: DeadLetterQueue, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching() as first:
        row = (await dlq.backend.load(seats("default"), [SEAT]))[0]
        assert row is not None
        dlq.clock.advance(LEASE_MS / 1000 + 1)  # type: ignore[attr-defined] # frozen past its lease
        taken = await dlq.backend.apply(seats("default"), [changes.take_over(row, "op", "other", 5_000, "other")])
        if taken[0] == "done":
            await die()
            await dlq.clock.sleep(60)
            assert first.elected, "it is elected again once the other one's lease has lapsed"
            assert any("was deposed" in record.getMessage() for record in caplog.records)
            assert [alert.data["count"] for alert in recorder.of("task_dead")] == [1]


async def test_a_book_of_a_newer_version_is_left_alone(
    watching: Watching, dlq: DeadLetterQueue, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching():
        await dlq.clock.sleep(1)
    row = (await dlq.backend.load(seats("default"), [SEAT]))[0]
    assert row is not None
    newer = b'{"version": 99}'
    await dlq.backend.apply(seats("default"), [changes.note(row, "newer", newer, 0)])
    async with watching(elected=False):
        await dlq.clock.sleep(10)
    left = (await dlq.backend.load(seats("default"), [SEAT]))[0]
    assert left is not None
    assert left.body == newer
    assert any("newer version" in record.getMessage() for record in caplog.records)


async def test_who_monitors_is_seen_and_a_monitor_that_is_gone_is_told(
    watching: Watching, dlq: DeadLetterQueue, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    assert await monitor_seen(dlq) is None
    absence = Absence(dlq)
    await absence.look()
    async with watching(name="first") as first:
        seen = await monitor_seen(dlq)
        assert seen is not None
        assert (seen.name, seen.absent) == (first.name, False)
    await absence.look()
    dlq.clock.advance(600)  # type: ignore[attr-defined]
    seen = await monitor_seen(dlq)
    assert seen is not None
    assert seen.absent
    with caplog.at_level(logging.WARNING):
        await absence.look()
        await absence.look()
    assert sum("monitor_absent" in record.getMessage() for record in caplog.records) == 1, "once an hour is enough"
    async with watching():
        await dlq.clock.sleep(5)
    (alert,) = recorder.of("monitor_absent")
    assert "no monitor ran for" in alert.title


async def test_an_error_of_the_users_block_is_raised_as_it_is(dlq: DeadLetterQueue, recorder: Recorder) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Monitor(dlq, [recorder]):
            raise KeyError("mine")


async def test_a_test_alert_goes_through_every_channel_at_once(dlq: DeadLetterQueue, recorder: Recorder) -> None:
    bad = Recorder("bad", failures=[OSError("down\nfor good")])
    found = await Monitor(dlq, [bad, recorder, LogAlerter()]).test()
    assert [(each.channel, each.error) for each in found] == [
        ("bad", "down for good"),
        ("recorder", None),
        ("log", None),
    ]
    assert [alert.kind for alert in recorder.alerts] == ["test"]


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("threshold", {"threshold": -1}),
        ("threshold", {"threshold": 1.5}),
        ("critical_threshold", {"threshold": 10, "critical_threshold": 5}),
        ("group_wait", {"group_wait": -1}),
        ("summary_at", {"summary_at": "noon"}),
        ("timezone", {"timezone": "Moon"}),
        ("routes", {"routes": [Route(channels="nobody")]}),
        ("dashboard", {"dashboard": "javascript:alert(1)"}),
        ("heartbeat", {"heartbeat": "ftp://x"}),
    ],
)
def test_options_that_cannot_be_meant_are_refused_by_name(field: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask, match=f"^{field}: "):
        Monitor(DeadLetterQueue("memory://"), [Recorder()], **options)


def test_two_channels_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidTask, match="alerters: two of them are named 'recorder'"):
        Monitor(DeadLetterQueue("memory://"), [Recorder(), Recorder()])
    with pytest.raises(InvalidTask, match=r"alerters: str is no deadletter\.Alerter"):
        Monitor(DeadLetterQueue("memory://"), ["mail"])  # type: ignore[list-item]
    for options in ({"kinds": "x"}, {"priorities": "urgent"}):
        with pytest.raises(InvalidTask):
            Route(channels="a", **options)


def test_a_long_name_has_an_alerts_queue_too() -> None:
    names = {alerts_queue("q" * 100), alerts_queue("q" * 99 + "r"), alerts_queue("q")}
    assert len(names) == 3
    assert all(len(name) <= 100 for name in names)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_it_runs_on_trio(anyio_backend: str, die: Die, watching: Watching, recorder: Recorder) -> None:
    async with watching() as monitor:
        await die(2)
        await monitor._queue.clock.sleep(8)
    assert [alert.data["count"] for alert in recorder.alerts] == [2]


async def test_a_heartbeat_beats_while_all_is_well(anyio_backend: str) -> None:
    from ...sinks import receiver

    with receiver() as sink:
        async with (
            DeadLetterQueue("memory://") as dlq,
            Monitor(dlq, [Recorder()], heartbeat=sink.url, heartbeat_interval=1),
        ):
            with anyio.fail_after(10):
                while not sink.requests:
                    await anyio.sleep(0.05)
