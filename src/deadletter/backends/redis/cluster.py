"""Which nodes a Redis Cluster is asked through first, from a URL or from a client that was given."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import unquote

import attrs
import redis
import redis.asyncio
import redis.asyncio.connection as asynchronous
import redis.connection as synchronous

from ...model.errors import InvalidSetting
from .. import without_password
from .endpoint import TWINS, Endpoint, hosts_of, kept_options, parts_of

PORT = 6379
Address: TypeAlias = tuple[str, int]
_EXAMPLE = "redis+cluster://host:6379,host2:6379"
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
# Of a cluster client, not of a connection.
_NOT_OF_A_NODE = ("ssl", "host", "port", "db", "connection_class", "redis_connect_func", "response_callbacks")


@attrs.frozen
class ClusterEndpoint(Endpoint):
    """A cluster.

    Attributes:
        nodes: host and port of those that are asked first.
        remap: where an address that the cluster announces is really reached.
    """

    nodes: tuple[Address, ...]
    remap: Callable[[Address], Address] | None = None

    def node(self, address: Address) -> Endpoint:
        """One node of it."""
        host, port = address
        options = {**self.options, "host": host, "port": port}
        return Endpoint(_shown(address), self.sync_class, self.async_class, options)


def _shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def of_cluster_url(place: str, options: dict[str, Any]) -> ClusterEndpoint:
    """Read ``redis+cluster://user:password@host:6379,host2:6379``; ``options`` are those of its query.

    ``ssl=true`` means TLS.

    Raises:
        InvalidSetting: says what is missing.
    """
    shown = without_password(place)
    parts = parts_of(place)
    who, _, hosts = parts.netloc.rpartition("@")
    if not hosts or not re.fullmatch(r"/?0?", parts.path):
        raise InvalidSetting("url", f"{shown} is not like {_EXAMPLE}; a cluster has one database, 0")
    secure = str(options.get("ssl", "false")).lower()
    if secure not in _TRUTH:
        raise InvalidSetting("url", f"{shown}: ssl={secure} means nothing; write true or false")
    user, _, password = who.partition(":")
    told = {"username": unquote(user), "password": unquote(password)}
    options = {name: value for name, value in options.items() if name not in _NOT_OF_A_NODE}
    options |= {name: value for name, value in told.items() if value}
    return _endpoint(shown, options, tuple(hosts_of(hosts, shown, PORT)), secure=_TRUTH[secure])


def of_cluster_client(client: redis.RedisCluster | redis.asyncio.RedisCluster) -> ClusterEndpoint:
    """The cluster that a client is for."""
    nodes: Any = client.nodes_manager
    kwargs: dict[str, Any] = nodes.connection_kwargs
    options = {name: value for name, value in kept_options(kwargs).items() if name not in _NOT_OF_A_NODE}
    connect = getattr(client, "user_on_connect_func", None)  # redis-py puts its own before it
    if connect is not None:
        options["redis_connect_func"] = connect
    this: type = kwargs.get("connection_class") or (
        synchronous.SSLConnection if kwargs.get("ssl") else synchronous.Connection
    )
    secure = issubclass(this, synchronous.SSLConnection | asynchronous.SSLConnection)
    found = tuple((str(node.host), int(node.port)) for node in nodes.startup_nodes.values())
    url = f"redis+cluster://{','.join(_shown(address) for address in found)}"
    made = _endpoint(f"{url}?ssl=true" if secure else url, options, found, secure=secure, remap=nodes.address_remap)
    if this in TWINS and not inspect.iscoroutinefunction(connect):
        return made
    is_async = isinstance(client, redis.asyncio.RedisCluster)
    return attrs.evolve(made, sync_class=None if is_async else this, async_class=this if is_async else None)


def _endpoint(
    url: str,
    options: dict[str, Any],
    nodes: tuple[Address, ...],
    *,
    secure: bool,
    remap: Callable[[Address], Address] | None = None,
) -> ClusterEndpoint:
    sync_class: type = synchronous.SSLConnection if secure else synchronous.Connection
    return ClusterEndpoint(url, sync_class, TWINS[sync_class], options, nodes, remap)


__all__ = ["Address", "ClusterEndpoint", "of_cluster_client", "of_cluster_url"]
