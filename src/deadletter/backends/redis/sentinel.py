"""A primary that Sentinels name: asked anew for each connection, so that a failover is followed."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import attrs
import redis
import redis.asyncio
import redis.asyncio.sentinel as asynchronous
import redis.sentinel as synchronous
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from ...model.errors import InvalidSetting
from .. import without_password
from .endpoint import Endpoint, hosts_of, parts_of

PORT = 26379
_SyncSentinel: Any = synchronous.Sentinel  # redis-py annotates only parts of itself
_AsyncSentinel: Any = asynchronous.Sentinel
_ASK_S = 1.0  # for one Sentinel to answer


@attrs.frozen
class SentinelEndpoint(Endpoint):
    """The primary of one service.

    Attributes:
        sentinels: host and port of each.
        service: its name there.
    """

    sentinels: tuple[tuple[str, int], ...]
    service: str

    def sync_client(self) -> redis.Redis:
        """A client of our own, for threads."""
        asked = _SyncSentinel(self.sentinels, sentinel_kwargs={"socket_timeout": _ASK_S})
        client: redis.Redis = asked.master_for(self.service, retry=Retry(NoBackoff(), 0), **self.options)
        return client

    def async_client(self) -> redis.asyncio.Redis:
        """A client of our own, for one asyncio loop."""
        asked = _AsyncSentinel(self.sentinels, sentinel_kwargs={"socket_timeout": _ASK_S})
        client: redis.asyncio.Redis = asked.master_for(self.service, retry=AsyncRetry(NoBackoff(), 0), **self.options)
        return client


async def close_sentinels(client: Any) -> None:
    """Close what an asyncio client asks, where it asks Sentinels."""
    for sentinel in getattr(getattr(client.connection_pool, "sentinel_manager", None), "sentinels", ()):
        await sentinel.aclose()


def of_sentinel_url(place: str, options: dict[str, Any]) -> SentinelEndpoint:
    """Read ``redis+sentinel://user:password@host:26379,host2:26379/service/0``; ``options`` are those of its query.

    Raises:
        InvalidSetting: says what is missing.
    """
    shown = without_password(place)
    parts = parts_of(place)
    who, _, hosts = parts.netloc.rpartition("@")
    path = re.fullmatch(r"/([^/]+)(?:/([0-9]{1,4}))?", parts.path)
    if path is None or not hosts:
        raise InvalidSetting("url", f"{shown} is not like redis+sentinel://host:26379,host2:26379/service/0")
    found = hosts_of(hosts, shown, PORT)
    user, _, password = who.partition(":")
    told = {"username": unquote(user), "password": unquote(password)}
    options = {**options, "db": int(path[2] or 0), **{name: value for name, value in told.items() if value}}
    return SentinelEndpoint(shown, redis.Connection, redis.asyncio.Connection, options, tuple(found), unquote(path[1]))


def of_sentinel_pool(pool: Any, options: dict[str, Any]) -> SentinelEndpoint:
    """The service that a client made by ``Sentinel.master_for`` is for."""
    manager, service = pool.sentinel_manager, str(pool.service_name)
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    found = tuple((str(kwargs["host"]), int(kwargs["port"])) for kwargs in asked)
    hosts = ",".join(f"{host}:{port}" for host, port in found)
    url = f"redis+sentinel://{hosts}/{service}/{options.get('db', 0)}"
    options = {name: value for name, value in options.items() if name not in ("connection_pool", "host", "port")}
    return SentinelEndpoint(url, redis.Connection, redis.asyncio.Connection, options, found, service)


__all__ = ["SentinelEndpoint", "close_sentinels", "of_sentinel_pool", "of_sentinel_url"]
