"""Where tasks are kept. A URL scheme names a backend; entry points in ``deadletter.backends`` add more."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any, cast

from ..model.errors import InvalidSetting, MissingExtra

if TYPE_CHECKING:
    from ..interfaces import Backend, Clock

_BUILT_IN = {
    "memory": "deadletter.backends.memory:MemoryBackend",
    "sqlite": "deadletter.backends.sqlite:SQLiteBackend",
    "redis": "deadletter.backends.redis:RedisBackend",
    "rediss": "deadletter.backends.redis:RedisBackend",
    "unix": "deadletter.backends.redis:RedisBackend",
    "redis+sentinel": "deadletter.backends.redis:RedisBackend",
    "redis+cluster": "deadletter.backends.redis:RedisBackend",
}
_EXTRAS: dict[str, str] = dict.fromkeys(("redis", "rediss", "unix", "redis+sentinel", "redis+cluster"), "redis")
_PLANNED = {
    "postgresql": "postgres",
    "postgres": "postgres",
}
_PASSWORD = re.compile(r"(?<=:)[^:@/]*(?=@)")


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return _PASSWORD.sub("***", url)


def backend_from_url(url: str, *, clock: Clock | None = None) -> Backend:
    """Make the backend that a URL names; it connects at its first use.

    Raises:
        InvalidSetting: for a URL without a scheme, one that nobody here knows, or what is no text.
    """
    scheme, separator, _ = url.partition("://")
    if "\0" in url or any("\ud800" <= letter <= "\udfff" for letter in url):  # bytes of an environment that is no UTF-8
        shown = without_password(ascii(url))
        raise InvalidSetting("url", f"{shown} holds what no path and no host can: a NUL, or bytes that are no UTF-8")
    if not separator:
        raise InvalidSetting("url", f'{without_password(url)!r} has no scheme; write it like "sqlite:///path.db"')
    target = _BUILT_IN.get(scheme) or _entry_point(scheme)
    if target is None:
        known = ", ".join(sorted(_BUILT_IN))
        if scheme in _PLANNED:
            raise InvalidSetting("url", f"{scheme}:// is not in this version; use one of {known}")
        raise InvalidSetting("url", f"nobody here knows {scheme}://; use one of {known}, or install a backend for it")
    module, _, name = target.partition(":")
    try:
        backend_class: Any = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise MissingExtra(_EXTRAS.get(scheme, scheme), f"the {scheme} backend") from error
    return cast("Backend", backend_class.from_url(url, clock=clock))


def backend_from_client(client: object, *, clock: Clock | None = None) -> Backend | None:
    """Make the backend that a client of redis-py is for; None for anything else. The client stays its owner's."""
    if not any(base.__module__.partition(".")[0] == "redis" for base in type(client).__mro__):
        return None
    redis_backend: Any = importlib.import_module("deadletter.backends.redis").RedisBackend
    return cast("Backend", redis_backend(client, clock=clock))


def _entry_point(scheme: str) -> str | None:
    from importlib.metadata import entry_points

    for point in entry_points(group="deadletter.backends"):
        if point.name == scheme:
            return point.value
    return None
