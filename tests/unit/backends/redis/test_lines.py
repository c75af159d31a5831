"""Connections that scripts go over without redis-py."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
import redis
import redis.asyncio
from redis import exceptions

from deadletter import RedisBackend
from deadletter.backends.redis import lines
from deadletter.backends.redis.wires import LoopWire
from deadletter.model.row import NewRow

from ....redis_servers import valkey

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def new(id: str) -> NewRow:
    return NewRow(id=id, type="t", digest="x", body=b"body")


async def wire_of(backend: RedisBackend) -> LoopWire:
    wire = await backend._connections._here()
    assert isinstance(wire, LoopWire)
    return wire


async def lines_of(backend: RedisBackend) -> lines.Lines:
    held = (await wire_of(backend))._lines
    assert held is not None
    return held


async def stored(backend: RedisBackend, *ids: str) -> bool:
    return [row and row.id for row in await backend.load("q", ids)] == list(ids)


async def test_scripts_one_after_the_other_share_a_line() -> None:
    backend = RedisBackend(valkey().emptied())
    for id_ in "abc":
        await backend.insert("q", [new(id_)])
    assert await stored(backend, "a", "b", "c")
    assert len((await lines_of(backend))._free) == 1
    await backend.aclose()


async def test_a_line_that_the_server_cut_is_replaced() -> None:
    backend = RedisBackend(valkey().emptied())
    await backend.insert("q", [new("a")])
    [line] = (await lines_of(backend))._free
    with valkey().client() as server:
        server.client_kill_filter(_type="normal", skipme=True)
    while not line.broken:
        await anyio.sleep(0.001)
    await backend.insert("q", [new("b")])
    assert await stored(backend, "a", "b")
    assert line not in (await lines_of(backend))._free
    await backend.aclose()


async def test_who_is_cancelled_by_asyncio_takes_nobody_elses_answer() -> None:
    """Its answer is yet to come on that connection, which nobody else may use."""
    backend = RedisBackend(valkey().emptied())
    await backend.insert("q", [new("a")])
    [line] = (await lines_of(backend))._free
    with valkey().client() as server:
        server.client_pause(60_000, all=False)
        task = asyncio.create_task(backend.insert("q", [new("b")]))
        while not server.info("clients")["blocked_clients"]:
            await anyio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.client_unpause()
    assert line.broken
    assert await stored(backend, "a")
    await backend.aclose()


async def test_who_finds_all_busy_waits() -> None:
    backend = RedisBackend(valkey().emptied())
    await backend.insert("q", [new("first")])
    ids = [f"{n}" for n in range(3 * lines.LINES)]
    async with anyio.create_task_group() as group:
        for id_ in ids:
            group.start_soon(backend.insert, "q", [new(id_)])
    assert await stored(backend, *ids)
    assert 1 < len((await lines_of(backend))._free) <= lines.LINES
    await backend.aclose()


async def test_a_redis_py_that_keeps_its_stream_elsewhere_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "WRITER", "_elsewhere")
    backend = RedisBackend(valkey().emptied())
    await backend.insert("q", [new("a")])
    assert not (await lines_of(backend)).held
    assert await stored(backend, "a")
    await backend.aclose()


async def test_a_connection_of_the_users_own_class_is_used_as_it_is() -> None:
    class Own(redis.asyncio.UnixDomainSocketConnection):
        pass

    url = urlsplit(valkey().emptied())
    database = int(parse_qs(url.query)["db"][0])
    pool = redis.asyncio.ConnectionPool(connection_class=Own, path=url.path, db=database)
    backend = RedisBackend(redis.asyncio.Redis(connection_pool=pool))
    await backend.insert("q", [new("a")])
    assert (await wire_of(backend))._lines is None
    assert await stored(backend, "a")
    await backend.aclose()
    await pool.aclose()


async def test_a_line_that_was_idle_for_longer_than_the_user_trusts_is_made_anew() -> None:
    backend = RedisBackend(f"{valkey().emptied()}&health_check_interval=1000")
    await backend.insert("q", [new("a")])
    held = await lines_of(backend)
    [line] = held._free
    line.idle_since -= 1001
    await backend.insert("q", [new("b")])
    assert line.broken
    assert line not in held._free
    await backend.aclose()


class Transport:
    """Stands in for a socket."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def get_protocol(self) -> asyncio.Protocol:
        return asyncio.Protocol()

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        self.sent += data

    def abort(self) -> None:
        self.closed = True


class Stream:
    def __init__(self, transport: Transport) -> None:
        self.transport = transport


class Held:
    """Stands in for a connection of redis-py."""

    def __init__(self, socket_timeout: float | None = None) -> None:
        self._writer = Stream(Transport())
        self.socket_timeout = socket_timeout


def line_and_transport(**options: Any) -> tuple[lines.Line, Transport]:
    connection = Held(**options)
    return lines.Line(connection), connection._writer.transport


async def test_answers_may_come_in_pieces_and_pushes_between_them() -> None:
    line, transport = line_and_transport()
    waiting = line.ask(b"*2\r\n", 2)
    assert transport.sent == b"*2\r\n"
    for piece in (b">2\r\n+invalidate\r\n*0\r\n:1\r", b"\n>1\r\n+x\r\n-ERR no", b"\r\n"):
        line.data_received(piece)
    first, second = await waiting
    assert first == 1
    assert isinstance(second, exceptions.ResponseError)


@pytest.mark.parametrize("told", [b":1\r\n", b"!!!\r\n"], ids=["an answer", "nonsense"])
async def test_what_nobody_asked_for_ends_a_line(told: bytes) -> None:
    line, transport = line_and_transport()
    line.data_received(told)
    assert line.broken
    assert transport.closed


async def test_no_answer_in_time_is_an_error() -> None:
    line, transport = line_and_transport(socket_timeout=0.01)
    with pytest.raises(exceptions.TimeoutError):
        await line.ask(b"x", 1)
    assert transport.closed


async def test_an_earlier_trip_ends_no_later_one() -> None:
    """One timer serves many trips: each has the whole time."""
    line, _ = line_and_transport(socket_timeout=3600)
    first = line.ask(b"x", 1)
    line.data_received(b":1\r\n")
    await first
    second = line.ask(b"x", 1)
    line._look()
    assert not second.done()
    line.data_received(b":2\r\n")
    assert await second == [2]


@pytest.mark.parametrize("told", [b"-READONLY You can't write\r\n", b"-LOADING wait\r\n", b"-NOAUTH who\r\n"])
async def test_a_server_that_is_not_the_one_to_talk_to_is_left(told: bytes) -> None:
    """The next connection asks Sentinels, or the name server, anew."""
    released = []

    class Pool:
        async def get_connection(self) -> Any:
            connection = Held()
            transport = connection._writer.transport
            transport.write = lambda _: transport.protocol.data_received(told)  # type: ignore[method-assign,attr-defined]
            connection.disconnect = disconnect  # type: ignore[attr-defined]
            return connection

        async def release(self, connection: Any) -> None:
            released.append(connection)

    async def disconnect(*, nowait: bool) -> None:
        assert nowait

    held = lines.Lines(Pool())
    [answer] = await held.ask([("EVALSHA", "x", 0)]) or []
    assert isinstance(answer, exceptions.RedisError)
    assert len(released) == 1
    assert held._free == []
