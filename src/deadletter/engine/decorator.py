"""``@dead_lettered``: one line on an ordinary function, and what fails in it is kept as a task."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

from ..model.errors import InvalidTask
from ..model.task import Duration, Priority, Task, seconds
from ..retry import as_policy
from ..rules.redaction import check_paths
from . import inline, lazy
from .captured import Capture, Captured, owner
from .options import RetryLike
from .plan import Plan
from .queue import DeadLetterQueue
from .registry import is_async
from .sync import wait_for

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


class DeadLettered(Protocol[P, T_co, R_co]):
    """A decorated function: called as before, it may answer ``R``; ``original`` is the function that answers ``T``.

    A bound method has the call alone, since ``self`` is an argument like any other:
    ``await Account.charge.enqueue(account, 5)``.
    """

    __name__: str
    __qualname__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function here and now; a failure is kept as a task."""
        ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> DeadLettered[P, T_co, R_co]: ...
    @overload
    def __get__(
        self: DeadLettered[Concatenate[Any, Q], T_co, R_co], instance: object, owner: type, /
    ) -> Callable[Q, R_co]: ...

    @property
    def original(self) -> Callable[P, T_co]:
        """The undecorated function."""
        ...

    def task(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """Make the task of a call; raises UnserializablePayload that names the argument."""
        ...

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Leave a call to a worker, without a run here; answers its task's id."""
        ...

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The same, blocking: for callers outside of a coroutine."""
        ...


class Raising(Protocol):
    """The decorator whose functions raise what they could not do."""

    def __call__(self, function: Callable[P, T], /) -> DeadLettered[P, T, T]:
        """Decorate a function."""
        ...


class Suppressing(Protocol):
    """The decorator whose functions answer a Captured in place of raising."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> DeadLettered[P, Coroutine[Any, Any, T], Coroutine[Any, Any, T | Captured]]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> DeadLettered[P, T, T | Captured]: ...


@overload
def dead_lettered(function: Callable[P, T], /) -> DeadLettered[P, T, T]: ...
@overload
def dead_lettered(
    queue: DeadLetterQueue | str | None = None,
    /,
    *,
    name: str | None = None,
    retry: RetryLike | None = None,
    max_retries: int | None = None,
    inline_retries: int = 0,
    priority: Priority | Literal["high", "normal", "low"] = Priority.NORMAL,
    idempotency_key: Callable[..., str | None] | None = None,
    timeout: Duration | None = None,
    redact: Sequence[str] = (),
    on_failure: Literal["suppress"],
    when: Callable[[BaseException], object] | None = None,
    capture_cancelled: bool = False,
) -> Suppressing: ...
@overload
def dead_lettered(
    queue: DeadLetterQueue | str | None = None,
    /,
    *,
    name: str | None = None,
    retry: RetryLike | None = None,
    max_retries: int | None = None,
    inline_retries: int = 0,
    priority: Priority | Literal["high", "normal", "low"] = Priority.NORMAL,
    idempotency_key: Callable[..., str | None] | None = None,
    timeout: Duration | None = None,
    redact: Sequence[str] = (),
    on_failure: Literal["raise"] = "raise",
    when: Callable[[BaseException], object] | None = None,
    capture_cancelled: bool = False,
) -> Raising: ...
def dead_lettered(
    queue: Any = None,
    /,
    *,
    name: str | None = None,
    retry: RetryLike | None = None,
    max_retries: int | None = None,
    inline_retries: int = 0,
    priority: Priority | Literal["high", "normal", "low"] = Priority.NORMAL,
    idempotency_key: Callable[..., str | None] | None = None,
    timeout: Duration | None = None,
    redact: Sequence[str] = (),
    on_failure: Literal["raise", "suppress"] = "raise",
    when: Callable[[BaseException], object] | None = None,
    capture_cancelled: bool = False,
) -> Any:
    """Keep the failures of a function: run here and now, and what fails is stored with its arguments and tried again.

    ``@dead_lettered(dlq)``, ``@dead_lettered("sqlite:///path.db")``, or ``@dead_lettered`` with ``DEADLETTER_URL``. The
    function's exception is raised as ever, with a note that names the task. A worker that has imported the module does
    the later attempts, by the queue's policy; the inline run was the first. Inside an attempt or another decorated call
    nothing is captured: the outermost owns the failure. Arguments are stored as they are when the function has failed.

    A ``Discard`` passes through; a ``Postpone`` is stored for later without a failure; cancellation and
    KeyboardInterrupt pass through. A success costs less than a microsecond and touches no store (but with a key).

    Args:
        queue: a DeadLetterQueue, a URL, or None for the environment's.
        name: the task type; by default ``module.qualname``.
        retry: a RetryPolicy or delays in seconds, in place of the queue's.
        max_retries: retries after the inline run; 0: what fails inline is dead.
        inline_retries: more tries in place that come first, after 0.1 s, then twice as long each time up to 2 s, each
            with up to 0.1 s on top; not after a signal such as PermanentError.
        priority: of the task.
        idempotency_key: gets the arguments by name and answers a key, or None for no key. A call whose key was done
            before answers the stored result; raises InProgress while a call or task has the key, IdempotencyConflict
            where it is bound to other arguments, BackendUnavailable before the body runs. The key is held for
            ``timeout`` and a lease (async), else for the queue's ``max_runtime``: so long does a crash block it.
        timeout: of an attempt; inline it bounds async functions, all tries in place together.
        redact: payload paths that no view shows.
        on_failure: ``"suppress"`` answers a falsy Captured once the failure is stored, in place of raising.
        when: says which failures to capture.
        capture_cancelled: capture cancellation and KeyboardInterrupt, too.

    Raises:
        InvalidTask: names the option, or what about the function cannot be.
    """
    if queue is not None and not isinstance(queue, DeadLetterQueue | str):
        if isinstance(queue, classmethod) or not callable(queue):
            raise _not_decorable(queue)
        return dead_lettered()(queue)
    if on_failure not in ("raise", "suppress"):
        raise InvalidTask("on_failure", f'{on_failure!r} is not one of "raise", "suppress"')
    if not isinstance(inline_retries, int) or isinstance(inline_retries, bool) or inline_retries < 0:
        raise InvalidTask("inline_retries", f"{inline_retries!r} is no count of retries; give 0 or more")
    check_paths(redact)
    Task(type="check", priority=priority, max_retries=max_retries, timeout=timeout)
    return functools.partial(
        _decorate,
        queue=queue,
        name=name,
        priority=priority,
        retry=as_policy(retry) if retry is not None else None,
        max_retries=max_retries,
        timeout=seconds("timeout", timeout) if timeout is not None else None,
        inline_retries=inline_retries,
        key_of=idempotency_key,
        redact=tuple(redact),
        suppress=on_failure == "suppress",
        when=when,
        capture_cancelled=capture_cancelled,
    )


def _decorate(function: Any, *, queue: DeadLetterQueue | str | None, name: str | None, **options: Any) -> Any:
    if isinstance(function, staticmethod):
        return staticmethod(_decorate(function.__func__, queue=queue, name=name, **options))
    _check(function)
    plan = Plan(
        function=function,
        type=name or _default_name(function),
        is_async=is_async(function),
        queue_of=lambda: queue if isinstance(queue, DeadLetterQueue) else _lazily(queue),
        **options,
    )
    if isinstance(queue, DeadLetterQueue):
        queue.registry.add(plan.type, plan.registration)
    else:
        Task(type=plan.type)
        lazy.enter(queue, plan.type, function, plan.registration)
    return _dressed(plan)


def _lazily(url: str | None) -> DeadLetterQueue:
    queue = lazy.queue_at(url)
    lazy.adopt(queue)
    return queue


def _check(function: object) -> None:
    if not inspect.isfunction(function):
        raise _not_decorable(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidTask(
            "function", f"{function.__qualname__} is a generator, which fails while it is read; decorate what reads it"
        )


def _not_decorable(value: object) -> InvalidTask:
    if isinstance(value, classmethod):
        return InvalidTask("function", f"{value!r}: a class is no argument that can be stored; use a staticmethod")
    return InvalidTask(
        "function",
        f"{value!r} is no function; write @dead_lettered(dlq), with a DeadLetterQueue or a URL, above a function",
    )


def _default_name(function: Callable[..., Any]) -> str:
    module = function.__module__
    if module == "__main__":
        module = _main_name() or ""
        if not module:
            raise InvalidTask(
                "name",
                f"{function.__qualname__} is defined in __main__, which no worker can import;"
                ' move it to a module, or give it a name: @dead_lettered(..., name="billing.charge")',
            )
    return f"{module}.{function.__qualname__}"


def _main_name() -> str | None:
    """The name under which a worker imports what runs as ``__main__`` here."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)  # python -m package.module
    stem = Path(getattr(main, "__file__", None) or "").stem
    return stem if stem.isidentifier() else None


def _dressed(plan: Plan) -> Any:
    function = plan.function
    if plan.key_of is not None:
        call: Any = _keyed_async(plan) if plan.is_async else _keyed_sync(plan)
    else:
        call = _plain_async(plan) if plan.is_async else _plain_sync(plan)

    def task(*args: Any, **kwargs: Any) -> Task:
        return plan.task(args, kwargs, plan.key(args, kwargs))

    async def enqueue(*args: Any, **kwargs: Any) -> str:
        return await _enqueue(plan, task(*args, **kwargs))

    def enqueue_sync(*args: Any, **kwargs: Any) -> str:
        given = task(*args, **kwargs)
        return wait_for(lambda: _enqueue(plan, given))

    dressed: Any = functools.wraps(function)(call)
    dressed.original = function
    dressed.task = task
    dressed.enqueue = enqueue
    dressed.enqueue_sync = enqueue_sync
    return dressed


async def _enqueue(plan: Plan, task: Task) -> str:
    return await plan.queue_of().enqueue(task)


# A call that succeeds runs the first lines of one of these and nothing else, so each is written out.


def _plain_sync(plan: Plan) -> Callable[..., Any]:
    body, current, enter = inline.body_of(plan), owner.get, owner.set

    def call(*args: Any, **kwargs: Any) -> Any:
        if current():
            return body(*args, **kwargs)
        mine = [True]
        enter(mine)
        try:
            return body(*args, **kwargs)
        except BaseException as error:
            captured = Capture(plan, args, kwargs, error).run_sync()
            if captured is None or not plan.suppress:
                raise
            return captured
        finally:
            mine.clear()

    return call


def _plain_async(plan: Plan) -> Callable[..., Any]:
    body, current, enter = inline.body_of(plan), owner.get, owner.set

    async def call(*args: Any, **kwargs: Any) -> Any:
        if current():
            return await body(*args, **kwargs)
        mine = [True]
        enter(mine)
        try:
            return await body(*args, **kwargs)
        except BaseException as error:
            captured = await Capture(plan, args, kwargs, error).run()
            if captured is None or not plan.suppress:
                raise
            return captured
        finally:
            mine.clear()

    return call


def _keyed_sync(plan: Plan) -> Callable[..., Any]:
    body, plain = inline.body_of(plan), _plain_sync(plan)

    def call(*args: Any, **kwargs: Any) -> Any:
        key = plan.key(args, kwargs)
        if key is None:
            return plain(*args, **kwargs)
        begun = wait_for(lambda: inline.begin(plan, key, args, kwargs))
        if isinstance(begun, inline.Known):
            return begun.result
        nested, mine = bool(owner.get()), [True]
        if not nested:
            owner.set(mine)
        try:
            result = body(*args, **kwargs)
        except BaseException as error:
            # The letter first: where this process dies between the two, the key stays taken and nothing runs twice.
            captured = None if nested else Capture(plan, args, kwargs, error, key).run_sync()
            wait_for(begun.abandon)
            if captured is None or not plan.suppress:
                raise
            return captured
        finally:
            mine.clear()
        wait_for(lambda: begun.complete(result))
        return result

    return call


def _keyed_async(plan: Plan) -> Callable[..., Any]:
    body, plain = inline.body_of(plan), _plain_async(plan)

    async def call(*args: Any, **kwargs: Any) -> Any:
        key = plan.key(args, kwargs)
        if key is None:
            return await plain(*args, **kwargs)
        begun = await inline.begin(plan, key, args, kwargs)
        if isinstance(begun, inline.Known):
            return begun.result
        nested, mine = bool(owner.get()), [True]
        if not nested:
            owner.set(mine)
        try:
            result = await body(*args, **kwargs)
        except BaseException as error:
            try:
                captured = None if nested else await Capture(plan, args, kwargs, error, key).run()
            finally:  # after the letter, as above
                if not isinstance(error, GeneratorExit):
                    await begun.abandon()
            if captured is None or not plan.suppress:
                raise
            return captured
        finally:
            mine.clear()
        await begun.complete(result)
        return result

    return call
