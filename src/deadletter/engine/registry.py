"""Which processor does what."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import attrs

from ..interfaces import RetryPolicy
from ..model.errors import InvalidTask
from ..model.outcome import Processor
from ..model.query import glob_match
from ..model.task import Task


def is_async(processor: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine; partials, wrapped functions and callable objects are looked through."""
    while isinstance(processor, functools.partial):
        processor = processor.func
    return inspect.iscoroutinefunction(processor) or inspect.iscoroutinefunction(getattr(processor, "__call__", None))  # noqa: B004


@attrs.frozen(kw_only=True)
class Registration:
    """A processor and what was said about it."""

    processor: Processor
    is_async: bool
    retry: RetryPolicy | None = None
    max_retries: int | None = None
    timeout: float | None = None
    concurrency: int | None = None
    mark: Callable[[str], str] | None = None  # adds its own hidden paths to those of a row


class Registry:
    """The processors of one queue in this process."""

    def __init__(self) -> None:
        self._by_type: dict[str, Registration] = {}
        self.watchers: list[Callable[[], object]] = []  # called at each registration: workers that sleep

    def add(self, type_: str, registration: Registration) -> None:
        """Register; raises InvalidTask where another processor has the type."""
        Task(type=type_)  # the same check as for a task
        known = self._by_type.get(type_)
        if known is not None and known.processor is not registration.processor:
            raise InvalidTask("type", f"{type_!r} has a processor already: {known.processor!r}")
        self._by_type[type_] = registration
        for watcher in list(self.watchers):
            watcher()

    def get(self, type_: str) -> Registration | None:
        """The registration for a type."""
        return self._by_type.get(type_)

    def types(self, globs: list[str] | None = None) -> list[str]:
        """The known types, those that match any of the globs."""
        return [t for t in self._by_type if globs is None or any(glob_match(glob, t) for glob in globs)]
