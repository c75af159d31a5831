"""Log records on stderr: lines to read on a terminal, JSON lines for a collector."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from ..adapters.logs import TaskContext
from .output import harmless

LogForm = Literal["plain", "json"]

_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        shown: dict[str, Any] = {
            "at": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        shown |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(shown, default=str).decode()


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = harmless(f"{_time(record)} {record.levelname.lower():7} {record.getMessage()}")
        if record.exc_info:
            line += "\n" + harmless(self.formatException(record.exc_info), lines=True)
        return line


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def log_to_stderr(form: LogForm | None) -> None:
    """Show INFO and above of every logger on stderr; by default plain on a terminal, else JSON."""
    chosen = form or ("plain" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(TaskContext())
    handler.setFormatter(_Plain() if chosen == "plain" else _Json())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
