"""Times of day in a time zone: when the daily summary is due, and when people want to sleep.

Pure. A time that a change to summer time skips is an hour later on that day; one that comes twice counts the first time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from importlib.util import find_spec
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import attrs

from ..model.errors import InvalidTask, MissingExtra
from ..model.task import from_ms

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def parse_time(field: str, text: object) -> time:
    """Read ``09:00``; raises InvalidTask that names the field."""
    if isinstance(text, time):
        return text.replace(tzinfo=None)
    found = _TIME.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise InvalidTask(field, f'{text!r:.60} is no time of day; write it like "09:00"')
    return time(int(found[1]), int(found[2]))


def parse_zone(field: str, name: object) -> ZoneInfo:
    """The time zone of a name such as ``Europe/Vienna``; raises InvalidTask that names the field."""
    if isinstance(name, ZoneInfo):
        return name
    try:
        return ZoneInfo(name if isinstance(name, str) else "")
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a directory
        problem = f"{name!r:.60} is no time zone that is known here; give a name such as Europe/Vienna"
    if find_spec("tzdata") is None and not available_timezones():
        raise MissingExtra("alerts", f"{field}: {name!r:.60}, as every time zone here,")
    raise InvalidTask(field, problem)


def _start(text: object) -> time:
    return parse_time("quiet hours: start", text)


def _end(text: object) -> time:
    return parse_time("quiet hours: end", text)


def _zone(name: object) -> ZoneInfo:
    return parse_zone("quiet hours: timezone", name)


def _days(days: Iterable[int]) -> frozenset[int]:
    return frozenset(days)


def moment(day: date, at: time, zone: ZoneInfo) -> datetime:
    """The moment of a local time on a day, in UTC."""
    return datetime.combine(day, at, zone).astimezone(UTC)


def local_day(now_ms: int, zone: ZoneInfo) -> date:
    """Which day it is there."""
    return from_ms(now_ms).astimezone(zone).date()


@attrs.frozen
class Daily:
    """Something that is due once a day at a local time."""

    at: time
    zone: ZoneInfo

    def due(self, last: date | None, now_ms: int) -> date | None:
        """The day whose time has come and that was not done yet; ``last`` is the last day that was.

        Several that were missed count as one: the latest.
        """
        today = local_day(now_ms, self.zone)
        day = today if self._ms(today) <= now_ms else today - timedelta(days=1)
        return day if last is None or day > last else None

    def next_ms(self, now_ms: int) -> int:
        """The next time that it falls due after now."""
        today = local_day(now_ms, self.zone)
        return next(ms for n in range(3) if (ms := self._ms(today + timedelta(days=n))) > now_ms)

    def _ms(self, day: date) -> int:
        return round(moment(day, self.at, self.zone).timestamp() * 1000)


@attrs.frozen
class QuietHours:
    """Hours in which only what is urgent is sent; the rest waits for their end.

    Args:
        start, end: local times, such as ``"22:00"`` and ``"07:00"``.
        timezone: a name such as ``Europe/Vienna``.
        days: weekdays on which they begin, 0 = Monday; default: every day.

    Raises:
        InvalidTask: for what is no time, zone or day; it names the argument.
    """

    start: time = attrs.field(converter=_start)
    end: time = attrs.field(converter=_end)
    timezone: ZoneInfo = attrs.field(factory=lambda: _zone("UTC"), converter=_zone)
    days: frozenset[int] = attrs.field(default=frozenset(range(7)), converter=_days)

    def __attrs_post_init__(self) -> None:
        if self.start == self.end:
            raise InvalidTask("quiet hours", f"they begin and end at {self.start:%H:%M}; give two different times")
        if not self.days <= frozenset(range(7)):
            raise InvalidTask("quiet hours: days", f"{sorted(self.days)!r} are no weekdays; 0 is Monday, 6 is Sunday")

    def until_ms(self, now_ms: int) -> int | None:
        """When the quiet hours that are under way end; None where there are none now."""
        today = local_day(now_ms, self.timezone)
        for day in (today - timedelta(days=1), today):
            if day.weekday() not in self.days:
                continue
            last = day if self.start < self.end else day + timedelta(days=1)
            start = moment(day, self.start, self.timezone).timestamp() * 1000
            end = moment(last, self.end, self.timezone).timestamp() * 1000
            if start <= now_ms < end:
                return round(end)
        return None
