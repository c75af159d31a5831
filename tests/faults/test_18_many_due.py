"""Fault 18: a hundred thousand tasks due at once; no step takes longer for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from deadletter import DeadLetterQueue, Task, current_attempt
from deadletter.backends import _shelf
from deadletter.backends.sqlite import lanes
from deadletter.interfaces import Backend
from deadletter.model.row import Claim, Claimed

from .conftest import recount

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
    with monkeypatch.context() as patch, steps.watch(monkeypatch):
        patch.setattr(backend, "claim", counted)
        await dlq.worker().run_until_idle()
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
