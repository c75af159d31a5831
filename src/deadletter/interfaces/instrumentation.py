"""What watches the engine: traces, metrics, tests."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from contextlib import AbstractContextManager

from ..model.outcome import Outcome
from ..model.task import Task


class Instrumentation(abc.ABC):
    """Hooks at the engine's seams. They must be quick, and what they raise is logged and never disturbs a task."""

    @abc.abstractmethod
    def operation(
        self, name: str, *, queue: str, task_id: str | None = None, count: int = 1
    ) -> AbstractContextManager[None]:
        """Around a call to the queue: ``name`` is ``enqueue``, ``retry``, ``purge``, ..."""

    @abc.abstractmethod
    def metadata(self) -> Mapping[str, str]:
        """What to add to a new task's metadata, such as a traceparent."""

    @abc.abstractmethod
    def attempt(self, task: Task, *, queue: str, number: int) -> AbstractContextManager[AttemptSpan]:
        """Around one attempt."""


class AttemptSpan(abc.ABC):
    """One attempt as it is watched."""

    @abc.abstractmethod
    def ended(self, outcome: Outcome) -> None:
        """The processor is done; told before the outcome is stored."""
