"""Deaths by cause: what is told of them, and when. Pure: no I/O, no clock.

A cause that is new is told ``wait`` after its first death, or once a storm that is under way then has ended, at most
four times as late. What comes later is told at most once an ``interval``, and what nobody mends again after ``repeat``.
A cause none of whose letters is left, an interval after its last death, is resolved; when it kills again, it has
regressed. Where many causes are due at once, one telling holds them all: no number of causes makes a flood.

After Alertmanager's group_wait, group_interval and repeat_interval, with regressions as error trackers know them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

NEW, MORE, STILL, RESOLVED, REGRESSED = "new", "more", "still", "resolved", "regressed"

MOST = 500  # causes that are kept apart; deaths of others are counted together
BURST = 5  # tellings of a route in an interval; after that they wait for its end, and come as one
OTHER = "other causes"  # the key of what is counted together
FORGET_MS = 7 * 24 * 3600 * 1000  # how long a resolved cause is known, so that it can regress

Hold: TypeAlias = Callable[[str], "int | None"]


@attrs.frozen
class Timing:
    """The three intervals, in ms."""

    wait_ms: int
    interval_ms: int
    repeat_ms: int


@attrs.frozen
class Death:
    """A letter as it came to be. ``route`` decides who is told of it."""

    id: str
    type: str
    fingerprint: str
    at_ms: int
    route: str = ""


@attrs.define
class Cause:
    """Deaths of one cause and route.

    Attributes:
        count: deaths of this episode: since it was first seen, or since it was last resolved.
        told: how many of them the last telling counted.
        untold_ms: the first death that was not told yet.
        told_ms: when it was last told, in this episode.
        looked_ms: when somebody last looked whether any letter is left.
        resolved_ms: since when it is resolved.
        episodes: how often it came back.
        error_type: of a sample, once somebody looked at one: for when no letter is left.
    """

    key: str
    route: str
    type: str
    first_ms: int
    last_ms: int
    sample_id: str
    count: int = 0
    told: int = 0
    untold_ms: int | None = None
    told_ms: int | None = None
    looked_ms: int = 0
    resolved_ms: int | None = None
    episodes: int = 0
    error_type: str | None = None

    @property
    def fresh(self) -> int:
        """Deaths that nobody was told of."""
        return self.count - self.told


@attrs.frozen
class Said:
    """What a telling says of one cause: as it stood then, and how many deaths are new in it."""

    status: str
    cause: Cause
    fresh: int


@attrs.frozen
class Telling:
    """One alert to be: what became of some causes of one route."""

    route: str
    said: Sequence[Said]


@attrs.define
class Pace:
    """How many tellings a route had since the start of its interval."""

    since_ms: int = 0
    n: int = 0


def _never(_: str) -> int | None:
    return None


@attrs.define
class Book:
    """Every cause that is known; as plain data by ``dump``, and again by ``load``."""

    timing: Timing
    causes: dict[tuple[str, str], Cause] = attrs.field(factory=dict)
    paces: dict[str, Pace] = attrs.field(factory=dict)

    def absorb(self, deaths: Iterable[Death]) -> None:
        """Count deaths, each given once."""
        for death in deaths:
            cause = self.causes.get((death.route, death.fingerprint)) or self._admit(death)
            if cause.resolved_ms is not None:
                cause.count = cause.told = 0
                cause.first_ms = death.at_ms
                cause.told_ms = cause.resolved_ms = None
                cause.episodes += 1
            cause.count += 1
            cause.first_ms = min(cause.first_ms, death.at_ms)
            if death.at_ms >= cause.last_ms:
                cause.last_ms, cause.sample_id, cause.type = death.at_ms, death.id, death.type
            if cause.untold_ms is None:
                cause.untold_ms = death.at_ms

    def next_ms(self, hold: Hold = _never) -> int | None:
        """When there may next be something to tell, or to look at; None where nothing waits.

        ``hold`` says until when nothing may be told on a route.
        """
        found: list[int] = []
        for cause in self.causes.values():
            if cause.resolved_ms is None:
                due = self._due(cause)
                due = self._look_ms(cause) if due is None else due
                found.append(max(due, self._open(cause.route), hold(cause.route) or 0))
        return min(found, default=None)

    def to_look_at(self, now_ms: int) -> list[Cause]:
        """Causes of which somebody should look how many letters are left."""
        return [
            cause
            for cause in self.causes.values()
            if cause.resolved_ms is None and cause.untold_ms is None and self._look_ms(cause) <= now_ms
        ]

    def tell(self, now_ms: int, left: Mapping[str, int] | None = None, hold: Hold = _never) -> list[Telling]:
        """What has to be told now, noted as told.

        ``left``: how many letters are left by fingerprint, for those that were looked at.
        """
        routes: dict[str, list[tuple[str, Cause]]] = {}
        for cause in self.causes.values():
            status = self._status(cause, now_ms, (left or {}).get(cause.key))
            if status is not None:
                routes.setdefault(cause.route, []).append((status, cause))
        tellings: list[Telling] = []
        for route, due in routes.items():
            if (hold(route) or 0) <= now_ms and self._open(route) <= now_ms:
                tellings += self._say(route, due, now_ms)
        self._forget(now_ms)
        return tellings

    def name(self, cause: Cause, error_type: str | None) -> None:
        """Note what a sample of a cause raised."""
        known = self.causes.get((cause.route, cause.key))
        if known is not None and error_type is not None and cause.key != OTHER:
            known.error_type = error_type

    def dump(self) -> dict[str, Any]:
        """As JSON-like data."""
        return {
            "causes": [attrs.asdict(cause) for cause in self.causes.values()],
            "paces": {route: [pace.since_ms, pace.n] for route, pace in self.paces.items()},
        }

    @classmethod
    def load(cls, timing: Timing, data: Mapping[str, Any]) -> Book:
        """What ``dump`` gave."""
        causes = [Cause(**cause) for cause in data["causes"]]
        paces = {route: Pace(*pace) for route, pace in data["paces"].items()}
        return cls(timing, {(cause.route, cause.key): cause for cause in causes}, paces)

    def _admit(self, death: Death) -> Cause:
        key = death.fingerprint
        if len(self.causes) >= MOST and not self._make_room():
            key = OTHER
        known = self.causes.get((death.route, key))
        if known is not None:
            return known
        cause = Cause(key, death.route, death.type, death.at_ms, death.at_ms, death.id)
        self.causes[death.route, key] = cause
        return cause

    def _make_room(self) -> bool:
        """Drop what was told and is quiet longest, the resolved first; False where every cause has something to tell."""
        quiet = [cause for cause in self.causes.values() if cause.untold_ms is None]
        if not quiet:
            return False
        least = min(quiet, key=lambda cause: (cause.resolved_ms is None, cause.last_ms))
        del self.causes[least.route, least.key]
        return True

    def _forget(self, now_ms: int) -> None:
        for name, cause in list(self.causes.items()):
            ended_ms = cause.resolved_ms
            if ended_ms is not None and (cause.key == OTHER or ended_ms + FORGET_MS <= now_ms):
                del self.causes[name]
        for route, pace in list(self.paces.items()):
            if pace.since_ms + self.timing.interval_ms <= now_ms:
                del self.paces[route]

    def _due(self, cause: Cause) -> int | None:
        """When its untold deaths are due, None where there are none."""
        if cause.untold_ms is None:
            return None
        timing = self.timing
        latest = cause.untold_ms + 4 * timing.wait_ms
        due = min(max(cause.untold_ms + timing.wait_ms, cause.last_ms + timing.wait_ms // 5), latest)
        return due if cause.told_ms is None else max(due, cause.told_ms + timing.interval_ms)

    def _look_ms(self, cause: Cause) -> int:
        return max(cause.told_ms or 0, cause.last_ms, cause.looked_ms) + self.timing.interval_ms

    def _open(self, route: str) -> int:
        """From when on a route may be told something."""
        pace = self.paces.get(route)
        return 0 if pace is None or pace.n < BURST else pace.since_ms + self.timing.interval_ms

    def _status(self, cause: Cause, now_ms: int, left: int | None) -> str | None:
        due = self._due(cause)
        if due is not None:
            if due > now_ms:
                return None
            if cause.told_ms is not None:
                return MORE
            return REGRESSED if cause.episodes else NEW
        if left is None or cause.resolved_ms is not None:
            return None
        if left == 0:
            return RESOLVED
        cause.looked_ms = now_ms
        # Reminders that come up within an interval go along with the first.
        soon = (cause.told_ms or 0) + self.timing.repeat_ms - self.timing.interval_ms
        return STILL if soon <= now_ms else None

    def _say(self, route: str, due: Sequence[tuple[str, Cause]], now_ms: int) -> list[Telling]:
        overdue = now_ms - self.timing.repeat_ms
        if not any(status != STILL or (cause.told_ms or 0) <= overdue for status, cause in due):
            return []
        said = [Said(status, attrs.evolve(cause), cause.fresh) for status, cause in due]
        for status, cause in due:
            cause.told, cause.told_ms, cause.untold_ms = cause.count, now_ms, None
            if status == RESOLVED:
                cause.resolved_ms = now_ms
        pace = self.paces.get(route)
        if pace is None or pace.since_ms + self.timing.interval_ms <= now_ms:
            pace = self.paces[route] = Pace(now_ms)
        still = [each for each in said if each.status == STILL]
        others = [each for each in said if each.status != STILL]
        apart = len(others) + bool(still) <= BURST - pace.n
        parts = [[each] for each in others] + ([still] if still else []) if apart else [said]
        pace.n += len(parts)
        return [Telling(route, part) for part in parts]
