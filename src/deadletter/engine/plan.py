"""What is known of a decorated function: how a call of it becomes a task, and which of its failures are kept."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from ..interfaces import RetryPolicy
from ..model.outcome import Discard
from ..model.row import NewRow
from ..model.task import Task
from ..rules.arguments import CallSignature, plain_arguments, repr_arguments
from ..rules.codec import digest, encode_task
from ..rules.masking import Mask
from ..rules.redaction import hiding, marked_paths
from . import context
from .queue import DeadLetterQueue
from .registry import Registration

log = logging.getLogger("deadletter.decorator")


@attrs.define(eq=False, kw_only=True)
class Plan:
    """A decorated function and what was said about it."""

    function: Callable[..., Any]
    type: str
    is_async: bool
    queue_of: Callable[[], DeadLetterQueue]
    priority: str
    retry: RetryPolicy | None
    max_retries: int | None
    timeout: float | None
    inline_retries: int
    key_of: Callable[..., str | None] | None
    redact: tuple[str, ...]
    suppress: bool
    when: Callable[[BaseException], object] | None
    capture_cancelled: bool
    signature: CallSignature = attrs.field(init=False)
    registration: Registration = attrs.field(init=False)
    looked: bool = False  # whether a worker knows the type was asked

    def __attrs_post_init__(self) -> None:
        self.signature = CallSignature.of(self.function)
        self.registration = Registration(
            processor=self._processor(),
            is_async=self.is_async,
            retry=self.retry,
            max_retries=self.max_retries,
            timeout=self.timeout,
            mark=self._mark if self.redact or self._rest else None,
        )

    @property
    def counting(self) -> RetryPolicy | None:
        """Its retry policy, where that one wants to hear of every first attempt."""
        if self.retry is None or type(self.retry).observe is RetryPolicy.observe:
            return None
        return self.retry

    def key(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """The call's idempotency key; ``key_of`` gets the arguments by name, defaults included, else as given."""
        if self.key_of is None:
            return None
        signature = inspect.signature(self.function)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        named = dict(bound.arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                named.update(named.pop(name))
        try:
            inspect.signature(self.key_of).bind(**named)
        except TypeError:
            return self.key_of(*args, **kwargs)
        return self.key_of(**named)

    def task(self, args: Sequence[Any], kwargs: Mapping[str, Any], key: str | None) -> Task:
        """The call as a task; raises UnserializablePayload that names the argument."""
        return self._task(self.signature.dump(args, kwargs), key)

    def _task(self, payload: Mapping[str, Any], key: str | None) -> Task:
        return Task(
            type=self.type,
            payload=payload,
            priority=self.priority,
            max_retries=self.max_retries,
            timeout=self.timeout,
            idempotency_key=key,
        )

    def _mark(self, mark: str) -> str:
        """A path may name an argument that is stored among its ``**kwargs``."""
        paths = dict.fromkeys((*mark.split("\n"), *self.redact) if mark else self.redact)
        if self._rest:
            inner = self._rest + "."
            paths |= dict.fromkeys(inner + path for path in paths if not path.startswith(("*", "$", inner)))
        return "\n".join(paths)

    @functools.cached_property
    def _rest(self) -> str | None:
        parameters = inspect.signature(self.function).parameters.values()
        return next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), None)

    def mask(self, queue: DeadLetterQueue, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mask:
        """What masks the hidden values of a call's arguments; also of those that cannot be stored."""
        mark = self._mark(queue.options.redact_mark)
        return hiding(marked_paths(mark)).mask(plain_arguments(self.function, args, kwargs))

    def unreadable(self, queue: DeadLetterQueue, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NewRow:
        """A row that shows arguments which cannot be stored. It has no key: it would hold it for good."""
        paths = (*queue.options.hidden_paths, *self.redact)
        mask = self.mask(queue, args, kwargs)
        told = {name: mask.text(text) for name, text in repr_arguments(self.function, args, kwargs).items()}
        task = self._task(_without_secrets(told, paths), None)
        body = encode_task(queue.codec, task, max_payload_bytes=sys.maxsize, replayable=False)
        bare = queue.new_row(attrs.evolve(task, payload={}))
        return attrs.evolve(bare, body=body, digest=digest(task.type, task.payload))

    def _processor(self) -> Callable[[Task], Any]:
        function, plan = self.function, self
        run: Callable[[Task], Any]
        if self.is_async:

            async def run_async(task: Task) -> None:  # what it returns is no outcome
                args, kwargs = plan.signature.load(task.payload)
                await function(*args, **kwargs)

            run = run_async
        else:

            def run_sync(task: Task) -> None:
                args, kwargs = plan.signature.load(task.payload)
                function(*args, **kwargs)

            run = run_sync
        return functools.wraps(function)(run)


def _without_secrets(reprs: Mapping[str, str], paths: Sequence[str]) -> dict[str, str]:
    """The reprs but for those that may show a hidden value: a path reaches into a payload, not into a text."""
    names = {_folded(path.rpartition(".")[2]) for path in paths} - {"*"}
    shown = {}
    for name, text in reprs.items():
        below = any(path.endswith(".*") and path.split(".")[0] in (name, "*") for path in paths)
        told = _folded(text)
        shown[name] = "<hidden>" if below or any(secret in told for secret in names) else text
    return shown


def _folded(text: str) -> str:
    return text.casefold().replace("_", "").replace("-", "")


def to_capture(plan: Plan, error: BaseException) -> bool:
    """Whether a failure that ended a call is stored."""
    if isinstance(error, GeneratorExit | Discard):
        return False
    if not plan.capture_cancelled and (isinstance(error, KeyboardInterrupt) or _is_cancellation(error)):
        return False
    attempt = context.current.get()
    if attempt is not None and not attempt.over:
        return False
    if plan.when is None:
        return True
    try:
        return bool(plan.when(error))
    except Exception as problem:  # it is the user's; keeping one failure too many loses nothing
        # Without its traceback: that tells of the failure, too, and with it of the arguments.
        log.error(  # noqa: TRY400
            "when=%r of %s failed with %s; the failure is captured", plan.when, plan.type, type(problem).__qualname__
        )
        return True


def _is_cancellation(error: BaseException) -> bool:
    trio = sys.modules.get("trio")
    return isinstance(error, asyncio.CancelledError) or (trio is not None and isinstance(error, trio.Cancelled))
