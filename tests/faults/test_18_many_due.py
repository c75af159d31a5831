"""Fault 18: a hundred thousand tasks due at once; no step takes longer for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from deadletter import DeadLetterQueue, Task, current_attempt
from deadletter.backends import _shelf
from deadletter.backends.redis import RedisBackend, scripts
from deadletter.backends.redis.keys import prefix
from deadletter.backends.sqlite import lanes
from deadletter.interfaces import Backend
from deadletter.model.row import Claim, Claimed

from ..redis_servers import valkey
from .conftest import recount
from .opening import patched_scripts

pytestmark = pytest.mark.anyio

FEW = 500
GROWTH = 2.0  # a step among many due tasks costs at most so many times one among few
IN_HAND = (
    164  # rows that a worker of concurrency 32 has claimed and not begun: far fewer than one claim may bring twice
)
TICK = 100  # of SQLite's virtual machine: instructions


class Steps:
    """The cost of each step, counted and not timed: instructions of SQLite, or function calls of the memory store."""

    def __init__(self) -> None:
        self.costs: list[int] = []
        self.rows: list[int] = []

    @contextmanager
    def watch(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patch:
            self._watch_sqlite(patch)
            self._watch_memory(patch)
            yield

    def _watch_sqlite(self, patch: pytest.MonkeyPatch) -> None:
        commit = lanes.WriteLane._commit

        def counted(lane: lanes.WriteLane, step: Any, batch: list[lanes.Operation]) -> bool:
            ticks = 0

            def tick() -> int:
                nonlocal ticks
                ticks += 1
                return 0

            step.connection.set_progress_handler(tick, TICK)
            done = commit(lane, step, batch)
            step.connection.set_progress_handler(None, 0)
            self.costs.append(ticks)
            self.rows.append(sum(operation.rows for operation in batch))
            return done

        patch.setattr(lanes.WriteLane, "_commit", counted)

    def _watch_memory(self, patch: pytest.MonkeyPatch) -> None:
        claim = _shelf.Shelf.claim

        def counted(shelf: _shelf.Shelf, wish: Claim, now_ms: int) -> Claimed:
            calls = 0

            def called(*_: object) -> None:
                nonlocal calls
                calls += 1

            sys.setprofile(called)
            try:
                return claim(shelf, wish, now_ms)
            finally:
                sys.setprofile(None)
                self.costs.append(calls)

        patch.setattr(_shelf.Shelf, "claim", counted)


_COUNTED = """
local cost, server = 0, redis
local redis = {pcall = server.pcall, call = function(...)
  local answer = server.call(...)
  cost = cost + 1 + select('#', ...) + (type(answer) == 'table' and #answer or 0)
  return answer
end}
"""
_ENDS = "return answer\n"
_TOLD = "server.call('RPUSH', prefix .. 'costs', cost)\n"


@contextmanager
def counting_scripts() -> Iterator[None]:
    """Let each claim's script count what it asks and is given: calls, arguments, answers."""
    read = scripts._read

    def counting(name: str) -> str:
        text = read(name)
        if name == "prelude":
            return _COUNTED + text
        if name != "claim":
            return text
        assert text.endswith(_ENDS), "claim.lua ends otherwise now: tell the cost before its answer"
        return text.removesuffix(_ENDS) + _TOLD + _ENDS

    with patched_scripts(counting):
        yield


async def drain(backend: Backend, name: str, many: int, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Have so many due tasks done by one worker; answer what its steps cost."""
    steps, began, held, most = Steps(), [], 0, 0
    claim = backend.claim

    async def counted(queue: str, wish: Claim) -> Claimed:
        nonlocal held, most
        claimed = await claim(queue, wish)
        held += len(claimed.rows)
        most = max(most, held)
        return claimed

    dlq = DeadLetterQueue(backend, name=name)

    @dlq.processor("work")
    async def work(task: Task) -> None:
        nonlocal held
        held -= 1
        began.append((task.payload["n"], current_attempt().number))

    await dlq.enqueue_many([Task(type="work", id=f"{n:06}", payload={"n": n}) for n in range(many)])
    with monkeypatch.context() as patch, steps.watch(monkeypatch), counting_scripts():
        patch.setattr(backend, "claim", counted)
        await dlq.worker().run_until_idle()
    if isinstance(backend, RedisBackend):
        with redis.Redis.from_url(backend.url) as client:
            steps.costs = [int(cost) for cost in client.lrange(f"{prefix(name)}costs", 0, -1)]
    assert began == [(n, 1) for n in range(many)]  # in order, each once
    assert most <= IN_HAND
    rows = await recount(backend, name)
    assert [str(row.state) for row in rows] == ["succeeded"] * many
    await dlq.aclose()
    return steps


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the store is what is asked
@pytest.mark.parametrize("many", [5_000, pytest.param(100_000, marks=[pytest.mark.full, pytest.mark.timeout(600)])])
async def test_a_step_costs_the_same_whatever_is_due(
    make_backend: Callable[..., Backend], many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend()
    few = await drain(backend, "few", FEW, monkeypatch)
    steps = await drain(backend, "many", many, monkeypatch)
    assert max(steps.costs) <= GROWTH * max(few.costs)
    assert max(steps.rows, default=0) <= lanes.ROWS + 100
    await backend.aclose()


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_script_holds_the_server_for_5_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow script is slow each time; what the machine held up once is not."""
    slow: list[set[bytes]] = []
    for attempt in range(3):
        backend = RedisBackend(valkey().emptied())
        with redis.Redis.from_url(backend.url) as client:
            client.config_set("slowlog-log-slower-than", 5000)
            client.slowlog_reset()
            await drain(backend, f"slow{attempt}", 100_000 if attempt == 0 else 20_000, monkeypatch)
            slow.append({entry["command"][:60] for entry in client.slowlog_get(128) if b"EVAL" in entry["command"]})
        await backend.aclose()
        if not slow[-1]:
            return
    assert set.intersection(*slow) == set()
