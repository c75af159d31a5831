"""Which server, from a URL or a client; nothing here connects."""

from __future__ import annotations

import asyncio
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio

from deadletter import DeadLetterQueue, InvalidSetting, InvalidTask, MissingExtra, RedisBackend
from deadletter.backends import backend_from_url
from deadletter.backends.redis import endpoint


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://user:secret@host:6380/3", "redis://user:***@host:6380/3"),
        ("rediss://:secret@host", "rediss://:***@host"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("redis://h?allow_eviction=1&durability=wait:1&shards=1&db=2", "redis://h?db=2"),
    ],
)
def test_a_url_names_a_server(url: str, shown: str) -> None:
    backend = backend_from_url(url)
    assert isinstance(backend, RedisBackend)
    assert backend.url == shown
    assert "secret" not in repr(backend._connections.endpoint)


def test_a_url_keeps_what_is_said_to_redis_py() -> None:
    address, ours = endpoint.of_url("rediss://u:p%40@host:7000/4?socket_timeout=2&durability=wait:2&max_connections=3")
    assert ours == {"durability": "wait:2"}
    assert address.options == {
        "host": "host",
        "port": 7000,
        "db": 4,
        "username": "u",
        "password": "p@",
        "socket_timeout": 2.0,
    }
    assert address.async_class is redis.asyncio.SSLConnection


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h:port", "url: redis://h:port: "),
        ("unix://", "names no socket"),
        ("redis://h?shards=many", "shards=many is no number"),
        ("redis://h?shards=65", "65 is no number of shards; give 1 to 64"),
        ("redis://h?allow_eviction=yes", "write 0 or 1"),
        ("redis://h?durability=wait", 'not like "wait:1"'),
        ("redis://h?socket_timeout=soon", "Invalid value"),
    ],
)
def test_a_bad_url_says_what_is_wrong(url: str, told: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        backend_from_url(url)
    assert told in str(caught.value)


def clients() -> list[Any]:
    return [
        redis.Redis(host="h", port=7, db=3, password="secret", decode_responses=True),
        redis.asyncio.Redis(host="h", port=7, db=3, password="secret", decode_responses=True),
        redis.Redis.from_url("redis://:secret@h:7/3", decode_responses=True),
    ]


@pytest.mark.parametrize("client", clients(), ids=["sync", "async", "url"])
def test_a_client_is_read_and_left_alone(client: Any) -> None:
    before = dict(client.connection_pool.connection_kwargs)
    backend = RedisBackend(client)
    assert backend.url == "redis://:***@h:7/3"
    address = backend._connections.endpoint
    assert "decode_responses" not in address.options
    assert {name: address.options[name] for name in ("host", "port", "db", "password")} == {
        "host": "h",
        "port": 7,
        "db": 3,
        "password": "secret",
    }
    assert client.connection_pool.connection_kwargs == before
    assert not client.connection_pool._available_connections


def test_both_kinds_of_client_can_be_made_of_either() -> None:
    for client in clients():
        address = endpoint.of_client(client)
        assert address.sync_class is redis.connection.Connection
        assert address.async_class is redis.asyncio.Connection


def test_a_connection_of_its_own_kind_stays_so() -> None:
    """fakeredis and other stand-ins connect to nothing that the other kind could reach."""
    address = endpoint.of_client(fakeredis.FakeRedis())
    assert (address.sync_class is not None, address.async_class) == (True, None)
    client = fakeredis.FakeAsyncRedis()
    address = endpoint.of_client(client)
    assert (address.sync_class, address.async_class is not None) == (None, True)


def test_a_coroutine_that_connects_stays_on_asyncio() -> None:
    async def on_connect(_: Any) -> None: ...

    client = redis.asyncio.Redis(redis_connect_func=on_connect)
    assert endpoint.of_client(client).sync_class is None


@pytest.mark.parametrize("client", clients(), ids=["sync", "async", "url"])
def test_a_queue_takes_a_client(client: Any) -> None:
    dlq = DeadLetterQueue(client)
    assert repr(dlq) == "<DeadLetterQueue 'default' on redis://:***@h:7/3>"


@pytest.mark.parametrize("thing", [object(), 7, {}])
def test_a_queue_refuses_anything_else(thing: Any) -> None:
    with pytest.raises(InvalidTask, match="a redis.Redis, or a Backend"):
        DeadLetterQueue(thing)


def test_another_class_of_redis_py_is_refused_by_name() -> None:
    pool = redis.ConnectionPool()
    with pytest.raises(InvalidSetting, match="ConnectionPool is no client of redis-py"):
        DeadLetterQueue(pool)  # type: ignore[arg-type]


def test_without_redis_py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    for name in [name for name in sys.modules if name.startswith("deadletter.backends.redis")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.split(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtra, match=r"deadletter-sdk\[redis\]"):
        importlib.import_module("deadletter.backends.redis")


def test_making_a_backend_connects_to_nothing() -> None:
    asyncio.run(RedisBackend("redis://nobody.invalid").aclose())


def test_a_client_that_checks_ocsp_serves_from_threads() -> None:
    """Asyncio's connections cannot check it: it is never left out in silence."""
    plain = endpoint.of_client(redis.Redis(ssl=True))
    assert not [name for name in plain.options if "ocsp" in name]
    assert plain.async_class is redis.asyncio.SSLConnection
    checking = endpoint.of_client(redis.Redis(ssl=True, ssl_validate_ocsp=True))
    assert (checking.options["ssl_validate_ocsp"], checking.async_class) == (True, None)
