"""Log records that say which task and which trace they belong to, and errors in a log that become letters."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..engine.captured import known_id
from ..engine.context import current
from ..engine.sync import call_soon
from ..model.errors import InvalidTask
from ..model.task import Task

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..engine.queue import DeadLetterQueue


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


class LetterHandler(logging.Handler):
    """Keeps records that tell of an exception as dead letters: ``logger.addHandler(LetterHandler(dlq))``.

    For code that logs its failures and goes on. A record at or above ``level`` with ``exc_info`` becomes a letter of
    type ``log.<logger>``, with message, level, place and ``extra={"letter": {...}}`` as its payload. An exception that
    was captured already, one inside an attempt (its task has it), and what deadletter itself logs are left out. It never
    blocks the caller, and what cannot be kept goes to ``logging``'s own ``handleError``.

    Args:
        dlq: where they go.
        level: from which on.
        type: what the letters' type begins with.
    """

    def __init__(self, dlq: DeadLetterQueue, level: int = logging.ERROR, *, type: str = "log") -> None:
        super().__init__(level)
        Task(type=f"{type}.x")
        self._dlq = dlq
        self._type = type
        self._pending: set[Future[str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Capture the record's exception, if it is to be kept."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None or _kept_otherwise(record, error):
            return
        try:
            task = self._task(record)
            future = call_soon(lambda: self._dlq.capture(task, error))
        except Exception:  # as every handler does
            self.handleError(record)
            return
        self._pending.add(future)
        future.add_done_callback(self._ended(record))

    def _task(self, record: logging.LogRecord) -> Task:
        payload: dict[str, Any] = {
            "message": record.getMessage(),
            "level": record.levelname,
            "logger": record.name,
            "place": f"{record.module}:{record.funcName}:{record.lineno}",
        }
        given = record.__dict__.get("letter")
        if given is not None:
            if not isinstance(given, Mapping):
                raise InvalidTask("letter", f"{given!r:.80} is no payload; give extra={{'letter': {{...}}}} a dict")
            payload |= given
        name = "".join(each if each.isprintable() else "?" for each in record.name)
        return Task(type=f"{self._type}.{name}"[:200], payload=payload)

    def _ended(self, record: logging.LogRecord) -> Callable[[Future[str]], None]:
        def ended(future: Future[str]) -> None:
            self._pending.discard(future)
            if future.cancelled() or future.exception() is None:
                return
            try:
                future.result()
            except Exception:
                self.handleError(record)

        return ended

    def flush(self) -> None:
        """Wait until what was logged so far is kept, or is not."""
        for future in list(self._pending):
            future.exception(self._dlq.options.capture_timeout + 5)


def _kept_otherwise(record: logging.LogRecord, error: BaseException) -> bool:
    inside = current.get()
    return (
        record.name == "deadletter"
        or record.name.startswith("deadletter.")
        or known_id(error) is not None
        or (inside is not None and not inside.over)
    )


def _add(record: logging.LogRecord, **fields: object) -> None:
    for name, value in fields.items():
        record.__dict__.setdefault(name, value)


__all__ = ["LetterHandler", "TaskContext"]
