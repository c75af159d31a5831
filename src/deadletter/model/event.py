"""What happens to tasks, told to whoever subscribes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime

import attrs


class EventKind(enum.StrEnum):
    """Stored events, the same for every process; and two that only a subscription makes."""

    DEAD = "dead"
    REPLAYED = "replayed"
    PURGED = "purged"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"
    ERASED = "erased"
    PAUSED = "paused"
    RESUMED = "resumed"
    LOST = "lost"
    GAP = "gap"


@attrs.frozen(kw_only=True)
class Event:
    """One thing that happened.

    Attributes:
        seq: rises within a queue, in steps of any size. ``paused`` and ``resumed`` have none
            of their own: they bear that of the event before them, 0 where there was none.
        kind: what happened. ``gap`` says that events were missed: look at the store.
        at: when.
        task_id, type: which task, where it is about one; ``type`` of a pause is its glob.
        count: how many, where one event stands for several.
        detail: more, by kind (``reason``, ``fingerprint``, ``why``).
    """

    seq: int
    kind: EventKind
    at: datetime
    task_id: str | None = None
    type: str | None = None
    count: int = 1
    detail: Mapping[str, str] = attrs.field(factory=dict)
