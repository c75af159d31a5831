"""Whoever watches the engine disturbs nothing: what an Instrumentation raises is logged, and that is all."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from ..interfaces.instrumentation import AttemptSpan, Instrumentation
from ..model.outcome import Outcome
from ..model.task import Task
from .telling import Teller

log = logging.getLogger("deadletter.watching")


def added_metadata(instrumentation: Instrumentation) -> Mapping[str, str]:
    """What it adds to a new task's metadata."""
    try:
        return dict(instrumentation.metadata())
    except Exception:  # somebody else's code, as everywhere below
        log.exception("%r gave no metadata; the task goes on without it", instrumentation)
        return {}


class WatchedAttempt:
    """Around one attempt."""

    def __init__(self, instrumentation: Instrumentation, task: Task, *, queue: str, number: int, told: Teller) -> None:
        self._instrumentation = instrumentation
        self._task, self._queue, self._number, self._told = task, queue, number, told
        self._scope: AbstractContextManager[AttemptSpan] | None = None
        self._span: AttemptSpan | None = None

    def __enter__(self) -> Self:
        try:
            scope = self._instrumentation.attempt(self._task, queue=self._queue, number=self._number)
            self._span = scope.__enter__()
            self._scope = scope
        except Exception as error:
            self._complain(error)
        return self

    def ended(self, outcome: Outcome) -> None:
        """Tell how it ended."""
        try:
            if self._span is not None:
                self._span.ended(outcome)
        except Exception as error:
            self._complain(error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._scope is not None:
                self._scope.__exit__(kind, error, trace)
        except Exception as problem:
            self._complain(problem)

    def _complain(self, error: Exception) -> None:
        told = self._told(error)  # its context may be the attempt's own error
        log.error("%r failed while it watched an attempt of %s\n%s", self._instrumentation, self._task.id, told)
