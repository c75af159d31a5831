"""Local times, over changes of daylight saving."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter import InvalidTask
from deadletter.alerts.calendar import Daily, QuietHours, local_day, parse_time, parse_zone

VIENNA = ZoneInfo("Europe/Vienna")
ZONES = ["UTC", "Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kathmandu"]


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def test_it_is_due_once_a_day() -> None:
    daily = Daily(parse_time("at", "09:00"), VIENNA)
    assert daily.due(date(2026, 6, 1), ms("2026-06-02T06:59:59Z")) is None
    assert daily.due(date(2026, 6, 1), ms("2026-06-02T07:00:00Z")) == date(2026, 6, 2)
    assert daily.due(date(2026, 6, 2), ms("2026-06-02T23:59:00Z")) is None
    assert daily.next_ms(ms("2026-06-02T07:00:00Z")) == ms("2026-06-03T07:00:00Z")


def test_days_that_were_missed_count_as_one() -> None:
    daily = Daily(parse_time("at", "09:00"), VIENNA)
    assert daily.due(date(2026, 6, 1), ms("2026-06-05T12:00:00Z")) == date(2026, 6, 5)


@pytest.mark.parametrize(
    ("day", "at", "utc"),
    [
        ("2026-03-28", "09:00", "08:00"),
        ("2026-03-29", "09:00", "07:00"),  # summer time began at 02:00
        ("2026-03-29", "02:30", "01:30"),  # skipped: at 03:30
        ("2026-10-25", "02:30", "00:30"),  # comes twice: the first
        ("2026-10-25", "09:00", "08:00"),
    ],
)
def test_it_is_due_at_the_local_time_on_days_of_a_change(day: str, at: str, utc: str) -> None:
    daily = Daily(parse_time("at", at), VIENNA)
    moment = ms(f"{day}T{utc}:00Z")
    before = date.fromisoformat(day) - timedelta(days=1)
    assert daily.due(before, moment - 1) is None
    assert daily.due(before, moment) == date.fromisoformat(day)


@given(
    st.sampled_from(ZONES),
    st.times().map(lambda at: at.replace(second=0, microsecond=0)),
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 1)),  # noqa: DTZ001 - hypothesis asks for naive ones
)
def test_each_local_day_has_exactly_one(zone: str, at: object, start: datetime) -> None:
    daily = Daily(parse_time("at", at), ZoneInfo(zone))
    now_ms = round(start.replace(tzinfo=UTC).timestamp() * 1000)
    last = daily.due(None, now_ms)
    for _ in range(8):
        now_ms = daily.next_ms(now_ms)
        assert daily.due(last, now_ms - 1) is None
        day = daily.due(last, now_ms)
        assert day is not None
        assert last is not None
        assert day - last == timedelta(days=1)
        last = day


def test_quiet_hours_go_over_midnight_and_over_a_change() -> None:
    quiet = QuietHours("22:00", "07:00", "Europe/Vienna")
    assert quiet.until_ms(ms("2026-03-28T20:59:00Z")) is None
    assert quiet.until_ms(ms("2026-03-28T21:00:00Z")) == ms("2026-03-29T05:00:00Z")
    assert quiet.until_ms(ms("2026-03-29T04:59:00Z")) == ms("2026-03-29T05:00:00Z")
    assert quiet.until_ms(ms("2026-03-29T05:00:00Z")) is None


def test_quiet_hours_may_be_of_some_days() -> None:
    weekend = QuietHours("00:00", "23:59", days={5, 6})
    assert weekend.until_ms(ms("2026-06-05T12:00:00Z")) is None
    assert weekend.until_ms(ms("2026-06-06T12:00:00Z")) == ms("2026-06-06T23:59:00Z")


@given(st.sampled_from(ZONES), st.integers(ms("2025-01-01T00:00:00Z"), ms("2027-01-01T00:00:00Z")))
def test_quiet_hours_end_after_now_within_a_day(zone: str, now_ms: int) -> None:
    until = QuietHours("21:30", "06:15", zone).until_ms(now_ms)
    assert until is None or now_ms < until <= now_ms + 11 * 3600_000
    assert local_day(now_ms, ZoneInfo(zone)) is not None


@pytest.mark.parametrize("text", ["9", "24:00", "09:60", "", None, "09:00 "[:0], "x" * 10_000])
def test_what_is_no_time_is_refused_by_name(text: object) -> None:
    with pytest.raises(InvalidTask, match=r"summary_at: .*09:00") as refused:
        parse_time("summary_at", text)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("name", ["Mars/Olympus", "", None, "../../etc/passwd", "Europe", "/etc/localtime"])
def test_what_is_no_zone_is_refused_by_name(name: object) -> None:
    with pytest.raises(InvalidTask, match="timezone: .*Europe/Vienna"):
        parse_zone("timezone", name)


@pytest.mark.parametrize("given_", [("08:00", "08:00"), ("25:00", "08:00"), ("08:00", "09:00", "Nowhere")])
def test_quiet_hours_that_cannot_be_meant_are_refused(given_: tuple[str, ...]) -> None:
    with pytest.raises(InvalidTask, match="quiet hours"):
        QuietHours(*given_)
    with pytest.raises(InvalidTask, match="quiet hours: days"):
        QuietHours("08:00", "09:00", days={7})
