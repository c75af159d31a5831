"""Every exception that deadletter raises.

::

    DeadLetterError
    ├── InvalidTask (ValueError)             a task, payload or option that cannot be stored
    │   └── UnserializablePayload (TypeError)
    ├── InvalidQuery (ValueError)            a query that says nothing, or nonsense
    ├── InvalidSetting (ValueError)          an environment variable or URL with a bad value
    ├── TaskNotFound (LookupError)
    ├── Conflict
    │   ├── TaskConflict                     same id, other type or payload
    │   ├── IdempotencyConflict              same type and key, other payload
    │   ├── NotDead                          only a dead letter can be retried
    │   ├── NotReplayable                    its arguments could not be kept
    │   └── ConfigurationConflict            another process set this store up differently
    ├── TaskBusy                             leased elsewhere
    │   └── InProgress                       a call with this key runs elsewhere
    ├── LeaseLost                            somebody else owns the task by now
    ├── BackendError
    │   ├── BackendUnavailable (ConnectionError)
    │   └── DurabilityNotMet
    ├── BatchFailed                          part of a batch is stored: see .stored and .index
    ├── Undecodable (ValueError)             stored bytes that this version cannot read
    └── MissingExtra (ImportError)           an optional dependency is not installed
"""

from __future__ import annotations

from collections.abc import Sequence


class DeadLetterError(Exception):
    """The root of every error that deadletter raises on purpose."""


class InvalidTask(DeadLetterError, ValueError):
    """A field of a task cannot be stored; nothing was."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class UnserializablePayload(InvalidTask, TypeError):
    """A value in a payload or an argument has no faithful JSON form."""


class InvalidQuery(DeadLetterError, ValueError):
    """A query or a bulk request that cannot be meant."""


class InvalidSetting(DeadLetterError, ValueError):
    """An environment variable, URL or option has a value that cannot be used."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


class TaskNotFound(DeadLetterError, LookupError):
    """No task with this id is known: never stored, forgotten, cancelled, purged or erased."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return f"no task {self.task_id!r} is known here"


class Conflict(DeadLetterError):
    """What is stored says otherwise."""


class TaskConflict(Conflict):
    """The id is taken by a task of another type or payload."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return f"task id {self.task_id!r} is taken by a task of another type or payload; give this one an id of its own"


class IdempotencyConflict(Conflict):
    """The idempotency key is bound to a task with another payload."""

    def __init__(self, key: str, task_id: str) -> None:
        super().__init__(key, task_id)
        self.key = key
        self.task_id = task_id

    def __str__(self) -> str:
        return (
            f"idempotency key {self.key!r} is bound to task {self.task_id!r}, which has another payload;"
            " use a key that tells the two apart"
        )


class NotDead(Conflict):
    """Only a dead letter can be retried."""

    def __init__(self, task_id: str, state: str) -> None:
        super().__init__(task_id, state)
        self.task_id = task_id
        self.state = state

    def __str__(self) -> str:
        return f"task {self.task_id!r} is {self.state}, and only a dead letter can be retried"


class NotReplayable(Conflict):
    """The letter's arguments could not be kept, so that it cannot run again as it is."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return (
            f"letter {self.task_id!r} does not hold its real arguments; give it a whole payload to retry it"
            " (retry(id, payload=...))"
        )


class ConfigurationConflict(Conflict):
    """The store was set up differently by another process."""


class TaskBusy(DeadLetterError):
    """The task is leased: somebody runs it right now."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return f"task {self.task_id!r} is being run elsewhere"


class InProgress(TaskBusy):
    """A call with this idempotency key runs elsewhere; its effect is not known yet."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"a call with idempotency key {self.key!r} is in progress elsewhere; ask again when its lease has ended"


class LeaseLost(DeadLetterError):
    """The lease belongs to somebody else by now; what was reported was perhaps already done."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return f"the lease on task {self.task_id!r} is no longer ours; its attempt is perhaps done already"


class BackendError(DeadLetterError):
    """The store cannot do what was asked."""


class BackendUnavailable(BackendError, ConnectionError):
    """The store cannot be reached, or refuses to open."""


class DurabilityNotMet(BackendError):
    """Stored, but on fewer replicas than asked; repeating with the same id is safe."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return f"task {self.task_id!r} is stored on fewer replicas than asked; repeat with the same id, it is safe"


class BatchFailed(DeadLetterError):
    """A batch stopped midway.

    Attributes:
        stored: the ids that are stored for certain, in the order given.
        index: the position of the task that failed.
    """

    def __init__(self, index: int, stored: Sequence[str], problem: str) -> None:
        super().__init__(index, stored, problem)
        self.index = index
        self.stored = list(stored)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"task {self.index} of the batch: {self.problem} ({len(self.stored)} before it are stored;"
            " repeating the whole batch is safe)"
        )


class Undecodable(DeadLetterError, ValueError):
    """Stored bytes that this version cannot read."""


class MissingExtra(DeadLetterError, ImportError):
    """An optional part is used whose libraries are not installed."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(extra, what)
        self.extra = extra
        self.what = what

    def __str__(self) -> str:
        return f'{self.what} needs an extra: pip install "deadletter-sdk[{self.extra}]"'


def _belong_to_the_package() -> None:
    """A traceback says ``deadletter.TaskNotFound``: where users import it from."""
    for error in list(globals().values()):
        if isinstance(error, type) and issubclass(error, DeadLetterError):
            error.__module__ = "deadletter"


_belong_to_the_package()
