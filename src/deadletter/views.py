"""What a user sees of a record at the edges: one JSON form for the command line and HTTP, hidden values left out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs

from .engine.alerting import MonitorInfo
from .engine.queue import DeadLetterQueue
from .model.event import Event
from .model.operation import Operation
from .model.query import Query
from .model.record import BulkResult, Failure, FailureGroup, Pause, Searched, Stats, TaskRecord
from .rules.masking import may_touch_mask
from .rules.redaction import DEFAULT_PATHS, Redactor, hiding, redactor


@attrs.frozen
class Viewer:
    """Who looks.

    Attributes:
        paths: what this process hides, on top of what stands with each record.
        reveal: show everything.
    """

    paths: tuple[str, ...] = DEFAULT_PATHS
    reveal: bool = False

    def redactor(self, record: TaskRecord) -> Redactor:
        """What hides this record's values: the paths stored with it and the viewer's own."""
        if self.reveal:
            return redactor(())
        return hiding((*record.redact, *self.paths))

    def see(self, record: TaskRecord) -> TaskRecord:
        """The record with its hidden values out of sight."""
        return record if self.reveal else self.redactor(record).record(record)

    def queue(self, queue: DeadLetterQueue) -> DeadLetterQueue:
        """The same queue as this viewer sees it: what it reads is redacted, and conditions match only what is shown.

        For reading and for bulk calls. An edit goes through the queue itself, which knows the hidden values.
        """
        if self.reveal:
            return queue
        seen = copy.copy(queue)
        seen.record = lambda row: self.see(queue.record(row))  # type: ignore[method-assign]
        seen.scan_fields = _shown_fields  # type: ignore[method-assign]
        seen.masked = True
        return seen


def _shown_fields(query: Query) -> dict[str, Any]:
    fields = query.scan_fields()
    if "text" in fields and may_touch_mask(fields["text"]):
        del fields["text"]  # the store looks at the value, where a viewer sees a mask
    return fields


def item(record: TaskRecord, redactor: Redactor, *, whole: bool = True) -> dict[str, Any]:
    """A record as JSON; without ``whole`` as lists have it: no traceback, no history."""
    record = redactor.record(record)
    task, failure = record.task, record.failure
    shown: dict[str, Any] = {
        "id": record.id,
        "type": task.type,
        "queue": record.queue,
        "priority": str(task.priority),
        "state": str(record.state),
        "reason": None if record.reason is None else str(record.reason),
        "payload": task.payload,
        "attempts": record.attempts,
        "max_retries": task.max_retries,
        "idempotency_key": task.idempotency_key,
        "metadata": dict(task.metadata),
        "created_at": timestamp(record.created_at),
        "due_at": timestamp(record.due_at),
        "died_at": timestamp(record.died_at),
        "expires_at": timestamp(record.expires_at),
        "replays": record.replays,
        "replayable": record.replayable,
        "error": None if failure is None else _error(failure, whole=whole),
    }
    if whole:
        shown["history"] = [
            {
                **_error(entry, whole=True),
                "duration": entry.duration,
                "worker": entry.worker,
                "traceparent": entry.traceparent,
            }
            for entry in record.history
        ]
    return shown


def _error(failure: Failure, *, whole: bool) -> dict[str, Any]:
    error = {
        "type": failure.error_type,
        "message": failure.message,
        "traceback": failure.traceback,
        "fingerprint": failure.fingerprint,
        "attempt": failure.attempt,
        "at": timestamp(failure.at),
        "release": failure.release,
    }
    if not whole:
        del error["traceback"]
    return error


async def groups(
    queue: DeadLetterQueue, viewer: Viewer, query: Query, *, by: str = "fingerprint"
) -> Sequence[FailureGroup]:
    """The failure groups as a viewer sees them: a sample message shows no hidden value."""
    seen = viewer.queue(queue)
    found = await seen.groups(query, by=by)
    if viewer.reveal:
        return found
    messages: dict[str, str] = {}
    for at in range(0, len(found), 100):
        ids = [group.sample_id for group in found[at : at + 100]]
        page = await seen.list(attrs.evolve(query, ids=ids), limit=100)
        messages |= {record.id: record.failure.message for record in page.items if record.failure is not None}
    return [attrs.evolve(group, message=messages.get(group.sample_id, "")) for group in found]


def group_item(group: FailureGroup) -> dict[str, Any]:
    """A failure group as JSON."""
    shown = attrs.asdict(group)
    return {**shown, "first_seen": timestamp(group.first_seen), "last_seen": timestamp(group.last_seen)}


def searched_item(searched: Searched) -> dict[str, Any]:
    """How far a search came, as JSON."""
    return {**attrs.asdict(searched), "back_to": timestamp(searched.back_to)}


def stats_item(stats: Stats) -> dict[str, Any]:
    """The queue's figures as JSON."""
    shown = attrs.asdict(stats)
    workers = [{**attrs.asdict(worker), "last_seen": timestamp(worker.last_seen)} for worker in stats.workers]
    return {**shown, "workers": workers}


def pause_item(pause: Pause) -> dict[str, Any]:
    """A pause as JSON."""
    return {**attrs.asdict(pause), "since": timestamp(pause.since)}


def bulk_item(result: BulkResult) -> dict[str, Any]:
    """What a bulk call did, as JSON."""
    return {**attrs.asdict(result), "cutoff": timestamp(result.cutoff)}


def monitor_item(monitor: MonitorInfo | None) -> dict[str, Any] | None:
    """Who monitors a queue, as JSON."""
    return None if monitor is None else {**attrs.asdict(monitor), "last_seen": timestamp(monitor.last_seen)}


def operation_item(operation: Operation) -> dict[str, Any]:
    """An operation as JSON."""
    times = {name: timestamp(getattr(operation, name)) for name in ("cutoff", "created_at", "ended_at")}
    return {**attrs.asdict(operation), "state": str(operation.state), **times}


def event_item(event: Event) -> dict[str, Any]:
    """An event as JSON."""
    return {**attrs.asdict(event), "kind": str(event.kind), "at": timestamp(event.at)}


def timestamp(at: datetime | None) -> str | None:
    """RFC 3339 in UTC, with a Z."""
    return None if at is None else at.isoformat().replace("+00:00", "Z")
