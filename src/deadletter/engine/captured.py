"""A call that failed becomes a task: what is stored of it, and what happens where that fails."""

from __future__ import annotations

import functools
import logging
from concurrent.futures import CancelledError as PortalClosed
from contextvars import ContextVar
from typing import Any, Literal, cast

import anyio
import attrs

from ..model.errors import InvalidTask
from ..model.outcome import Failed, Postponed
from ..model.record import Reason
from ..model.row import DEAD, Inserted, Insertion, NewRow
from ..model.task import Task
from ..rules.arguments import plain_arguments
from ..rules.circuits import classify
from ..rules.redaction import hiding
from ..rules.story import failure_row
from . import letters, presence
from .attempt import cause_of_death, count_retries, failed_attempt, next_delay
from .plan import Plan, to_capture
from .queue import DeadLetterQueue
from .spooling import Spooler
from .sync import call_soon
from .telling import mask_of, masked_row, teller

log = logging.getLogger("deadletter.decorator")

MARK = "__deadletter_task_id__"  # on an exception: the task that has it
_GRACE = 1.0  # s: how much longer a sync caller waits for a loop that should have answered

# The decorated call that owns a failure raised here: a list, emptied when it has ended. Tasks that it started inherit
# it, and may outlive it.
owner: ContextVar[list[bool] | None] = ContextVar("deadletter_owner", default=None)


@attrs.frozen
class Captured:
    """What a call gives whose failure was stored instead of raised (``on_failure="suppress"``); it is falsy.

    Attributes:
        task_id: of the stored task.
        error: what the function raised.
    """

    task_id: str
    error: BaseException

    def __bool__(self) -> Literal[False]:
        return False


def known_id(error: BaseException) -> str | None:
    """The task that has this exception already."""
    return error.__dict__.get(MARK)


def note(error: BaseException, text: str) -> None:
    """Add a note; also to an exception that refuses to be changed."""
    error.__dict__.setdefault("__notes__", []).append(f"deadletter: {text}")


@attrs.frozen
class _Stored:
    row: NewRow
    insertion: Insertion


@attrs.define(eq=False)
class Capture:
    """One failed call on its way into the store."""

    plan: Plan
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    error: BaseException
    key: str | None = None
    queue: DeadLetterQueue | None = None
    row: NewRow | None = None
    interrupted: BaseException | None = None  # a cancellation that came meanwhile

    async def run(self) -> Captured | None:
        """Store or spool it; None where nothing is to be kept, or nobody took it (told by a note and the log)."""
        found = self._known()
        if found is not None or not to_capture(self.plan, self.error):
            return found
        try:
            queue, new = self._made()
            captured: Captured | None = self._told(await self._store(queue, new))
        except Exception as problem:  # whatever it is, the user's own exception goes first: told, and not raised
            captured = await self._not_stored_async(problem)
        if self.interrupted is not None:
            raise self.interrupted
        return captured

    def run_sync(self) -> Captured | None:
        """The same from a thread, blocking it for hardly longer than ``capture_timeout``."""
        found = self._known()
        if found is not None or not to_capture(self.plan, self.error):
            return found
        try:
            queue, new = self._made()
            future = call_soon(functools.partial(self._store, queue, new))
            stored = future.result(queue.options.capture_timeout + _GRACE)
        except (Exception, PortalClosed) as problem:  # as above
            return self.not_stored(problem)
        return self._told(stored)

    def _known(self) -> Captured | None:
        task_id = known_id(self.error)
        if task_id is None:
            return None
        log.info("%s raised what task %s has already; it is not captured again", self.plan.type, task_id)
        return Captured(task_id, self.error)

    def _made(self) -> tuple[DeadLetterQueue, NewRow]:
        """The queue and the row that goes there, before anything can hang: the same row goes to the spool."""
        queue = self.queue = self.plan.queue_of()
        new = self.row = self._row(queue)
        return queue, new

    async def _store(self, queue: DeadLetterQueue, new: NewRow) -> _Stored:
        stored = None
        with anyio.move_on_after(queue.options.capture_timeout, shield=True) as scope:
            try:
                stored = _Stored(new, await self._insert(queue, new))
            except anyio.get_cancelled_exc_class() as cancelled:
                if scope.cancel_called:
                    raise
                # A task.cancel() goes through any shield; the same id makes a repeat safe.
                self.interrupted = cancelled
                stored = _Stored(new, await self._insert(queue, new))
            if new.state != DEAD:
                await _warn_if_unknown(self.plan, queue)
        if stored is None:
            raise TimeoutError(f"the store took longer than capture_timeout={queue.options.capture_timeout:g} s")
        return stored

    async def _insert(self, queue: DeadLetterQueue, new: NewRow) -> Insertion:
        insertion = await queue.insert_row(new)
        if insertion.verdict is Inserted.KEY_CONFLICT:
            note(
                self.error, f"its idempotency key belongs to task {insertion.id} with other arguments; kept without it"
            )
            insertion = await queue.insert_row(attrs.evolve(new, key=None))
        return insertion

    def _row(self, queue: DeadLetterQueue) -> NewRow:
        try:
            task = self.plan.task(self.args, self.kwargs, self.key)
            new = queue.new_row(task)
        except InvalidTask as problem:
            mask = self.plan.mask(queue, self.args, self.kwargs)
            said = mask.text(f"{type(problem).__name__}: {problem}")
            note(self.error, f"{said}; only its repr is kept, and it cannot be replayed")
            new = self.plan.unreadable(queue, self.args, self.kwargs)
            dead = letters.dead_row(queue, new, self.error, Reason.NOT_REPLAYABLE, mask)
            # Its payload holds no values by which a view could find them in the message: they go now.
            return attrs.evolve(dead, history=[masked_row(failure, mask) for failure in dead.history])
        return self._scheduled(queue, task, new)

    def _scheduled(self, queue: DeadLetterQueue, task: Task, new: NewRow) -> NewRow:
        """Pending until the policy's next attempt, or dead: the inline run was attempt 1."""
        outcome = cast("Failed | Postponed", classify(self.error))  # to_capture let no Discard through
        if isinstance(outcome, Postponed):
            return attrs.evolve(new, due_ms=round(outcome.delay * 1000))
        registration = self.plan.registration
        policy = registration.retry or queue.options.policy
        mask, told = mask_of(queue, task, new.redact), teller(queue, task, new.redact)
        retries = count_retries(queue, task, registration, first=self.plan.counting is None, told=told)
        failed = failed_attempt(queue, task, registration, outcome, 1, 0.0)
        delay = next_delay(outcome, policy, retries, failed, told)
        if delay is None:
            return letters.dead_row(queue, new, self.error, cause_of_death(outcome), mask)
        failure = failure_row(
            self.error,
            task_type=new.type,
            attempt=1,
            duration_ms=None,
            worker=None,
            release=queue.options.release,
            mask=mask,
        )
        return attrs.evolve(
            new,
            attempts=1,
            history=[failure],
            due_ms=round(delay * 1000),
            count=(("captured", new.type, ""), ("failures", new.type, failure.error_type)),
        )

    def _told(self, stored: _Stored) -> Captured:
        task_id, row = stored.insertion.id, stored.row
        if task_id != row.id:
            what = f"is task {task_id} already, by its idempotency key"
        elif row.state == DEAD:
            what = f"is kept as dead letter {task_id} ({row.reason})"
        else:
            what = f"is kept as task {task_id}, due again in {row.due_ms / 1000:g} s"
        self.error.__dict__[MARK] = task_id
        note(self.error, f"this call of {self.plan.type} {what}")
        return Captured(task_id, self.error)

    def not_stored(self, problem: BaseException) -> Captured | None:
        """Keep in the spool what the store did not take; where none does, note and log tell."""
        if self.queue is None or self.row is None or self.queue.spooler is None:
            self._lost(problem)
            return None
        try:
            self.queue.spooler.put(self.row)
        except Exception as second:  # the user's own exception goes first, as above
            self._lost(problem, second)
            return None
        return self._spooled(self.row, self.queue.spooler, problem)

    async def _not_stored_async(self, problem: Exception) -> Captured | None:
        if self.queue is None or self.row is None or self.queue.spooler is None:
            self._lost(problem)
            return None
        try:
            interrupted = await self.queue.spooler.put_soon(self.row)
        except Exception as second:  # the user's own exception goes first, as above
            self._lost(problem, second)
            return None
        self.interrupted = self.interrupted or interrupted
        return self._spooled(self.row, self.queue.spooler, problem)

    def _spooled(self, row: NewRow, spooler: Spooler, problem: BaseException) -> Captured:
        said = self._masked(f"{type(problem).__name__}: {problem}")
        note(
            self.error,
            f"this call of {self.plan.type} is kept as task {row.id} in {spooler.spool.path} until the store is back: {said}",
        )
        log.warning(
            "a failed call of %s is kept as task %s in %s until the store is back: %s",
            self.plan.type,
            row.id,
            spooler.spool.path,
            said,
            extra={"task_type": self.plan.type, "task_id": row.id},
        )
        self.error.__dict__[MARK] = row.id
        return Captured(row.id, self.error)

    def _lost(self, problem: BaseException, second: Exception | None = None) -> None:
        """Nobody has it: tell so by note and log; its arguments are told by neither."""
        sent = f" (perhaps it has it as {self.row.id})" if self.row is not None else ""
        said = self._masked(f"{type(problem).__name__}: {problem}")
        if second is not None:
            said += self._masked(f"; nor in the spool: {type(second).__name__}: {second}")
        note(self.error, f"this call of {self.plan.type} could not be kept{sent}: {said}")
        log.error(
            "a failed call of %s could not be kept%s: %s; it raised %s, and its caller must repeat it",
            self.plan.type,
            sent,
            said,
            type(self.error).__qualname__,
            extra={"task_type": self.plan.type, "task_id": self.row.id if self.row is not None else None},
        )

    def _masked(self, text: str) -> str:
        try:
            queue = self.plan.queue_of()
        except Exception:  # without a queue nobody knows its paths
            return hiding(("*",)).mask(plain_arguments(self.plan.function, self.args, self.kwargs)).text(text)
        return self.plan.mask(queue, self.args, self.kwargs).text(text)


async def _warn_if_unknown(plan: Plan, queue: DeadLetterQueue) -> None:
    """Say once that no live worker knows the type."""
    if plan.looked:
        return
    plan.looked = True
    try:
        workers = await presence.present(queue)
    except Exception as problem:  # the task is stored by now: whatever a backend raises must not say that it is not
        log.debug("who works on %s is not known: %s", queue, problem)
        return
    if not any(plan.type in worker.types for worker in workers):
        log.warning(
            "no live worker knows %s: what failed waits until one imports %s (deadletter worker --import %s)",
            plan.type,
            plan.function.__module__,
            plan.function.__module__,
        )
