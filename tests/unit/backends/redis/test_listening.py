"""What a listener hears while servers come and go: it goes on by itself, and tells where it may have missed something."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from redis.exceptions import ConnectionError  # noqa: A004 - what an ear raises

from deadletter import BackendUnavailable, RedisBackend
from deadletter.backends.redis import wires
from deadletter.backends.redis.placement import packed
from deadletter.model.row import DEAD, EventRow, FailureRow, Hint, NewRow

from ....redis_servers import Server, valkey_program

pytestmark = pytest.mark.anyio

IDS = [f"id{n}" for n in range(12)]  # over three shards, some on each


def letter(id_: str) -> NewRow:
    return NewRow(
        id=id_, type="t", digest="d", body=b"{}", state=DEAD, reason="captured", history=[FailureRow(attempt=1)]
    )


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(valkey_program())
    yield made
    made.end()


@pytest.fixture(params=[1, 3], ids=["whole", "spread"])
async def backend(anyio_backend: str, request: pytest.FixtureRequest, server: Server) -> AsyncIterator[RedisBackend]:
    made = RedisBackend(server.url(), shards=request.param)
    yield made
    await made.aclose()


async def told(signals: Any, n: int) -> list[EventRow]:
    """The next ``n`` events; hints between them are passed over."""
    found: list[EventRow] = []
    with anyio.fail_after(20):
        while len(found) < n:
            this = await anext(signals)
            if isinstance(this, EventRow):
                found.append(this)
    return found


async def hinted(signals: Any) -> None:
    with anyio.fail_after(20):
        while not isinstance(await anext(signals), Hint):
            continue


async def restart(server: Server) -> None:
    await anyio.to_thread.run_sync(server.kill)
    await anyio.to_thread.run_sync(server.start)


async def test_one_whose_server_came_back_empty_tells_a_gap_and_goes_on(backend: RedisBackend, server: Server) -> None:
    async with backend.listen("q") as signals:
        await backend.insert("q", [letter(id_) for id_ in IDS])
        before = await told(signals, len(IDS))
        assert {event.task_id for event in before} == set(IDS)
        await restart(server)
        gaps = await told(signals, backend.shards)
        assert {gap.kind for gap in gaps} == {"gap"}
        assert (gaps[-1].seq, sum(gap.missed for gap in gaps)) == (0, len(IDS))
        await backend.insert("q", [letter("after")])
        [event] = await told(signals, 1)
        assert (event.kind, event.task_id, event.missed) == ("dead", "after", 0)
        assert event.seq > 0


async def test_numbers_that_were_given_a_second_time_are_a_gap(backend: RedisBackend, server: Server) -> None:
    """As after a failover to a replica that lacked the last events: they count on, and mean other things."""
    async with backend.listen("q") as signals:
        await backend.insert("q", [letter("first")])
        await told(signals, 1)
        with server.client() as client:
            client.flushdb()
        await backend.insert("q", [letter("first")])
        gap, event = await told(signals, 2)
    assert (gap.kind, event.kind, event.task_id) == ("gap", "dead", "first")
    assert gap.seq < event.seq


async def test_one_that_begins_again_after_a_lost_history_tells_a_gap(backend: RedisBackend) -> None:
    await backend.insert("q", [letter("a")])
    async with backend.listen("q", after=packed([5] * backend.shards)) as signals:
        gaps = await told(signals, backend.shards)
    assert {gap.kind for gap in gaps} == {"gap"}
    assert sum(gap.missed for gap in gaps) == 5 * backend.shards - 1


@pytest.mark.parametrize("backend", [1], indirect=True)
async def test_a_hint_tells_that_the_server_is_back(backend: RedisBackend, server: Server) -> None:
    """Who sleeps until something is due looks again: what was stored before we listened anew was told to nobody."""
    async with backend.listen("q") as signals:
        await restart(server)
        await hinted(signals)


async def hears(ear: wires.Ear) -> None:
    with anyio.fail_after(20):
        while await ear.hear() is None:
            continue


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silences are short."""
    monkeypatch.setattr(wires, "LISTEN", 0.2)
    monkeypatch.setattr(wires, "_LISTEN_THREAD", 0.05)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("backend", [1], indirect=True)
async def test_a_line_without_a_sign_of_life_is_given_up(backend: RedisBackend, server: Server) -> None:
    """A cut line looks like silence for ever, so it is asked; one that answers is kept."""
    ear = await backend._connections.listen("q")
    assert [await ear.hear() for _ in range(4)] == [None] * 4
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ConnectionError, match="no sign of life"):
            await hears(ear)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    await ear.close()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("backend", [1], indirect=True)
async def test_what_nobody_published_is_found_in_silence(backend: RedisBackend, server: Server) -> None:
    """A user may be allowed no channel: then a bell never rings."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "mute", "on", ">x", "~*", "+@all", "resetchannels")
    mute = RedisBackend(f"unix://mute:x@{server.socket}?db=0")
    async with backend.listen("q") as signals:
        await mute.insert("q", [letter("a")])
        await mute.insert("q", [letter("b")])
        assert [event.task_id for event in await told(signals, 2)] == ["a", "b"]
    await mute.aclose()


@pytest.mark.usefixtures("short")
async def test_one_whose_backend_is_closed_ends(backend: RedisBackend) -> None:
    """It connects to nothing anew behind the back of who closed it."""
    async with backend.listen("q") as signals:
        await backend.aclose()
        with pytest.raises(BackendUnavailable), anyio.fail_after(20):
            await anext(signals)
