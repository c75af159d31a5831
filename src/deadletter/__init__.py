"""deadletter: failed work is never lost.

It captures a task that fails, retries it on a schedule, keeps what cannot succeed as a dead letter with its whole
story, and replays it once the cause is mended.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .__about__ import __version__

if TYPE_CHECKING:
    from .backends.redis import RedisBackend
    from .engine.captured import Captured
    from .engine.context import AttemptContext, current_attempt
    from .engine.decorator import dead_lettered
    from .engine.queue import DeadLetterQueue
    from .engine.worker import Worker
    from .interfaces import (
        Alert,
        Alerter,
        Backend,
        Begun,
        Clock,
        Codec,
        FailedAttempt,
        IdempotencyStore,
        Instrumentation,
        RetryPolicy,
        SystemClock,
    )
    from .model.errors import (
        BackendError,
        BackendUnavailable,
        BatchFailed,
        ConfigurationConflict,
        Conflict,
        DeadLetterError,
        DurabilityNotMet,
        IdempotencyConflict,
        InProgress,
        InvalidQuery,
        InvalidSetting,
        InvalidTask,
        LeaseLost,
        MissingExtra,
        NotDead,
        NotReplayable,
        TaskBusy,
        TaskConflict,
        TaskNotFound,
        Undecodable,
        UnserializablePayload,
    )
    from .model.event import Event, EventKind
    from .model.outcome import Discard, PermanentError, Postpone, RetryAfter
    from .model.query import Query
    from .model.record import (
        BulkResult,
        Failure,
        FailureGroup,
        Page,
        Pause,
        Reason,
        State,
        Stats,
        TaskRecord,
        WorkerInfo,
    )
    from .model.retention import Retention
    from .model.task import Origin, Priority, Task
    from .rules.codec import JsonCodec

_HOMES = {
    "backends.redis": ("RedisBackend",),
    "engine.captured": ("Captured",),
    "engine.context": (
        "AttemptContext",
        "current_attempt",
    ),
    "engine.decorator": ("dead_lettered",),
    "engine.queue": ("DeadLetterQueue",),
    "engine.worker": ("Worker",),
    "interfaces": (
        "Alert",
        "Alerter",
        "Backend",
        "Begun",
        "Clock",
        "Codec",
        "FailedAttempt",
        "IdempotencyStore",
        "Instrumentation",
        "RetryPolicy",
        "SystemClock",
    ),
    "model.errors": (
        "BackendError",
        "BackendUnavailable",
        "BatchFailed",
        "ConfigurationConflict",
        "Conflict",
        "DeadLetterError",
        "DurabilityNotMet",
        "IdempotencyConflict",
        "InProgress",
        "InvalidQuery",
        "InvalidSetting",
        "InvalidTask",
        "LeaseLost",
        "MissingExtra",
        "NotDead",
        "NotReplayable",
        "TaskBusy",
        "TaskConflict",
        "TaskNotFound",
        "Undecodable",
        "UnserializablePayload",
    ),
    "model.event": (
        "Event",
        "EventKind",
    ),
    "model.outcome": (
        "Discard",
        "PermanentError",
        "Postpone",
        "RetryAfter",
    ),
    "model.query": ("Query",),
    "model.record": (
        "BulkResult",
        "Failure",
        "FailureGroup",
        "Page",
        "Pause",
        "Reason",
        "State",
        "Stats",
        "TaskRecord",
        "WorkerInfo",
    ),
    "model.retention": ("Retention",),
    "model.task": (
        "Origin",
        "Priority",
        "Task",
    ),
    "rules.codec": ("JsonCodec",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Alert",
    "Alerter",
    "AttemptContext",
    "Backend",
    "BackendError",
    "BackendUnavailable",
    "BatchFailed",
    "Begun",
    "BulkResult",
    "Captured",
    "Clock",
    "Codec",
    "ConfigurationConflict",
    "Conflict",
    "DeadLetterError",
    "DeadLetterQueue",
    "Discard",
    "DurabilityNotMet",
    "Event",
    "EventKind",
    "FailedAttempt",
    "Failure",
    "FailureGroup",
    "IdempotencyConflict",
    "IdempotencyStore",
    "InProgress",
    "Instrumentation",
    "InvalidQuery",
    "InvalidSetting",
    "InvalidTask",
    "JsonCodec",
    "LeaseLost",
    "MissingExtra",
    "NotDead",
    "NotReplayable",
    "Origin",
    "Page",
    "Pause",
    "PermanentError",
    "Postpone",
    "Priority",
    "Query",
    "Reason",
    "RedisBackend",
    "Retention",
    "RetryAfter",
    "RetryPolicy",
    "State",
    "Stats",
    "SystemClock",
    "Task",
    "TaskBusy",
    "TaskConflict",
    "TaskNotFound",
    "TaskRecord",
    "Undecodable",
    "UnserializablePayload",
    "Worker",
    "WorkerInfo",
    "__version__",
    "current_attempt",
    "dead_lettered",
]  # written out, since type checkers read it


def __getattr__(name: str) -> object:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
