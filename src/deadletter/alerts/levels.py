"""How many letters are too many: thresholds that a count which swings around them does not set off again and again.

Pure. A level is entered above its limit, and left at four fifths of it or below, each once it has held for ``wait``.
While it lasts it is told again after each ``repeat``.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

Level: TypeAlias = Literal["calm", "exceeded", "critical"]

_ORDER: tuple[Level, ...] = ("calm", "exceeded", "critical")
_LEFT_AT = 0.8  # of the limit


@attrs.frozen
class Limits:
    """The two thresholds; ``threshold ≤ critical``."""

    threshold: int
    critical: int


@attrs.define
class Gauge:
    """Where a count stands.

    Attributes:
        level: as it was last told.
        since_ms: when that level began.
        told_ms: when it was last told.
        peak: the highest count since it was last calm.
        turn, turn_ms: the level that it turns to, and since when.
    """

    level: Level = "calm"
    since_ms: int = 0
    told_ms: int = 0
    peak: int = 0
    turn: Level | None = None
    turn_ms: int = 0

    def see(self, count: int, limits: Limits, wait_ms: int, repeat_ms: int, now_ms: int) -> str | None:
        """Note a count; the kind of the alert that it is worth, if any."""
        level = self._level(count, limits)
        self.peak = max(self.peak, count) if self.level != "calm" or self.turn is not None else count
        if level == self.level:
            self.turn = None
            if level != "calm" and now_ms - self.told_ms >= repeat_ms:
                self.told_ms = now_ms
                return f"threshold_{level}"
            return None
        if self.turn is None or _ORDER.index(level) < _ORDER.index(self.turn):
            self.turn_ms = now_ms
        self.turn = level
        return self._enter(level, now_ms) if now_ms - self.turn_ms >= wait_ms else None

    def next_ms(self, wait_ms: int, repeat_ms: int) -> int | None:
        """When there may be something to tell though nothing changes."""
        if self.turn is not None:
            return self.turn_ms + wait_ms
        return None if self.level == "calm" else self.told_ms + repeat_ms

    def _enter(self, level: Level, now_ms: int) -> str | None:
        rose = level == "critical" or self.level == "calm"
        self.level, self.since_ms, self.turn = level, self.turn_ms, None
        if not rose and level != "calm":
            return None  # from critical to exceeded: no news for anybody who was told
        self.told_ms = now_ms
        return "threshold_resolved" if level == "calm" else f"threshold_{level}"

    def _level(self, count: int, limits: Limits) -> Level:
        if count > limits.critical or (self.level == "critical" and count > _left_at(limits.critical)):
            return "critical"
        if count > limits.threshold or (self.level != "calm" and count > _left_at(limits.threshold)):
            return "exceeded"
        return "calm"


def _left_at(limit: int) -> int:
    return int(limit * _LEFT_AT)
