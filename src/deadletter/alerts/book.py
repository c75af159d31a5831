"""Everything that must outlive a monitor, as one stored document.

How far it has read, what it counted, what it told last, and what it owes: written in one step, so that whoever is
elected next goes on exactly there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import attrs
import orjson

from .delivery import Owed
from .grouping import MORE, NEW, RESOLVED, STILL, Book, Timing
from .levels import Gauge

VERSION = 1
_DAY_MS = 24 * 3600 * 1000


@attrs.define
class Purges:
    """Letters that were deleted and not told yet."""

    by_type: dict[str, int] = attrs.field(factory=dict)
    why: dict[str, int] = attrs.field(factory=dict)
    first_ms: int | None = None
    last_ms: int = 0
    told_ms: int | None = None
    asked: bool = False  # somebody deleted some; else all of them only aged out

    def see(self, type_: str, why: str, n: int, at_ms: int) -> None:
        """Note deleted letters."""
        aged = why == "past its keep"
        self.by_type[type_] = self.by_type.get(type_, 0) + n
        reason = why[:200]
        if reason not in self.why and len(self.why) >= 50:
            reason = "other reasons"
        self.why[reason] = self.why.get(reason, 0) + n
        self.first_ms = at_ms if self.first_ms is None else self.first_ms
        self.last_ms = max(self.last_ms, at_ms)
        self.asked = self.asked or not aged

    def due_ms(self, timing: Timing) -> int | None:
        """When they are told: soon where somebody asked, else once a day; at most once in the repeat interval."""
        if self.first_ms is None:
            return None
        soon = max(self.first_ms + timing.wait_ms, self.last_ms + timing.wait_ms // 5)
        if not self.asked:
            return (self.told_ms if self.told_ms is not None else self.first_ms) + _DAY_MS
        return (
            min(soon, self.first_ms + 4 * timing.wait_ms)
            if self.told_ms is None
            else max(soon, self.told_ms + timing.repeat_ms)
        )

    def told(self, now_ms: int) -> None:
        """Begin anew."""
        self.by_type, self.why, self.first_ms, self.asked = {}, {}, None, False
        self.told_ms = now_ms


@attrs.define
class Waiting:
    """Types whose due tasks nobody takes."""

    types: list[str] = attrs.field(factory=list)
    told_ms: int | None = None

    def see(self, types: Mapping[str, int], timing: Timing, now_ms: int) -> str | None:
        """Note them; the status that is worth telling, if any."""
        if self.told_ms is None:
            if not types:
                return None
            self.types, self.told_ms = sorted(types), now_ms
            return NEW
        if now_ms - self.told_ms < timing.interval_ms:
            return None
        if not types:
            self.types, self.told_ms = [], None
            return RESOLVED
        grown = not set(types) <= set(self.types)
        if not grown and now_ms - self.told_ms < timing.repeat_ms:
            return None
        self.types, self.told_ms = sorted(types), now_ms
        return MORE if grown else STILL


@attrs.define
class Notes:
    """A monitor's book.

    Attributes:
        since_ms: since when events are read; what died before is told from the letters that there were.
        looked_around: whether those are noted.
        seq: the last event that was read; 0 before the first.
        edge_ms, edge: the time of that event, and the tasks of those at that very time.
        day: the last day whose summary was told.
        reckoned: the lifetime counters at that time.
        owed: alerts that may not be stored as deliveries yet.
    """

    timing: Timing
    since_ms: int
    causes: Book
    looked_around: bool = False
    seq: int = 0
    edge_ms: int = 0
    edge: list[str] = attrs.field(factory=list)
    gauge: Gauge = attrs.field(factory=Gauge)
    purges: Purges = attrs.field(factory=Purges)
    waiting: Waiting = attrs.field(factory=Waiting)
    day: date | None = None
    reckoned: dict[str, int] = attrs.field(factory=dict)
    owed: list[Owed] = attrs.field(factory=list)

    @classmethod
    def begin(cls, timing: Timing, now_ms: int) -> Notes:
        """Of a queue that nobody has monitored."""
        return cls(timing, now_ms, Book(timing), edge_ms=now_ms)

    def dump(self) -> bytes:
        """As it is stored."""
        return orjson.dumps(
            {
                "version": VERSION,
                "since_ms": self.since_ms,
                "causes": self.causes.dump(),
                "looked_around": self.looked_around,
                "seq": str(self.seq),  # it may have more than 64 bits
                "edge_ms": self.edge_ms,
                "edge": self.edge,
                "gauge": attrs.asdict(self.gauge),
                "purges": attrs.asdict(self.purges),
                "waiting": attrs.asdict(self.waiting),
                "day": None if self.day is None else self.day.isoformat(),
                "reckoned": self.reckoned,
                "owed": [each.dump() for each in self.owed],
            }
        )

    @classmethod
    def load(cls, timing: Timing, body: bytes) -> Notes:
        """What ``dump`` gave; raises ValueError for what a newer version wrote, and for what is broken."""
        data = orjson.loads(body)
        if data["version"] > VERSION:
            raise ValueError(f"a monitor of a newer version wrote it (format {data['version']})")
        return cls(
            timing,
            data["since_ms"],
            Book.load(timing, data["causes"]),
            looked_around=data["looked_around"],
            seq=int(data["seq"]),
            edge_ms=data["edge_ms"],
            edge=data["edge"],
            gauge=Gauge(**data["gauge"]),
            purges=Purges(**data["purges"]),
            waiting=Waiting(**data["waiting"]),
            day=None if data["day"] is None else date.fromisoformat(data["day"]),
            reckoned=data["reckoned"],
            owed=[Owed.load(each) for each in _list(data["owed"])],
        )


def _list(value: Any) -> Sequence[Mapping[str, Any]]:
    return value if isinstance(value, list) else []
