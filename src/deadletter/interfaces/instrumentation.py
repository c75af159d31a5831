"""What watches the engine: traces, metrics, tests."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import attrs

from ..model.outcome import Outcome
from ..model.task import Task


@attrs.frozen(kw_only=True)
class AttemptStart:
    """What is known of an attempt as it starts.

    Attributes:
        late: seconds since its task was due.
        waited: seconds since its task was stored or sent back; None but for the first attempt after that.
        earlier: the traceparent of the failed attempt before it, where one is known.
        told: renders an error as its traceback, without the values that the task hides.
    """

    late: float
    waited: float | None = None
    earlier: str | None = None
    told: Callable[[BaseException], str] = attrs.field(default=repr, repr=False)


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
    def attempt(
        self, task: Task, *, queue: str, number: int, start: AttemptStart
    ) -> AbstractContextManager[AttemptSpan]:
        """Around one attempt."""


class AttemptSpan(abc.ABC):
    """One attempt as it is watched."""

    traceparent: str | None = None  # kept with the failure of this attempt, so that the next one can refer to it

    @abc.abstractmethod
    def ended(self, outcome: Outcome) -> None:
        """The processor is done; told before the outcome is stored."""
