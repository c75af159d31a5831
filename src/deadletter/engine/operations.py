"""The calls that change a queue, as an Instrumentation sees them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine, Sized
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from ..interfaces.instrumentation import Instrumentation
from ..model.task import Task

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.watching")

P = ParamSpec("P")
T = TypeVar("T")
_Scopes: TypeAlias = list[tuple[Instrumentation, AbstractContextManager[None]]]


def operation(
    method: Callable[Concatenate[DeadLetterQueue, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[DeadLetterQueue, P], Coroutine[Any, Any, T]]:
    """Let who watches the queue see each call of this method; what they raise is logged, and that is all."""

    @functools.wraps(method)
    async def call(self: DeadLetterQueue, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if not self.watchers:
            return await method(self, *args, **kwargs)
        given = args[0] if args else next(iter(kwargs.values()), None)
        scopes = _enter(self, method.__name__, given)
        try:
            answer = await method(self, *args, **kwargs)
        except BaseException as error:
            _leave(scopes, error)
            raise
        _leave(scopes, None)
        return answer

    return call


def _enter(queue: DeadLetterQueue, name: str, given: object) -> _Scopes:
    task_id = given.id if isinstance(given, Task) else given if isinstance(given, str) else None
    count = len(given) if isinstance(given, Sized) and not isinstance(given, str) else 1
    scopes: _Scopes = []
    for watcher in queue.watchers:
        try:
            scope = watcher.operation(name, queue=queue.name, task_id=task_id, count=count)
            scope.__enter__()
            scopes.append((watcher, scope))
        except Exception:  # somebody else's code
            log.exception("%r failed before %s, which goes on", watcher, name)
    return scopes


def _leave(scopes: _Scopes, error: BaseException | None) -> None:
    for watcher, scope in reversed(scopes):
        try:
            if error is None:
                scope.__exit__(None, None, None)
            else:
                scope.__exit__(type(error), error, error.__traceback__)
        except Exception as problem:  # a scope may raise again what it was told, and that goes its own way
            if problem is not error:
                log.exception("%r failed after a call", watcher)
