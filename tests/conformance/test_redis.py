from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from deadletter.backends.redis import RedisBackend
from deadletter.interfaces import Backend, Clock
from deadletter.testing import BackendConformance, backend_state_machine

from ..redis_cluster import debian_cluster, valkey_cluster
from ..redis_sentinels import sentinels
from ..redis_servers import debian, valkey


class _OnAStore(BackendConformance):
    """``store_at`` is whatever a RedisBackend takes, on a database that holds nothing."""

    @pytest.fixture
    def make_backend(self, store_at: Any) -> Callable[[Clock], Backend]:
        return lambda clock: RedisBackend(store_at, clock=clock)

    @pytest.fixture
    def reopen(self, store_at: Any) -> Callable[[Backend, Clock], Backend]:
        return lambda _, clock: RedisBackend(store_at, clock=clock)


class TestValkeyByClient(_OnAStore):
    """By a synchronous client that decodes, as the guide makes it; in threads, over RESP2."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "trio"

    @pytest.fixture
    def store_at(self) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(valkey().emptied(), decode_responses=True, protocol=2) as client:
            yield client


class TestValkeyByAsyncClient(_OnAStore):
    """By an asyncio client, over RESP3."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def store_at(self) -> Iterator[redis.asyncio.Redis]:
        client = redis.asyncio.Redis.from_url(valkey().emptied(), decode_responses=True)
        yield client
        asyncio.run(client.aclose())


@pytest.mark.full
class TestRedis7ByURL(_OnAStore):
    """The oldest that we take, as Debian has it, on both event loops."""

    @pytest.fixture
    def store_at(self) -> str:
        return debian().emptied()


@pytest.mark.full
class TestValkeyClusterByClient(_OnAStore):
    """Three primaries, by a synchronous client that decodes; in threads."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "trio"

    @pytest.fixture
    def store_at(self) -> Iterator[redis.RedisCluster]:
        client = redis.RedisCluster(**valkey_cluster().emptied().startup, decode_responses=True)
        yield client
        client.close()


@pytest.mark.full
class TestRedis7ClusterByAsyncClient(_OnAStore):
    """Three primaries and three replicas, by an asyncio client."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def store_at(self) -> Iterator[redis.asyncio.RedisCluster]:
        async def made() -> redis.asyncio.RedisCluster:
            return redis.asyncio.RedisCluster(**debian_cluster().emptied().startup)

        client = asyncio.run(made())
        yield client
        asyncio.run(client.aclose())


@pytest.mark.full
class TestRedis7ClusterByURL(_OnAStore):
    """Likewise by a URL, on both event loops."""

    @pytest.fixture
    def store_at(self) -> str:
        return debian_cluster().emptied().url


class _Together(_OnAStore):
    """On asyncio, which each kind of client serves in its own way."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(params=[True, False], ids=["decodes", "bytes"])
    def decodes(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)


@pytest.mark.full
class TestRedis7ByEachClient(_Together):
    """A synchronous client that decodes over RESP3, or does not over RESP2."""

    @pytest.fixture
    def store_at(self, decodes: bool) -> Iterator[redis.Redis]:
        protocol = 3 if decodes else 2
        with redis.Redis.from_url(debian().emptied(), decode_responses=decodes, protocol=protocol) as client:
            yield client


@pytest.mark.full
class TestRedis7ByEachAsyncClient(_Together):
    """An asyncio client the other way round."""

    @pytest.fixture
    def store_at(self, decodes: bool) -> Iterator[redis.asyncio.Redis]:
        protocol = 2 if decodes else 3
        client = redis.asyncio.Redis.from_url(debian().emptied(), decode_responses=decodes, protocol=protocol)
        yield client
        asyncio.run(client.aclose())


@pytest.mark.full
class TestRedis7ClusterByClient(_Together):
    """A synchronous client of a cluster that does not decode."""

    @pytest.fixture
    def store_at(self) -> Iterator[redis.RedisCluster]:
        client = redis.RedisCluster(**debian_cluster().emptied().startup, protocol=3)
        yield client
        client.close()


@pytest.mark.full
class TestValkeyClusterByAsyncClient(_Together):
    """An asyncio client of a cluster that decodes."""

    @pytest.fixture
    def store_at(self) -> Iterator[redis.asyncio.RedisCluster]:
        async def made() -> redis.asyncio.RedisCluster:
            return redis.asyncio.RedisCluster(**valkey_cluster().emptied().startup, decode_responses=True, protocol=2)

        client = asyncio.run(made())
        yield client
        asyncio.run(client.aclose())


@pytest.mark.full
class TestSentinelByURL(_OnAStore):
    """A primary that Sentinels name, on both event loops."""

    @pytest.fixture
    def store_at(self) -> str:
        return sentinels().emptied().url


@pytest.mark.full
class TestSentinelByClient(_Together):
    """A client that redis-py made from Sentinels."""

    @pytest.fixture
    def store_at(self) -> Iterator[redis.Redis]:
        asked = redis.sentinel.Sentinel([("127.0.0.1", port) for port in sentinels().emptied().ports])
        with asked.master_for("main", decode_responses=True) as client:
            yield client
        for sentinel in asked.sentinels:
            sentinel.close()


@pytest.mark.full
class TestSentinelByAsyncClient(_Together):
    """Likewise on asyncio, and it does not decode."""

    @pytest.fixture
    def store_at(self) -> Iterator[redis.asyncio.Redis]:
        asked = redis.asyncio.sentinel.Sentinel([("127.0.0.1", port) for port in sentinels().emptied().ports])
        client = asked.master_for("main")
        yield client

        async def closed() -> None:
            await client.aclose(close_connection_pool=True)
            for sentinel in asked.sentinels:
                await sentinel.aclose()

        asyncio.run(closed())


class TestFakeRedis(_OnAStore):
    """What users test with; a class of connections that only threads can use."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def store_at(self) -> Iterator[redis.Redis]:
        with fakeredis.FakeRedis() as client:
            yield client


class TestShards(BackendConformance):
    """A queue over three shards of one server."""

    ordered = False

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def store_at(self) -> str:
        return valkey().emptied()

    @pytest.fixture
    def make_backend(self, store_at: str) -> Callable[[Clock], Backend]:
        return lambda clock: RedisBackend(store_at, clock=clock, shards=3)

    @pytest.fixture
    def reopen(self, store_at: str) -> Callable[[Backend, Clock], Backend]:
        return lambda _, clock: RedisBackend(store_at, clock=clock, shards=3)


TestValkeyMachine = backend_state_machine(
    lambda clock: RedisBackend(valkey().emptied(), clock=clock), examples=25
).TestCase
TestShardsMachine = backend_state_machine(
    lambda clock: RedisBackend(valkey().emptied(), clock=clock, shards=3), examples=15, ordered=False
).TestCase
TestRedis7Machine = pytest.mark.full(
    backend_state_machine(lambda clock: RedisBackend(debian().emptied(), clock=clock), examples=25).TestCase
)
