"""What is exposed: the families by name, and how a queue's counts fill them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from ..engine.alerting import KINDS
from ..model.record import Reason, State
from ..model.row import DEAD, PENDING, RUNNING, Counts
from .labels import OTHER, Bounded, label

_Sums: TypeAlias = dict[tuple[str, ...], int]  # by labels

PRIORITIES = ("high", "normal", "low")  # by rank
CHANNELS = ("email", "slack", "webhook", "log", "apprise")

_GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "dlq_up": ("Whether the store answered this scrape.", ()),
    "dlq_items_total": ("Dead letters by priority.", ("priority",)),
    "dlq_items": ("Dead letters by priority; the same under a name that promtool likes.", ("priority",)),
    "dlq_items_by_type": ("Dead letters by task type.", ("type",)),
    "dlq_oldest_age_seconds": ("Age of the oldest dead letter; 0 where there is none.", ()),
    "dlq_pending": ("Tasks that wait for an attempt.", ()),
    "dlq_pending_oldest_age_seconds": ("Age of the oldest pending task; 0 where there is none.", ()),
    "dlq_running": ("Tasks that are leased.", ()),
    "dlq_overdue": ("Pending tasks that have been due for more than a minute.", ()),
    "dlq_workers": ("Workers that gave a sign of life lately.", ()),
    "dlq_monitor_absent": ("Whether a monitor was there, and is gone for over two minutes.", ()),
    "dlq_paused": ("Pauses that stand.", ()),
    "dlq_circuits_open": ("Those of them that a circuit breaker made.", ()),
    "dlq_spooled": ("Captures of this process that wait in its local spool.", ()),
}
_COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "task_failures": ("Attempts and calls that failed.", ("type", "error")),
    "task_retry_attempts": ("Attempts but a task's first; replays are among them.", ()),
    "task_retry_success": ("Those of them that succeeded.", ()),
    "task_duplicates": ("Enqueues that met a task which was there already, by its state.", ("state",)),
    "task_dead": ("Tasks that became dead letters.", ("reason",)),
    "task_enqueued": ("Tasks stored.", ()),
    "task_succeeded": ("Tasks that succeeded.", ()),
    "task_captured": ("Failures captured from elsewhere.", ()),
    "task_postponed": ("Attempts that put their task off.", ()),
    "task_discarded": ("Tasks discarded by their processor.", ()),
    "task_replayed": ("Dead letters sent back.", ()),
    "task_lease_losses": ("Attempts whose worker vanished.", ()),
    "dlq_removed": ("Tasks removed, by how.", ("how",)),
    "dlq_alerts_sent": ("Alerts delivered.", ("channel", "kind")),
    "dlq_alerts_failed": ("Deliveries of alerts that failed, whether they succeed later or not.", ("channel", "kind")),
}
_PLAIN = {  # family → lifetime counter that it sums over all types
    "task_retry_attempts": "retry_attempts",
    "task_retry_success": "retry_success",
    "task_enqueued": "enqueued",
    "task_succeeded": "succeeded",
    "task_captured": "captured",
    "task_postponed": "postponed",
    "task_discarded": "discarded",
    "task_replayed": "replayed",
    "task_lease_losses": "lost",
}
_REMOVED = {"purged": "purged", "aged_out": "aged_out", "erased": "erased", "cancelled": "cancelled"}
_DUPLICATES = (*map(str, State), "gone")
_ALERTS = {"dlq_alerts_sent": "alerts_sent", "dlq_alerts_failed": "alerts_failed"}


@attrs.frozen(kw_only=True)
class Snapshot:
    """A queue at one moment; ``counts`` None where its store is away.

    ``alerts``: (alerts_sent or alerts_failed, channel, kind) → how many, since the queue was made; ``monitored`` None
    where nobody ever did.
    """

    queue: str
    counts: Counts | None
    alerts: Mapping[tuple[str, str, str], int]
    workers: int = 0
    paused: int = 0
    circuits: int = 0
    monitored: bool | None = None
    spooled: int | None = None


@attrs.define
class Names:
    """The types and errors of one queue that have series of their own."""

    types: Bounded = attrs.field(factory=Bounded)  # of failures
    letters: Bounded = attrs.field(factory=Bounded)  # types of dead letters
    errors: Bounded = attrs.field(factory=Bounded)
    channels: Bounded = attrs.field(factory=lambda: Bounded(20))
    failures: Bounded = attrs.field(factory=lambda: Bounded(1000))  # pairs of the two


class Families:
    """Empty families by name, to be filled by any number of queues."""

    def __init__(self) -> None:
        self.by_name: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
            **{name: GaugeMetricFamily(name, told, labels=("queue", *more)) for name, (told, more) in _GAUGES.items()},
            **{
                name: CounterMetricFamily(name, told, labels=("queue", *more))
                for name, (told, more) in _COUNTERS.items()
            },
        }

    def add(self, queue: str, name: str, value: float, *labels: str) -> None:
        """One sample."""
        self.by_name[name].add_metric([label(queue), *labels], value)

    def add_all(self, queue: str, name: str, sums: _Sums) -> None:
        """Samples by their labels."""
        for labels, n in sums.items():
            self.add(queue, name, n, *labels)


def fill(families: Families, seen: Snapshot, names: Names) -> None:
    """Add one queue's samples; where its store is away it is told so, and nothing that nobody knows."""
    families.add(seen.queue, "dlq_up", int(seen.counts is not None))
    if seen.spooled is not None:
        families.add(seen.queue, "dlq_spooled", seen.spooled)
    if seen.counts is None:
        return
    families.add(seen.queue, "dlq_workers", seen.workers)
    families.add(seen.queue, "dlq_monitor_absent", int(seen.monitored is False))
    families.add(seen.queue, "dlq_paused", seen.paused)
    families.add(seen.queue, "dlq_circuits_open", seen.circuits)
    _gauges(families, seen.queue, seen.counts, names)
    _counters(families, seen.queue, seen.counts, names)
    for family, counter in _ALERTS.items():
        sums: _Sums = {(channel, kind): 0 for channel in CHANNELS for kind in KINDS}
        for (name, channel, kind), n in seen.alerts.items():
            if name == counter:
                known = (names.channels(channel), kind)
                sums[known] = sums.get(known, 0) + n
        families.add_all(seen.queue, family, sums)


def _gauges(families: Families, queue: str, counts: Counts, names: Names) -> None:
    by_priority = dict.fromkeys(PRIORITIES, 0)
    by_state = dict.fromkeys(State, 0)
    by_type: dict[str, int] = {}
    for (state, rank, type_, _), n in counts.tally.items():
        if state == DEAD:
            by_priority[PRIORITIES[rank]] += n
            by_type[type_] = by_type.get(type_, 0) + n
        else:
            by_state[State(state)] += n
    for priority, n in by_priority.items():
        families.add(queue, "dlq_items_total", n, priority)
        families.add(queue, "dlq_items", n, priority)
    names.letters.admit(_busiest(by_type))
    shown: _Sums = {(OTHER,): 0}
    for type_, n in by_type.items():
        place = (names.letters(type_),)
        shown[place] = shown.get(place, 0) + n
    families.add_all(queue, "dlq_items_by_type", shown)
    families.add(queue, "dlq_pending", by_state[PENDING])
    families.add(queue, "dlq_running", by_state[RUNNING])
    families.add(queue, "dlq_overdue", sum(counts.overdue.values()))
    families.add(queue, "dlq_oldest_age_seconds", _age(counts.oldest_dead_ms, counts.now_ms))
    families.add(queue, "dlq_pending_oldest_age_seconds", _age(counts.oldest_pending_ms, counts.now_ms))


def _counters(families: Families, queue: str, counts: Counts, names: Names) -> None:
    totals: dict[str, int] = {}
    failed: dict[tuple[str, str], int] = {}
    duplicates: _Sums = {(state,): 0 for state in _DUPLICATES}
    dead: _Sums = {(str(reason),): 0 for reason in Reason}
    for (name, type_, detail), n in counts.lifetime.items():
        totals[name] = totals.get(name, 0) + n
        if name == "failures":
            failed[type_, detail] = failed.get((type_, detail), 0) + n
        elif name == "duplicates":
            duplicates[detail,] = duplicates.get((detail,), 0) + n
        elif name == "dead":
            dead[detail,] = dead.get((detail,), 0) + n
    for family, counter in _PLAIN.items():
        families.add(queue, family, totals.get(counter, 0))
    families.add_all(queue, "dlq_removed", {(how,): totals.get(counter, 0) for counter, how in _REMOVED.items()})
    families.add_all(queue, "task_duplicates", duplicates)
    families.add_all(queue, "task_dead", dead)
    families.add_all(queue, "task_failures", _failures(failed, names))


def _failures(failed: Mapping[tuple[str, str], int], names: Names) -> _Sums:
    """By type and error, each bounded, and their pairs too: 100 types × 100 errors would be 10,000 series."""
    by_type: dict[str, int] = {}
    by_error: dict[str, int] = {}
    for (type_, error), n in failed.items():
        by_type[type_] = by_type.get(type_, 0) + n
        by_error[error] = by_error.get(error, 0) + n
    names.types.admit(_busiest(by_type))
    names.errors.admit(_busiest(by_error))
    shown: _Sums = {(OTHER, OTHER): 0}
    for (type_, error), n in sorted(failed.items(), key=lambda entry: -entry[1]):
        place = (names.types(type_), names.errors(error))
        if names.failures("\n".join(place)) == OTHER:
            place = (OTHER, OTHER)
        shown[place] = shown.get(place, 0) + n
    return shown


def _busiest(sums: Mapping[str, int]) -> Iterable[str]:
    return sorted(sums, key=lambda name: (-sums[name], name))


def _age(since_ms: int | None, now_ms: int) -> float:
    return 0.0 if since_ms is None else max(0, now_ms - since_ms) / 1000
