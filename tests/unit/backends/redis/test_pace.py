"""How much one script may do."""

from __future__ import annotations

from typing import Any

import pytest

from deadletter import RedisBackend
from deadletter.backends.redis.pace import LEAST, LONG_MS, Pace
from deadletter.backends.redis.shard import Shard
from deadletter.model.row import BATCH, Change, NewRow

from ....redis_servers import valkey


def test_a_step_that_took_long_is_halved_and_grows_again() -> None:
    pace = Pace()
    pace.took(LONG_MS + 1, 100)
    assert pace.weight == 50
    pace.took(1.0, 50)
    assert 50 < pace.weight < 60
    for _ in range(100):
        pace.took(1.0, pace.weight)
    assert pace.weight == BATCH
    for _ in range(100):
        pace.took(LONG_MS + 1, pace.weight)
    assert pace.weight == LEAST


def test_a_short_step_that_took_long_halves_what_it_held() -> None:
    pace = Pace()
    pace.took(LONG_MS + 1, 40)
    assert pace.weight == 20


def purging(n: int) -> list[Change]:
    return [Change(id=f"{i}", op=f"op{i}", was="dead", to="gone") for i in range(n)]


@pytest.mark.anyio
async def test_letters_go_in_fewer_where_the_server_is_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = RedisBackend(valkey().emptied())
    await backend.insert("q", [NewRow(id=f"{i}", type="t", state="dead", reason="rejected") for i in range(100)])
    shard = await backend._steps("q")
    assert isinstance(shard, Shard)
    sizes: list[int] = []
    script = shard.connections.script

    async def slow(*args: Any) -> list[Any]:
        """A server whose every script takes 20 ms."""
        answer = await script(*args)
        seconds, micros = answer[-1]
        sizes.append(len(answer) - 3)
        return [*answer[:-1], (int(seconds), int(micros) + 20_000)]

    monkeypatch.setattr(shard.connections, "script", slow)
    verdicts = await backend.apply("q", purging(100))
    assert verdicts == ["done"] * 100
    assert sizes[:5] == [50, 25, 12, 6, 5]
    assert shard.pace.weight == LEAST
    await backend.aclose()


@pytest.mark.anyio
async def test_a_server_that_keeps_up_gets_long_steps() -> None:
    backend = RedisBackend(valkey().emptied())
    await backend.insert("q", [NewRow(id=f"{i}", type="t", state="dead", reason="rejected") for i in range(20)])
    assert await backend.apply("q", purging(20)) == ["done"] * 20
    shard = await backend._steps("q")
    assert isinstance(shard, Shard)
    assert shard.pace.weight >= BATCH // 2
    await backend.aclose()
