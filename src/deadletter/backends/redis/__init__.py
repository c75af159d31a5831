"""Tasks in Redis or Valkey, shared by any number of processes on any number of machines."""

from __future__ import annotations

from ...model.errors import MissingExtra

try:
    from .backend import RedisBackend
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "redis":
        raise
    raise MissingExtra("redis", "the Redis backend") from error

__all__ = ["RedisBackend"]
