from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest

from deadletter.model import errors, outcome
from deadletter.model.errors import (
    BatchFailed,
    ConfigurationConflict,
    Conflict,
    DeadLetterError,
    IdempotencyConflict,
    InProgress,
    InvalidSetting,
    InvalidTask,
    LeaseLost,
    MissingExtra,
    NotDead,
    NotReplayable,
    TaskBusy,
    TaskConflict,
    TaskNotFound,
    UnserializablePayload,
)

EXAMPLES: list[tuple[DeadLetterError, str]] = [
    (InvalidTask("type", "is empty"), "type: is empty"),
    (UnserializablePayload("payload", "a set"), "payload: a set"),
    (InvalidSetting("SMTP_PORT", "'x' is no port"), "SMTP_PORT: 'x' is no port"),
    (TaskNotFound("a"), "no task 'a' is known here"),
    (TaskConflict("a"), "task id 'a' is taken"),
    (IdempotencyConflict("k", "a"), "idempotency key 'k' is bound to task 'a'"),
    (NotDead("a", "pending"), "task 'a' is pending"),
    (NotReplayable("a"), "letter 'a' does not hold its real arguments"),
    (TaskBusy("a"), "task 'a' is being run elsewhere"),
    (InProgress("k"), "a call with idempotency key 'k' is in progress"),
    (LeaseLost("a"), "the lease on task 'a' is no longer ours"),
    (errors.DurabilityNotMet("a"), "task 'a' is stored on fewer replicas"),
    (BatchFailed(3, ["a"], "too large"), "task 3 of the batch: too large (1 before it"),
    (MissingExtra("redis", "redis://"), 'redis:// needs an extra: pip install "deadletter-sdk[redis]"'),
]


@pytest.mark.parametrize(("error", "says"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_says_what_is_wrong(error: DeadLetterError, says: str) -> None:
    assert str(error).startswith(says)


@pytest.mark.parametrize("error", [error for error, _ in EXAMPLES], ids=lambda error: type(error).__name__)
def test_an_error_survives_being_copied(error: DeadLetterError) -> None:
    """By reduce: frameworks send errors between processes, and some hold them for later."""
    rebuild: Any = copy.copy(error)
    assert type(rebuild) is type(error)
    assert str(rebuild) == str(error)
    assert vars(rebuild) == vars(error)


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        (InvalidTask, ValueError),
        (UnserializablePayload, TypeError),
        (errors.InvalidQuery, ValueError),
        (InvalidSetting, ValueError),
        (TaskNotFound, LookupError),
        (ConfigurationConflict, Conflict),
        (InProgress, TaskBusy),
        (errors.BackendUnavailable, ConnectionError),
        (errors.Undecodable, ValueError),
        (MissingExtra, ImportError),
    ],
)
def test_an_error_is_also_what_python_calls_it(kind: type[Exception], parent: type[Exception]) -> None:
    assert issubclass(kind, parent)
    assert issubclass(kind, DeadLetterError)


@pytest.mark.parametrize("module", [errors, outcome])
def test_every_error_calls_the_package_its_home(module: Any) -> None:
    kinds = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, DeadLetterError)]
    assert kinds
    assert {kind.__module__ for kind in kinds} == {"deadletter"}


def test_the_hierarchy_is_drawn_whole() -> None:
    drawn = errors.__doc__ or ""
    kinds = [name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, DeadLetterError)]
    assert [name for name in kinds if name not in drawn] == []


def test_a_batch_says_what_is_stored() -> None:
    error = BatchFailed(1, ("a",), "x")
    assert (error.stored, error.index, error.problem) == (["a"], 1, "x")
