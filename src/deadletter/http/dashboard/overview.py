"""The first screen: how the queue is, why letters died, when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
import orjson
from starlette.responses import Response

from ...engine.alerting import monitor_seen
from ...model.record import Stats
from ...model.task import from_ms
from .. import samples
from ..site import Call
from .census import BARS, SPANS_MS, Cause, Census, Deaths, Tally, bars, messages
from .pages import page, render
from .words import age, count, plural

SHOWN = 50  # causes on the first screen
_SPAN_WORDS: dict[int, str] = dict(zip(SPANS_MS, ("hour", "6 hours", "24 hours", "7 days"), strict=True))
_SPARK = 24


@attrs.frozen
class Group:
    """A cause as it is shown."""

    cause: Cause
    message: str
    spark: str
    peak: int


@attrs.frozen
class Chart:
    """A chart: what a browser draws, and what is there without one.

    Attributes:
        data: for uPlot: the x of each point in seconds, then each series.
        labels: of the series.
        rows: (begin, figures) where there is something to tell, newest first.
    """

    data: str
    labels: Sequence[str]
    rows: Sequence[tuple[datetime, Sequence[int]]]
    path: str = ""


class Overview:
    """The first screen and its parts."""

    def __init__(self) -> None:
        self.census = Census()
        self.page = page(self._page)
        self.health = page(self._health)

    async def _page(self, call: Call) -> Response:
        call.site.samples.start()
        stats = await call.site.queue.stats()
        dead = stats.by_state.get("dead", 0)
        tally = await self.census.look(call.site, dead)
        causes = tally.ranked
        shown = causes[:SHOWN]
        said = await messages(call.site, shown)
        walking = self.census.walking
        return render(
            call,
            "overview.html",
            health=health(stats),
            stats=stats,
            dead=dead,
            monitor=await monitor_seen(call.site.queue),
            tally=tally,
            counted=None if walking is None else walking.looked,
            groups=[_group(cause, tally, said.get(cause.newest.id, "")) for cause in shown],
            further=causes[SHOWN:],
            span=_SPAN_WORDS[tally.span_ms],
            deaths_span=_SPAN_WORDS[self.census.deaths(tally).span_ms],
            deaths=_deaths(self.census.deaths(tally)),
            flow=_flow(await samples.since(call.site.queue, tally.now_ms - 24 * 3_600_000)),
        )

    async def _health(self, call: Call) -> Response:
        return render(call, "health.html", health=health(await call.site.queue.stats()))


@attrs.frozen
class Figure:
    """One figure of the health line; ``tone`` is "bad" where somebody should look."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    path: str | None = None


def health(stats: Stats) -> list[Figure]:
    """The health line."""
    overdue = sum(stats.overdue.values())
    pending, dead = stats.by_state.get("pending", 0), stats.by_state.get("dead", 0)
    figures = [
        Figure(
            "Dead",
            count(dead),
            f"oldest {age(stats.oldest_dead)}" if dead else "none",
            "dead" if dead else "",
            "/letters",
        ),
        Figure(
            "Pending",
            count(pending),
            f"oldest {age(stats.oldest_pending)}" if pending else "none",
            "",
            "/letters?state=pending",
        ),
        Figure("Running", count(stats.by_state.get("running", 0)), "leased now", "", "/letters?state=running"),
        Figure(
            "Overdue",
            count(overdue),
            "due for over 60 s: " + _some(sorted(stats.overdue, key=lambda type_: -stats.overdue[type_]))
            if overdue
            else "nothing waits",
            "bad" if overdue else "",
            "/workers",
        ),
        Figure(
            "Paused",
            count(len(stats.paused)),
            _some([*stats.paused]) if stats.paused else "nothing",
            "warn" if stats.paused else "",
            "/pauses",
        ),
        Figure(
            "Workers",
            count(len(stats.workers)),
            "seen lately" if stats.workers else "none seen lately",
            "bad" if pending and not stats.workers else "",
            "/workers",
        ),
    ]
    if stats.spooled:
        figures.append(
            Figure("Spooled", count(stats.spooled), plural(stats.spooled, "capture waits", "captures wait"), "warn")
        )
    return figures


def _some(names: Sequence[str]) -> str:
    return ", ".join(name if len(name) <= 32 else f"{name[:31]}…" for name in names[:2]) + (
        f" and {len(names) - 2} more" if len(names) > 2 else ""
    )


def _group(cause: Cause, tally: Tally, message: str) -> Group:
    heights = [n for _, n in bars(cause.slots, tally.now_ms, tally.span_ms, _SPARK)]
    return Group(cause, message, spark_path(heights), max(heights, default=0))


def spark_path(heights: Sequence[int], *, width: int = 4, gap: int = 1, high: int = 24) -> str:
    """Bars as one SVG path; what is not 0 is at least 2 high."""
    top = max([*heights, 1])
    parts = []
    for at, n in enumerate(heights):
        tall = max(2, round(n / top * high)) if n else 0
        if tall:
            parts.append(f"M{at * (width + gap)} {high}v-{tall}h{width}v{tall}z")
    return "".join(parts)


def _deaths(deaths: Deaths) -> Chart:
    points = deaths.bars
    return _chart([[at for at, _ in points], [n for _, n in points]], ["letters that died"])


def _flow(found: Sequence[samples.Sample]) -> Chart:
    series: list[list[int]] = [[sample.at_ms for sample in found[1:]]]
    series += [[n for _, n in samples.rises(found, name)] for name in ("dead", "retry_attempts", "replayed")]
    return _chart(series, ["deaths", "retries", "replays by hand"])


def _chart(series: list[list[int]], labels: Sequence[str]) -> Chart:
    times, figures = series[0], series[1:]
    rows = [(from_ms(at), [one[n] for one in figures]) for n, at in enumerate(times) if any(one[n] for one in figures)]
    data: Any = [[at / 1000 for at in times], *figures]
    return Chart(
        orjson.dumps(data).decode(),
        labels,
        rows[::-1][:BARS],
        spark_path(figures[0], width=9, gap=1, high=96) if figures else "",
    )
