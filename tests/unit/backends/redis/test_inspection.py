"""What is refused at open, and what doctor tells."""

from __future__ import annotations

from typing import Any

import pytest

from deadletter import BackendUnavailable, InvalidSetting, RedisBackend
from deadletter.backends.redis import inspection
from deadletter.model.errors import BackendError

from ....redis_servers import Server, valkey, valkey_program

pytestmark = pytest.mark.anyio

SAID = {"redis_version": "7.2.4", "aof_enabled": "1", "maxmemory_policy": "noeviction", "role": "master"}


def answering(info: dict[str, str], fsync: Any = "always") -> inspection.Command:
    async def command(*words: Any) -> Any:
        if words[0] == "INFO":
            return "".join(f"{name}:{value}\r\n" for name, value in info.items()).encode()
        if isinstance(fsync, Exception):
            raise fsync
        return [b"appendfsync", fsync.encode()]

    return command


async def levels(info: dict[str, str], fsync: Any = "always", durability: str | None = None) -> list[str]:
    facts = await inspection.ask(answering(info, fsync))
    return [finding.level for finding in inspection.findings(facts, durability=durability)]


async def test_a_careful_server_has_nothing_to_be_told() -> None:
    assert await levels(SAID) == []
    facts = await inspection.ask(answering(SAID))
    assert (facts.name, facts.version) == ("redis", "7.2.4")
    assert "power loss" in facts.durability


@pytest.mark.parametrize(
    ("changed", "fsync", "level"),
    [
        ({"aof_enabled": "0"}, "", "warning"),
        ({}, "everysec", "note"),
        ({}, "no", "note"),
        ({"maxmemory_policy": "volatile-lru"}, "always", "warning"),
        ({"maxmemory_policy": "allkeys-lru"}, "always", "error"),
        ({"role": "slave"}, "always", "error"),
    ],
)
async def test_what_could_lose_tasks_is_told(changed: dict[str, str], fsync: str, level: str) -> None:
    assert await levels(SAID | changed, fsync) == [level]


async def test_too_few_replicas_are_told() -> None:
    assert await levels(SAID, durability="wait:1") == ["error"]
    assert await levels(SAID | {"connected_slaves": "1"}, durability="wait:1") == []


async def test_a_server_that_forbids_config_is_believed_in_general() -> None:
    facts = await inspection.ask(answering(SAID, BackendError("NOPERM")))
    assert facts.durability == "AOF; how often it is flushed cannot be asked here"


async def test_a_server_that_says_nothing_is_unknown() -> None:
    async def silent(*_: Any) -> Any:
        raise BackendError("unknown command 'info'")

    facts = await inspection.ask(silent)
    assert "unknown" in facts.durability
    inspection.refuse(facts, "redis://h", allow_eviction=False, durability=None)


async def test_a_server_that_is_away_is_away() -> None:
    async def away(*_: Any) -> Any:
        raise BackendUnavailable("redis://h cannot be reached: no")

    with pytest.raises(BackendUnavailable):
        await inspection.ask(away)


@pytest.mark.parametrize(
    ("changed", "options", "told"),
    [
        ({"redis_version": "6.2.14"}, {}, "redis 6.2.14, too old"),
        ({"maxmemory_policy": "allkeys-lfu"}, {}, "allkeys-lfu, which deletes tasks"),
        ({"redis_version": "7.0.15"}, {"durability": "waitaof:1"}, "WAITAOF came with 7.2"),
    ],
)
async def test_a_server_that_would_lose_tasks_is_refused(
    changed: dict[str, str], options: dict[str, Any], told: str
) -> None:
    facts = await inspection.ask(answering(SAID | changed))
    with pytest.raises(InvalidSetting) as caught:
        inspection.refuse(facts, "redis://h", **{"allow_eviction": False, "durability": None, **options})
    assert told in str(caught.value)
    if "maxmemory_policy" in changed:
        inspection.refuse(facts, "redis://h", allow_eviction=True, durability=None)


async def test_a_real_server_that_evicts_is_refused_at_open() -> None:
    server = Server(valkey_program(), "--maxmemory-policy", "allkeys-lru")
    try:
        refused = RedisBackend(server.url())
        with pytest.raises(InvalidSetting, match="allkeys-lru"):
            await refused.open()
        await refused.aclose()
        backend = RedisBackend(server.url(), allow_eviction=True)
        await backend.open()
        assert {finding.level for finding in (await backend.inspect()).findings} == {"warning", "error"}
        await backend.aclose()
    finally:
        server.end()


async def test_a_real_server_tells_its_tier(caplog: pytest.LogCaptureFixture) -> None:
    backend = RedisBackend(valkey().emptied())
    await backend.open()
    assert "no AOF" in caplog.text
    told = await backend.inspect()
    assert (told.backend, told.version[:2]) == ("valkey", "9.")
    assert abs(told.now_ms - (await backend.counts("q")).now_ms) < 5_000
    assert told.durability.startswith("no AOF")
    await backend.aclose()


async def test_of_a_cluster_each_finding_is_told_once_and_names_whom_it_concerns() -> None:
    careful = await inspection.ask(answering(SAID | {"connected_slaves": "1"}))
    evicting = await inspection.ask(answering(SAID | {"maxmemory_policy": "allkeys-lru"}, "everysec"))
    same = inspection.findings_of({"a:1": evicting, "b:1": evicting}, durability=None)
    assert [finding.text.split(" ")[0] for finding in same if finding.level == "error"] == ["maxmemory-policy"]
    apart = inspection.findings_of({"a:1": careful, "b:1": evicting}, durability=None)
    assert apart
    assert all(finding.text.startswith("b:1: ") for finding in apart)
    assert {finding.level for finding in apart} == {"note", "error"}
    assert inspection.tier_of({"a:1": careful, "b:1": careful}) == careful.durability
    assert inspection.tier_of({"a:1": careful, "b:1": evicting}).startswith("a:1: AOF, appendfsync always")
