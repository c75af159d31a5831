"""A bulk call that goes on by itself: kept on the backend, and finished by whichever process is there."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import attrs

OperationKind = Literal["retry-all", "purge", "erase"]


class OperationState(enum.StrEnum):
    """Where an operation stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@attrs.frozen(kw_only=True)
class Operation:
    """A bulk call on its way, or ended lately.

    Attributes:
        id: its name.
        kind: what it does.
        state: where it stands.
        query: its conditions, as JSON; durations are absolute times. Of an erase that has ended, what may have told of
            a person reads "(erased)".
        limit, rate, why: as they were asked for.
        cutoff: deaths after this time are left alone; an erase takes what lives, too.
        total: how many matched when it was asked for, at most ``limit``; None where that was not known.
        matched, changed, failed: so far; after a crash a step of at most 100 may be missing from them.
        created_at, ended_at: when it was asked for, and when it ended.
        error: what went wrong, where it failed.
    """

    id: str
    kind: OperationKind
    state: OperationState
    query: Mapping[str, Any]
    limit: int | None = None
    rate: float | None = None
    why: str | None = None
    cutoff: datetime
    total: int | None = None
    matched: int = 0
    changed: int = 0
    failed: int = 0
    created_at: datetime
    ended_at: datetime | None = None
    error: str | None = None
