"""Many dead letters on a real server: every way to look at them, in commands that hold nobody up; and the purge."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from _letters import SPAN_MS, fill  # of benchmarks/

from deadletter import DeadLetterQueue, Query

from ..redis_servers import Server, debian_program

pytestmark = pytest.mark.anyio
log = logging.getLogger(__name__)

SLOW_US = 5_000
UNBOUNDED = {"keys", "smembers", "hgetall", "scan", "hscan", "sscan", "zscan", "hkeys", "hvals", "sort"}
CHANCE = 500  # one of so many steps may be held up by whatever else runs here
TRIES = 10  # others use this machine: what is slow is so each time


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(debian_program(), "--slowlog-log-slower-than", str(SLOW_US), "--slowlog-max-len", "1000")
    yield server
    server.end()


def slow(client: redis.Redis) -> list[list[bytes]]:
    """The commands that the server held against us since it was last asked."""
    entries = client.slowlog_get(1000)
    client.slowlog_reset()
    return [entry["command"].split(b" ") for entry in entries]


def mean_us(client: redis.Redis) -> float:
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def cpu_us(client: redis.Redis) -> float:
    """What the server's main thread has used."""
    told = client.info("cpu")
    return 1e6 * float(told["used_cpu_user_main_thread"] + told["used_cpu_sys_main_thread"])


def names(client: redis.Redis) -> set[str]:
    """The commands that ran since the statistics were reset, those inside scripts among them."""
    return {name.removeprefix("cmdstat_").lower() for name in client.info("commandstats")}


def commands(monitor: Any) -> list[str]:
    """What the server was asked, by us and by scripts, until a PING."""
    told: list[str] = []
    while not (command := monitor.next_command()["command"]).startswith("PING"):
        told.append(command)
    return told


async def test_what_a_user_types_is_never_a_pattern_of_the_server(server: Server) -> None:
    """Globs and texts that mean something to MATCH are looked for by us, however a query puts them."""
    typed = "*[a-z]?x"
    asked = (
        Query(type=f"{typed}*"),
        Query(error_contains=typed),
        Query(payload={"customer.id": typed}),
        Query(fingerprint=typed),
        Query(metadata={"m": typed}),
    )
    async with DeadLetterQueue(server.url()) as dlq:
        await fill(dlq, 20)
        with server.client() as client, client.monitor() as monitor:
            for query in asked:
                assert (await dlq.list(query)).items == []
                assert await dlq.groups(query) == []
                assert (await dlq.purge(query)).changed == 0
            client.ping()
            told = commands(monitor)
    assert told
    assert not [command for command in told if " MATCH " in command.upper()]
    assert not {command.split(" ")[0].lower() for command in told} & (UNBOUNDED - {"hgetall"})


async def quick(name: str, client: redis.Redis, call: Callable[[], Awaitable[object]]) -> None:
    """Reads whose every command is short, or is so when it is sent once more: it runs alone then."""
    slow(client)
    client.config_resetstat()
    await call()
    assert names(client) & UNBOUNDED <= {"hgetall"}, name  # counts.lua, of short hashes
    for command in slow(client):
        for _ in range(TRIES):
            client.execute_command(*command)
            if not slow(client):
                break
        else:
            pytest.fail(f"{name}: slow {TRIES + 1} times in a row: {command}")


async def look(dlq: DeadLetterQueue, client: redis.Redis, n: int) -> None:
    first = await dlq.list()
    assert first.total == n
    asked = {
        "all": Query(),
        "type": Query(type="type-3"),
        "glob": Query(type="*-3"),
        "priority": Query(priority="high"),
        "fingerprint": Query(fingerprint=f"{7:016x}"),
        "reason": Query(reason="retries_exhausted"),
        "time": Query(older_than=timedelta(milliseconds=SPAN_MS // 2)),
        "type and priority": Query(type="type-3", priority="high"),
        "text": Query(error_contains=f"HOST {n - 1}"),
        "text that is nowhere": Query(error_contains="nobody *wrote* this"),
        "payload": Query(payload={"customer.id": n}),
    }
    for name, query in asked.items():

        async def page(query: Query = query) -> None:
            await dlq.list(query)

        await quick(name, client, page)
    await quick("next page", client, lambda: dlq.list(cursor=first.next_cursor))
    assert [record.id async for record in dlq.scan(Query(payload={"customer.id": 1}))] == ["letter-000000000"]
    for by in ("fingerprint", "type", "reason", "error_type"):
        groups = await dlq.groups(by=by)
        assert sum(group.count for group in groups) == n
        await quick(f"groups by {by}", client, lambda by=by: dlq.groups(by=by))


@pytest.mark.parametrize(
    "n", [pytest.param(50_000, marks=pytest.mark.full), pytest.param(1_000_000, marks=pytest.mark.soak)]
)
async def test_no_look_takes_long(n: int, server: Server) -> None:
    """A read over 5 ms each time that it is sent is long; nothing lists keys, members or whole hashes of what grows."""
    async with DeadLetterQueue(server.url()) as dlq:
        with server.client() as client:
            await fill(dlq, n)
            client.config_resetstat()
            await look(dlq, client, n)
            await purge(dlq, client, n)


async def purge(dlq: DeadLetterQueue, client: redis.Redis, n: int) -> None:
    """Its steps cannot be sent again: what the server's own thread took for them says whether others held them up."""
    slow(client)
    client.config_resetstat()
    before = cpu_us(client)
    assert (await dlq.purge(everything=True)).changed == n
    steps = int(client.info("commandstats")["cmdstat_evalsha"]["calls"])
    own_us, wall_us, held = (cpu_us(client) - before) / steps, mean_us(client), len(slow(client))
    told = "purge of %d: %d steps, %.0f µs of CPU and %.0f µs each, %d over 5 ms"
    log.info(told, n, steps, own_us, wall_us, held)
    assert own_us < SLOW_US
    if wall_us < own_us:  # nobody took the processor away: the trip is counted in the one and not in the other
        assert held <= steps // CHANCE
    assert names(client) & UNBOUNDED <= {"hgetall"}
    assert (await dlq.stats()).by_state["dead"] == 0
