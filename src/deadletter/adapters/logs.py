"""Log records that say which task and which trace they belong to."""

from __future__ import annotations

import logging
import sys

from ..engine.context import current


class TaskContext(logging.Filter):
    """Adds ``task_id``, ``task_type``, ``attempt``, ``trace_id`` and ``span_id`` to records made inside an attempt.

    Put it on a handler: ``handler.addFilter(TaskContext())``. It keeps what a record says of itself, and every record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what is known; always True."""
        context = current.get()
        if context is not None:
            _add(record, task_id=context.task.id, task_type=context.task.type, attempt=context.number)
        trace = sys.modules.get("opentelemetry.trace")
        span = trace.get_current_span().get_span_context() if trace is not None else None
        if span is not None and span.is_valid:
            _add(record, trace_id=f"{span.trace_id:032x}", span_id=f"{span.span_id:016x}")
        return True


def _add(record: logging.LogRecord, **fields: object) -> None:
    for name, value in fields.items():
        record.__dict__.setdefault(name, value)


__all__ = ["TaskContext"]
