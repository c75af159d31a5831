"""A primary that Sentinels name, and its failover."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import redis.asyncio.sentinel
import redis.sentinel

from deadletter import BackendUnavailable, InvalidSetting, RedisBackend
from deadletter.backends import backend_from_url
from deadletter.model.row import NewRow

from ....redis_sentinels import Trio


@pytest.mark.parametrize(
    ("url", "shown", "sentinels", "options"),
    [
        ("redis+sentinel://a/main", "redis+sentinel://a/main", (("a", 26379),), {"db": 0}),
        (
            "redis+sentinel://u:secret@a:1,[::1]:2/main/3?socket_timeout=1&durability=wait:1",
            "redis+sentinel://u:***@a:1,[::1]:2/main/3",
            (("a", 1), ("::1", 2)),
            {"db": 3, "username": "u", "password": "secret", "socket_timeout": 1.0},
        ),
    ],
)
def test_a_url_names_sentinels_and_a_service(url: str, shown: str, sentinels: Any, options: Any) -> None:
    backend = backend_from_url(url)
    assert isinstance(backend, RedisBackend)
    address: Any = backend._connections.endpoint
    assert (backend.url, address.sentinels, address.service, address.options) == (shown, sentinels, "main", options)


@pytest.mark.parametrize(
    "url", ["redis+sentinel://a", "redis+sentinel:///main", "redis+sentinel://a:b/main", "redis+sentinel://a/m/x"]
)
def test_a_bad_url_says_what_one_looks_like(url: str) -> None:
    with pytest.raises(InvalidSetting, match=r"redis\+sentinel://"):
        backend_from_url(url)


@pytest.mark.parametrize("module", [redis.sentinel, redis.asyncio.sentinel], ids=["sync", "async"])
def test_a_client_of_sentinels_is_read(module: Any) -> None:
    client = module.Sentinel([("a", 1), ("b", 2)]).master_for("main", db=4, password="secret")
    address: Any = RedisBackend(client)._connections.endpoint
    assert (address.url, address.sentinels) == ("redis+sentinel://a:1,b:2/main/4", (("a", 1), ("b", 2)))
    assert address.options["password"] == "secret"


@pytest.fixture
def trio_of_sentinels(tmp_path: Path) -> Iterator[Trio]:
    made = Trio(tmp_path)
    yield made
    made.end()


@pytest.mark.full
@pytest.mark.anyio
async def test_a_failover_is_followed(trio_of_sentinels: Trio) -> None:
    """12: with durability="wait:1" what was stored is there after the primary was killed."""
    backend = RedisBackend(trio_of_sentinels.url, durability="wait:1")
    await backend.insert("q", [NewRow(id="a", type="t", digest="x", body=b"body")])
    await anyio.to_thread.run_sync(trio_of_sentinels.primary.kill)
    with anyio.fail_after(40):
        while True:
            try:
                rows = await backend.load("q", ["a"])
                break
            except BackendUnavailable:
                await anyio.sleep(0.2)
    assert [row and row.body for row in rows] == [b"body"]
    await backend.aclose()
