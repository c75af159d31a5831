"""Letters counted by cause and by time of death, in a bounded number of rows for each page.

A store that keeps count by cause is asked, and only the trends come from the newest letters. Where a store does not, a page
looks through the newest letters; where there are more, one walk through all goes on beside the requests and is shown once
it has ended, with what died since added.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import partial

import attrs

from ...model.errors import DeadLetterError
from ...model.query import Query
from ...model.row import DEAD, Grouped, Row, Scan
from ...model.task import from_ms
from ..background import Background
from ..site import Site

log = logging.getLogger("deadletter.http")

LOOKED = 3_000  # newest letters that a page looks through
BARS = 48  # of the chart of all deaths
SLOT_MS = 120_000
SPANS_MS = (3_600_000, 6 * 3_600_000, 24 * 3_600_000, 7 * 86_400_000)
_FRESH = 2.0  # seconds that one look serves all pages
_TREND = 10.0  # seconds that a trend may be old where the store counts
_STEP = 500
_BREATH = 0.01  # seconds between steps of the long walk: requests go first
_AGAIN = 60.0  # seconds until the next long walk, at least; and 20 times as long as the last one took
_ALL = 1 << 62
_MOST_CAUSES = 10_000


@attrs.define
class Cause:
    """Letters with one fingerprint, counted newest first.

    Attributes:
        key: the fingerprint.
        newest: its newest letter's row.
        first_ms: its oldest death.
        slots: deaths by slot of two minutes.
    """

    key: str
    newest: Row
    first_ms: int
    count: int = 0
    releases: set[str] = attrs.field(factory=set)
    slots: Counter[int] = attrs.field(factory=Counter)

    @property
    def first_seen(self) -> datetime:
        """Its oldest death."""
        return from_ms(self.first_ms)

    @property
    def last_seen(self) -> datetime:
        """Its newest death."""
        return from_ms(self.newest.time_ms)


@attrs.define
class Tally:
    """Letters as they were counted.

    Attributes:
        causes: by fingerprint.
        looked: letters.
        whole: whether these were all.
        now_ms: when it was counted, by the store's clock.
    """

    causes: dict[str, Cause] = attrs.field(factory=dict)
    slots: Counter[int] = attrs.field(factory=Counter)
    looked: int = 0
    whole: bool = False
    now_ms: int = 0
    oldest_ms: int | None = None

    def add(self, row: Row) -> None:
        """Count a letter."""
        key = row.fingerprint or ""
        cause = self.causes.get(key)
        if cause is None:
            if len(self.causes) >= _MOST_CAUSES:
                key = ""
            cause = self.causes.setdefault(key, Cause(key, row, row.time_ms))
        slot = row.time_ms // SLOT_MS
        cause.count += 1
        cause.first_ms = min(cause.first_ms, row.time_ms)
        if row.time_ms > cause.newest.time_ms:
            cause.newest = row
        if row.release:
            cause.releases.add(row.release)
        cause.slots[slot] += 1
        self.slots[slot] += 1
        self.looked += 1
        self.oldest_ms = row.time_ms if self.oldest_ms is None else min(self.oldest_ms, row.time_ms)

    @property
    def ranked(self) -> list[Cause]:
        """The largest cause first."""
        return sorted(self.causes.values(), key=lambda cause: (-cause.count, cause.key))

    @property
    def span_ms(self) -> int:
        """The shortest span of a chart that shows all that was looked at; a week where none does."""
        reach = self.now_ms - (self.oldest_ms if self.oldest_ms is not None else self.now_ms)
        return next((span for span in SPANS_MS if span >= reach), SPANS_MS[-1])


def bars(slots: Counter[int], now_ms: int, span_ms: int, n: int) -> list[tuple[int, int]]:
    """Deaths in ``n`` equal parts of a span up to now: (begin of the part in ms, deaths)."""
    part_ms = max(SLOT_MS, span_ms // n)
    first = now_ms // part_ms - n + 1
    heights = [0] * n
    for slot, deaths in slots.items():
        at = slot * SLOT_MS // part_ms - first
        if 0 <= at < n:
            heights[at] += deaths
    return [((first + at) * part_ms, deaths) for at, deaths in enumerate(heights)]


@attrs.frozen
class Deaths:
    """Deaths of all letters over time: (begin of a part in ms, deaths), and the span of all parts."""

    bars: list[tuple[int, int]]
    span_ms: int


class Census:
    """Counts the letters of a site, for all its pages."""

    def __init__(self) -> None:
        self._fresh = Tally()
        self._fresh_at = float("-inf")
        self._all: Tally | None = None
        self._next_walk = float("-inf")
        self._walk: Background | None = None
        self._beside: Background | None = None
        self._deaths: Deaths | None = None  # where the store counts, and one look does not take all in
        self.walking: Tally | None = None

    async def look(self, site: Site, total: int) -> Tally:
        """The letters of now; where nothing counts them and one look does not take them in, of the last long walk."""
        queue = site.queue
        indexed = await queue.backend.groups(queue.name, Scan(state=DEAD, history=0, body=False), "fingerprint")
        if indexed is not None:
            return _exact(await self._trend(site), indexed)
        if self._age(site) >= _FRESH:
            await self._refresh(site)
        fresh = self._fresh
        if fresh.whole:
            self._all = None
            return fresh
        self._start(site)
        return fresh if self._all is None or self._all.looked < LOOKED else _mended(self._all, fresh, total)

    async def _trend(self, site: Site) -> Tally:
        """Times of death beside counts that are exact: no page but the first waits for them."""
        if self._fresh_at < 0:
            await self._refresh_trend(site)
        elif self._age(site) >= _TREND:
            self._beside = self._beside or Background(partial(self._refresh_beside, site))
            self._beside.start()
        return self._fresh

    def _age(self, site: Site) -> float:
        return site.queue.clock.monotonic() - self._fresh_at

    def deaths(self, tally: Tally) -> Deaths:
        """When the letters of a tally died: all of them, where that is known."""
        return self._deaths or Deaths(bars(tally.slots, tally.now_ms, tally.span_ms, BARS), tally.span_ms)

    async def _refresh(self, site: Site) -> None:
        self._fresh = await _newest(site, LOOKED)
        self._fresh_at = site.queue.clock.monotonic()

    async def _refresh_trend(self, site: Site) -> None:
        await self._refresh(site)
        self._deaths = None if self._fresh.whole else await _counted(site, self._fresh.now_ms)

    async def _refresh_beside(self, site: Site) -> None:
        try:
            await self._refresh_trend(site)
        except DeadLetterError as error:
            log.info("the trends could not be counted: %s", error)

    def _start(self, site: Site) -> None:
        if self.walking is not None or site.queue.clock.monotonic() < self._next_walk:
            return
        self.walking = Tally()
        self._walk = Background(lambda: self._count_all(site))
        self._walk.start()

    async def _count_all(self, site: Site) -> None:
        clock, tally = site.queue.clock, self.walking or Tally()
        began = clock.monotonic()
        try:
            await _walk_through(site, tally, None)
            self._all = tally
        except DeadLetterError as error:
            log.info("the letters could not be counted: %s", error)  # the next page asks again, and is told more
        finally:
            self.walking = None
            self._next_walk = clock.monotonic() + max(_AGAIN, 20 * (clock.monotonic() - began))


async def _counted(site: Site, now_ms: int) -> Deaths | None:
    """Deaths over the span of all letters, a week at most, as an index counts them; None where none does."""
    queue = site.queue
    oldest_ms = (await queue.backend.counts(queue.name)).oldest_dead_ms or now_ms
    span_ms = next((span for span in SPANS_MS if span >= now_ms - oldest_ms), SPANS_MS[-1])
    found: list[tuple[int, int]] = []
    begins = [begin_ms for begin_ms, _ in bars(Counter(), now_ms, span_ms, BARS)]
    for begin_ms in begins:
        part = Scan(state=DEAD, since_ms=begin_ms, until_ms=begin_ms + begins[1] - begins[0] - 1)
        counted = await queue.backend.count(queue.name, part, _ALL)
        if counted is None or not counted.whole:
            return None
        found.append((begin_ms, counted.matched))
    return Deaths(found, span_ms)


async def _newest(site: Site, most: int) -> Tally:
    tally = Tally()
    await _walk_through(site, tally, most)
    return tally


async def _walk_through(site: Site, tally: Tally, most: int | None) -> None:
    queue = site.queue
    await queue.open()
    scan = Scan(state=DEAD, history=0, body=False, lean=True, limit=min(_STEP, queue.backend.scan_limit))
    while True:
        found = await queue.backend.scan(queue.name, scan)
        tally.now_ms = tally.now_ms or found.now_ms
        for row in found.rows:
            tally.add(row)
        if found.after is None:
            tally.whole = True
            return
        if most is not None and tally.looked >= most:
            return
        if most is None:
            await queue.clock.sleep(_BREATH)
        scan = attrs.evolve(scan, after=found.after)


def _exact(fresh: Tally, indexed: Sequence[Grouped]) -> Tally:
    """What the store keeps count of, with the times of death of the newest letters."""
    causes = {
        group.key: Cause(
            group.key,
            group.newest,
            group.first_ms,
            group.count,
            {*group.releases},
            fresh.causes[group.key].slots if group.key in fresh.causes else Counter(),
        )
        for group in indexed
    }
    return attrs.evolve(fresh, causes=causes, looked=sum(group.count for group in indexed), whole=True)


def _mended(counted: Tally, fresh: Tally, total: int) -> Tally:
    """A long count with what died since added to it."""
    merged = Tally(
        {
            key: attrs.evolve(cause, releases={*cause.releases}, slots=Counter(cause.slots))
            for key, cause in counted.causes.items()
        },
        Counter(counted.slots),
        counted.looked,
        False,
        fresh.now_ms,
        counted.oldest_ms,
    )
    for cause in fresh.causes.values():
        if cause.newest.time_ms > counted.now_ms:
            known = merged.causes.get(cause.key)
            later = Counter({slot: n for slot, n in cause.slots.items() if slot * SLOT_MS > counted.now_ms})
            if known is None:
                merged.causes[cause.key] = cause
                continue
            known.count += later.total()
            known.slots += later
            known.newest = cause.newest
            known.releases |= cause.releases
            merged.slots += later
    merged.whole = counted.whole and merged.looked >= total
    return merged


async def messages(site: Site, causes: Sequence[Cause]) -> dict[str, str]:
    """The newest message of each cause, by its letter's id, without what is hidden."""
    ids = [cause.newest.id for cause in causes]
    found = await site.seen.list(Query(ids=ids), limit=max(1, len(ids))) if ids else None
    return {record.id: record.failure.message for record in (found.items if found else ()) if record.failure}
