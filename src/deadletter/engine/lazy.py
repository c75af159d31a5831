"""Queues that decorated functions name by URL or leave to the environment: made at the first need, one per process."""

from __future__ import annotations

import inspect
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs

from ..model.errors import InvalidSetting, InvalidTask
from .queue import DeadLetterQueue
from .registry import Registration

_Key: TypeAlias = tuple[str | None, ...]

_lock = threading.Lock()
_queues: dict[_Key, DeadLetterQueue] = {}
_entries: dict[tuple[str | None, str], _Entry] = {}
_adopters: weakref.WeakSet[DeadLetterQueue] = weakref.WeakSet()


@attrs.frozen
class _Entry:
    url: str | None
    type: str
    function: Callable[..., Any]
    registration: Registration


def _source(function: Callable[..., Any]) -> tuple[object, ...]:
    code = getattr(function, "__code__", None)
    return (code.co_filename, code.co_firstlineno, code.co_qualname) if code is not None else (function,)


def queue_at(url: str | None) -> DeadLetterQueue:
    """This process's queue at a URL, or (None) the one that the environment names. It connects at its first use.

    All but the URL is what the environment says, as for the command line's ``--url``. Raises InvalidSetting for a URL or
    a variable that cannot be used.
    """
    key = (url or os.environ.get("DEADLETTER_URL"), os.environ.get("DEADLETTER_QUEUE"), url)
    with _lock:
        queue = _queues.get(key)
        if queue is None:
            queue = DeadLetterQueue.from_env(**({} if url is None else {"backend": url}))
            _queues[key] = queue
    return queue


def enter(url: str | None, type_: str, function: Callable[..., Any], registration: Registration) -> None:
    """Keep a registration for the queue at ``url``; raises InvalidTask where another function has the type there.

    The same lines of source executed again (a module that is reloaded) take the place of what they made before.
    """
    entry = _Entry(url, type_, function, registration)
    known = _entries.get((url, type_))
    if known is not None and _source(known.function) != _source(function):
        raise InvalidTask("name", f"{type_!r} is {known.function!r} already; give one of the two another name=")
    _entries[url, type_] = entry
    for queue in list(_adopters):
        if _is_at(queue, url):
            _register(queue, entry)


def adopt(queue: DeadLetterQueue) -> None:
    """Let a queue know every function, earlier or later.

    Whose URL (or environment) names the place where it is, too.
    """
    _adopters.add(queue)
    for entry in list(_entries.values()):
        if _is_at(queue, entry.url):
            _register(queue, entry)


def made() -> list[DeadLetterQueue]:
    """Every queue that a decorated function names so far, each with its processors registered."""
    queues = [queue_at(url) for url in dict.fromkeys(entry.url for entry in list(_entries.values()))]
    for queue in queues:
        adopt(queue)
    return list(dict.fromkeys(queues))


def _is_at(queue: DeadLetterQueue, url: str | None) -> bool:
    try:
        named = queue_at(url)
    except InvalidSetting:  # told to who calls a function that it names, and no concern of any other
        return False
    if named is queue or named.backend.url.startswith("memory:"):  # which no two queues share
        return named is queue
    return (queue.name, queue.backend.url) == (named.name, named.backend.url)


def _register(queue: DeadLetterQueue, entry: _Entry) -> None:
    known = queue.registry.get(entry.type)
    if known is entry.registration:
        return
    if known is not None and _source(inspect.unwrap(known.processor)) == _source(entry.function):
        queue.registry._by_type.pop(entry.type)  # noqa: SLF001 - an earlier run of the same source
    queue.registry.add(entry.type, entry.registration)
