"""The calls that change a queue, as an Instrumentation sees them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine, Sized
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ..model.task import Task

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.watching")

P = ParamSpec("P")
T = TypeVar("T")


def operation(
    method: Callable[Concatenate[DeadLetterQueue, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[DeadLetterQueue, P], Coroutine[Any, Any, T]]:
    """Let the queue's instrumentation see each call of this method; what that raises is logged, and that is all."""

    @functools.wraps(method)
    async def call(self: DeadLetterQueue, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.instrumentation is None:
            return await method(self, *args, **kwargs)
        given = args[0] if args else next(iter(kwargs.values()), None)
        scope = _enter(self, method.__name__, given)
        try:
            answer = await method(self, *args, **kwargs)
        except BaseException as error:
            _leave(self, scope, error)
            raise
        _leave(self, scope, None)
        return answer

    return call


def _enter(queue: DeadLetterQueue, name: str, given: object) -> AbstractContextManager[None] | None:
    task_id = given.id if isinstance(given, Task) else given if isinstance(given, str) else None
    count = len(given) if isinstance(given, Sized) and not isinstance(given, str) else 1
    if queue.instrumentation is None:
        return None
    try:
        scope = queue.instrumentation.operation(name, queue=queue.name, task_id=task_id, count=count)
        scope.__enter__()
    except Exception:  # somebody else's code
        log.exception("%r failed before %s, which goes on", queue.instrumentation, name)
        return None
    return scope


def _leave(queue: DeadLetterQueue, scope: AbstractContextManager[None] | None, error: BaseException | None) -> None:
    try:
        if scope is not None and error is None:
            scope.__exit__(None, None, None)
        elif scope is not None and error is not None:
            scope.__exit__(type(error), error, error.__traceback__)
    except Exception as problem:  # a scope may raise again what it was told, and that goes its own way
        if problem is not error:
            log.exception("%r failed after a call", queue.instrumentation)
