"""From queues to the exposition: async for our own pages, a collector for a registry of the user's."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import anyio
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from ..__about__ import __version__
from ..engine.alerting import delivered, monitor_seen
from ..engine.parking import opened_by_circuit
from ..engine.pauses import paused
from ..engine.presence import present
from ..engine.sync import call_soon
from ..model.errors import BackendError
from .families import Families, Names, Snapshot, fill
from .meter import meter_of

if TYPE_CHECKING:
    from ..engine.queue import DeadLetterQueue

log = logging.getLogger("deadletter.metrics")

PATIENCE = 5.0  # seconds that a scrape waits for a store
_GRACE = 1.0

_names: weakref.WeakKeyDictionary[DeadLetterQueue, Names] = weakref.WeakKeyDictionary()


async def exposition(queues: DeadLetterQueue | Sequence[DeadLetterQueue], accept: str = "") -> tuple[bytes, str]:
    """What a scrape answers: the body and its content type, in the format that the ``Accept`` header asks for.

    A store that is away, or takes longer than 5 s, is told by ``dlq_up`` 0.
    """
    several = _several(queues)
    seen = [await snapshot(queue) for queue in several]
    encode, content_type = choose_encoder(accept)
    return encode(_Collected(_metrics(several, seen))), content_type


class DeadLetterCollector:
    """A collector for a registry of yours: ``registry.register(DeadLetterCollector(dlq))``.

    From here on the attempts of this process are measured, too. Give it all queues of the process at once: one family
    must not come twice.
    """

    def __init__(self, *queues: DeadLetterQueue) -> None:
        if not queues:
            raise TypeError("DeadLetterCollector wants at least one queue")
        self._queues = queues
        for queue in queues:
            meter_of(queue)

    def describe(self) -> Iterable[Metric]:
        """The families without samples, so that registering asks no store."""
        return _metrics((), ())

    def collect(self) -> Iterable[Metric]:
        """The families as of now; from any thread."""
        seen = []
        for queue in self._queues:
            try:
                seen.append(call_soon(functools.partial(snapshot, queue)).result(PATIENCE + _GRACE))
            except TimeoutError:
                seen.append(Snapshot(queue=queue.name, counts=None, alerts={}))
        return _metrics(self._queues, seen)


async def snapshot(queue: DeadLetterQueue) -> Snapshot:
    """The queue as its store knows it, within 5 s."""
    spooled = None
    try:
        with anyio.fail_after(PATIENCE):
            if queue.spooler is not None:
                spooled = await queue.spooler.waiting()
            await queue.open()
            counts = await queue.backend.counts(queue.name)
            seen = await monitor_seen(queue)
            pauses = await paused(queue)
            return Snapshot(
                queue=queue.name,
                counts=counts,
                alerts=await delivered(queue),
                monitored=None if seen is None else not seen.absent,
                workers=len(await present(queue)),
                paused=len(pauses),
                circuits=sum(map(opened_by_circuit, pauses)),
                spooled=spooled,
            )
    except (BackendError, TimeoutError) as error:
        log.warning("no counts of %r: %s", queue, str(error) or f"it took longer than {PATIENCE:g} s")
        return Snapshot(queue=queue.name, counts=None, alerts={}, spooled=spooled)


class _Collected:
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _several(queues: DeadLetterQueue | Sequence[DeadLetterQueue]) -> Sequence[DeadLetterQueue]:
    return queues if isinstance(queues, Sequence) else (queues,)


def _metrics(queues: Sequence[DeadLetterQueue], seen: Sequence[Snapshot]) -> Iterator[Metric]:
    info = GaugeMetricFamily("deadletter_info", "The version of deadletter.", labels=("version",))
    if queues:
        info.add_metric([__version__], 1)
    yield info
    families = Families()
    for queue, each in zip(queues, seen, strict=True):
        names = _names.get(queue)
        if names is None:
            names = _names[queue] = Names()
        fill(families, each, names)
    yield from families.by_name.values()
    yield from _histograms(queues)


def _histograms(queues: Sequence[DeadLetterQueue]) -> Iterator[Metric]:
    merged: dict[str, Metric] = {
        name: HistogramMetricFamily(name, "")
        for name in ("task_duration_seconds", "task_schedule_lateness_seconds", "task_queue_wait_seconds")
    }
    for queue in queues:
        meter = meter_of(queue)
        meter.expect(queue.registry.types())
        for histogram in (meter.taken, meter.late, meter.waited):
            for metric in histogram.collect():
                told = merged[metric.name]
                told.documentation = metric.documentation
                told.samples += [sample for sample in metric.samples if not sample.name.endswith("_created")]
    yield from merged.values()
