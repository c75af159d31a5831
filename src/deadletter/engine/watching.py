"""Whoever watches the engine disturbs nothing: what an Instrumentation raises is logged, and that is all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from ..interfaces.instrumentation import AttemptSpan, AttemptStart, Instrumentation
from ..model.outcome import Outcome
from ..model.task import Task

log = logging.getLogger("deadletter.watching")


def added_metadata(watchers: Sequence[Instrumentation]) -> Mapping[str, str]:
    """What they add to a new task's metadata; where two name the same, the first."""
    added: dict[str, str] = {}
    for instrumentation in watchers:
        try:
            added = {**instrumentation.metadata(), **added}
        except Exception:  # somebody else's code, as everywhere below
            log.exception("%r gave no metadata; the task goes on without it", instrumentation)
    return added


class WatchedAttempt:
    """Around one attempt, for each who watches.

    Attributes:
        traceparent: what marks it for a later one, once it is over.
    """

    def __init__(
        self,
        watchers: Sequence[Instrumentation],
        task: Task,
        *,
        queue: str,
        number: int,
        start: AttemptStart,
    ) -> None:
        self._watchers = watchers
        self._task, self._queue, self._number, self._start = task, queue, number, start
        self._open: list[tuple[Instrumentation, AbstractContextManager[AttemptSpan], AttemptSpan]] = []
        self.traceparent: str | None = None

    def __enter__(self) -> Self:
        for each in self._watchers:
            try:
                scope = each.attempt(self._task, queue=self._queue, number=self._number, start=self._start)
                self._open.append((each, scope, scope.__enter__()))
            except Exception as error:
                self._complain(each, error)
        return self

    def ended(self, outcome: Outcome) -> None:
        """Tell how it ended."""
        for each, _, span in self._open:
            try:
                span.ended(outcome)
                self.traceparent = self.traceparent or span.traceparent
            except Exception as error:
                self._complain(each, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, scope, _ in reversed(self._open):
            try:
                scope.__exit__(kind, error, trace)
            except Exception as problem:
                self._complain(each, problem)

    def _complain(self, instrumentation: Instrumentation, error: Exception) -> None:
        told = self._start.told(error)  # its context may be the attempt's own error
        log.error("%r failed while it watched an attempt of %s\n%s", instrumentation, self._task.id, told)
