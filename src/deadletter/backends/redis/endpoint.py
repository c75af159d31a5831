"""Which server, and how to make a client for it, synchronous or asyncio, from a URL or from a client that was given.

A given client is only read: its connection class and arguments make clients of our own, so that it is never mutated,
never closed, never held up by our pipelines, and its ``decode_responses`` or retries mean nothing here.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, TypeAlias
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

import attrs
import redis
import redis.asyncio
import redis.asyncio.connection as asynchronous
import redis.connection as synchronous
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from ...model.errors import InvalidSetting
from .. import without_password

CONNECTIONS = 16  # of one event loop; who finds all busy waits
_PATIENCE = 20.0  # seconds for a free one


TWINS: dict[type, type] = {
    synchronous.Connection: asynchronous.Connection,
    synchronous.SSLConnection: asynchronous.SSLConnection,
    synchronous.UnixDomainSocketConnection: asynchronous.UnixDomainSocketConnection,
}
TWINS |= {twin: this for this, twin in TWINS.items()}
# What is ours to decide, or belongs to the pool that it was read from.
_NOT_TAKEN = (
    "retry",
    "decode_responses",
    "encoding",
    "legacy_responses",
    "parser_class",
    "command_packer",
    "event_dispatcher",
    "himport_registry",
    "maint",
    "orig_",
    "oss_",
    "cache",
    "max_connections",
    "timeout",
)
_OCSP = ("ssl_validate_ocsp", "ssl_ocsp")  # which asyncio's connections do not know, not even to be off
_parse_url: Any = synchronous.parse_url
Client: TypeAlias = "redis.Redis | redis.asyncio.Redis | redis.RedisCluster | redis.asyncio.RedisCluster"
_OPTIONS = ("shards", "durability", "allow_eviction")


@attrs.frozen
class Endpoint:
    """One server.

    Attributes:
        url: for messages; without a password.
        sync_class, async_class: how to connect; None where only the other kind is known.
        options: arguments of a connection.
    """

    url: str
    sync_class: type | None
    async_class: type | None
    options: dict[str, Any] = attrs.field(repr=False)

    def sync_client(self) -> redis.Redis:
        """A client of our own, for threads."""
        make_pool: Any = redis.BlockingConnectionPool  # redis-py annotates only parts of itself
        pool = make_pool(
            max_connections=CONNECTIONS,
            timeout=_PATIENCE,
            connection_class=self.sync_class,
            retry=Retry(NoBackoff(), 0),
            **self.options,
        )
        return redis.Redis(connection_pool=pool)

    def async_client(self) -> redis.asyncio.Redis:
        """A client of our own, for one asyncio loop."""
        make_pool: Any = redis.asyncio.BlockingConnectionPool
        pool = make_pool(
            max_connections=CONNECTIONS,
            timeout=_PATIENCE,
            connection_class=self.async_class,
            retry=AsyncRetry(NoBackoff(), 0),
            **self.options,
        )
        return redis.asyncio.Redis(connection_pool=pool)


def is_client(value: object) -> bool:
    """Whether it is a client that an Endpoint can be read from."""
    return isinstance(value, redis.Redis | redis.asyncio.Redis | redis.RedisCluster | redis.asyncio.RedisCluster)


def of_client(client: Client) -> Endpoint:
    """The server, or the cluster, that a client is for."""
    if isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        from .cluster import of_cluster_client

        return of_cluster_client(client)
    pool: Any = client.connection_pool
    options = kept_options(pool.connection_kwargs)
    if hasattr(pool, "sentinel_manager"):
        from .sentinel import of_sentinel_pool

        return of_sentinel_pool(pool, options)
    this: type = pool.connection_class
    is_async = isinstance(client, redis.asyncio.Redis)
    twin = TWINS.get(this)
    if inspect.iscoroutinefunction(options.get("redis_connect_func")) or any(
        name.startswith(_OCSP) for name in options
    ):
        twin = None
    return Endpoint(
        url=_shown(options, secure=issubclass(this, synchronous.SSLConnection | asynchronous.SSLConnection)),
        sync_class=twin if is_async else this,
        async_class=this if is_async else twin,
        options=options,
    )


def of_url(url: str) -> tuple[Endpoint, dict[str, str]]:
    """The server that a URL names, and those of its options that are ours.

    Raises:
        InvalidSetting: for a URL that redis-py cannot read.
    """
    place, _, asked = url.partition("?")
    query = parse_qsl(asked, keep_blank_values=True)
    ours = {name: value for name, value in query if name in _OPTIONS}
    rest = urlencode([pair for pair in query if pair[0] not in _OPTIONS])
    theirs = f"{place}?{rest}" if rest else place
    if place.startswith("redis+sentinel:"):
        from .sentinel import of_sentinel_url

        return of_sentinel_url(place, _read(f"redis://?{rest}")), ours
    if place.startswith("redis+cluster:"):
        from .cluster import of_cluster_url

        return of_cluster_url(place, _read(f"redis://?{rest}")), ours
    options = _read(theirs)
    if place.startswith("unix:") and not options.get("path"):
        raise InvalidSetting(
            "url", f"{without_password(url)} names no socket; write it like unix:///run/redis.sock?db=0"
        )
    sync_class = options.pop("connection_class", synchronous.Connection)
    shown = without_password(theirs)
    return Endpoint(url=shown, sync_class=sync_class, async_class=TWINS[sync_class], options=options), ours


def kept_options(given: dict[str, Any]) -> dict[str, Any]:
    """Those arguments of a client's connections that ours take as well."""
    return {
        name: value
        for name, value in given.items()
        if not name.startswith(_NOT_TAKEN) and value is not None and (value or not name.startswith(_OCSP))
    }


def parts_of(place: str) -> SplitResult:
    """A URL without its query, in parts; raises InvalidSetting where brackets do not match."""
    try:
        return urlsplit(place)
    except ValueError as error:
        raise InvalidSetting("url", f"{without_password(place)}: {error}") from None


def hosts_of(hosts: str, shown: str, port: int) -> list[tuple[str, int]]:
    """Read ``host:port,[::1],host3``; ``port`` is that of a host without one.

    Raises:
        InvalidSetting: names the one that cannot be read.
    """
    found: list[tuple[str, int]] = []
    for host in hosts.split(","):
        named = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?", host)
        if named is None:
            raise InvalidSetting("url", f"{shown}: {host!r} is no host:port")
        found.append((named[1].strip("[]"), int(named[2] or port)))
    return found


def _read(url: str) -> dict[str, Any]:
    """What redis-py reads in a URL."""
    try:
        options: dict[str, Any] = dict(_parse_url(url))
    except ValueError as error:
        raise InvalidSetting("url", f"{without_password(url)}: {error}") from error
    return {name: value for name, value in options.items() if not name.startswith(_NOT_TAKEN)}


def _shown(options: dict[str, Any], *, secure: bool) -> str:
    user, database = options.get("username") or "", options.get("db", 0)
    who = f"{quote(user, safe='')}:***@" if options.get("password") else f"{quote(user, safe='')}@" if user else ""
    if "path" in options:
        return f"unix://{who}{options['path']}?db={database}"
    scheme = "rediss" if secure else "redis"
    return f"{scheme}://{who}{options.get('host', 'localhost')}:{options.get('port', 6379)}/{database}"
