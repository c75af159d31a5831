"""The lifetime counters every five minutes, kept on the backend: charts know the past of a server that restarted.

A sample is a row in a reserved queue, named by its slot of time, so that several servers write each once, and dead from
the start, so that it is forgotten after its keep like any letter.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import orjson

from ..engine.presence import reserved
from ..model.errors import DeadLetterError
from ..model.row import BATCH, DEAD, NewRow, Scan

if TYPE_CHECKING:
    from ..engine.queue import DeadLetterQueue

log = logging.getLogger("deadletter.http")

EVERY_MS = 300_000
KEEP_MS = 8 * 86_400_000
SHOWN: tuple[str, ...] = ("dead", "replayed", "retry_attempts", "retry_success")
_LONGEST_WAIT = 60.0


@attrs.frozen
class Sample:
    """The counters at a time.

    Attributes:
        at_ms: by the store's clock.
        counters: by name; those that never rose are missing.
    """

    at_ms: int
    counters: Mapping[str, int]


async def keep(queue: DeadLetterQueue) -> None:
    """Sample until cancelled; a store that is away is tried again."""
    while True:
        wait = _LONGEST_WAIT
        try:
            wait = await sample(queue)
        except DeadLetterError as error:
            log.info("no sample of the counters: %s", error)
        await queue.clock.sleep(min(wait, _LONGEST_WAIT))


async def sample(queue: DeadLetterQueue) -> float:
    """Write down the counters of this slot, unless somebody did; answer the seconds until the next."""
    await queue.open()
    where = reserved("samples", queue.name)
    counts = await queue.backend.counts(queue.name)
    slot = counts.now_ms // EVERY_MS
    counters = dict.fromkeys(SHOWN, 0)
    for (name, _, _), n in counts.lifetime.items():
        if name in counters:
            counters[name] += n
    body = orjson.dumps({"at_ms": counts.now_ms, "counters": counters})
    row = NewRow(id=f"slot-{slot}", type="sample", digest="sample", body=body, state=DEAD, keep_ms=KEEP_MS)
    await queue.backend.insert(where, [row])
    await queue.backend.sweep(where, BATCH)
    return ((slot + 1) * EVERY_MS - counts.now_ms) / 1000


async def since(queue: DeadLetterQueue, since_ms: int) -> list[Sample]:
    """The samples from a time on, oldest first, and the counters of now as the last one."""
    await queue.open()
    where = reserved("samples", queue.name)
    counts = await queue.backend.counts(queue.name)
    scan = Scan(state=DEAD, history=0, since_ms=since_ms, limit=min(500, queue.backend.scan_limit))
    found: list[Sample] = []
    while True:
        page = await queue.backend.scan(where, scan)
        found += [Sample(**orjson.loads(row.body or b"{}")) for row in page.rows if row.time_ms >= since_ms]
        if page.after is None or (page.rows and page.rows[-1].time_ms < since_ms):
            break
        scan = attrs.evolve(scan, after=page.after)
    now = dict.fromkeys(SHOWN, 0)
    for (name, _, _), n in counts.lifetime.items():
        if name in now:
            now[name] += n
    return [*reversed(found), Sample(counts.now_ms, now)]


def rises(samples: Sequence[Sample], name: str) -> list[tuple[int, int]]:
    """By how much a counter rose up to each sample from the one before: (time in ms, how many)."""
    pairs = itertools.pairwise(samples)
    return [(new.at_ms, max(0, new.counters.get(name, 0) - old.counters.get(name, 0))) for old, new in pairs]
