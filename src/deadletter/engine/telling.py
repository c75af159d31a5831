"""What a log may say of an error that met a task: its story, without the task's hidden values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import attrs

from ..model.row import FailureRow
from ..model.task import Task
from ..rules.masking import Mask
from ..rules.redaction import hiding, marked_paths
from ..rules.story import failure_row

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

Teller: TypeAlias = Callable[[BaseException], str]


def mask_of(queue: DeadLetterQueue, task: Task, mark: str) -> Mask:
    """What masks a task's hidden values: by the paths that stand with its row (``mark``) and the queue's own."""
    return hiding((*marked_paths(mark), *queue.options.hidden_paths)).mask(task.payload)


def teller(queue: DeadLetterQueue, task: Task, mark: str) -> Teller:
    """What renders an error for a log line, masked; causes and contexts, which may be the task's own, included."""
    return lambda error: mask_of(queue, task, mark).text(story(error))


def masked_row(failure: FailureRow, mask: Mask) -> FailureRow:
    """A failure without the values, for good."""
    return attrs.evolve(failure, message=mask.text(failure.message), traceback=mask.text(failure.traceback))


def story(error: BaseException) -> str:
    """An error as its traceback shows it."""
    told = failure_row(error, task_type="", attempt=0, duration_ms=None, worker=None, release=None)
    return told.traceback.rstrip("\n")
