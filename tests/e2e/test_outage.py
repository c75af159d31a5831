"""Ten thousand tasks and a service that is down for ten minutes, on a virtual clock."""

from __future__ import annotations

import math
import random

import anyio
import pytest

from deadletter import DeadLetterQueue, Task
from deadletter.adapters.breakers import Breaker
from deadletter.testing import VirtualClock

pytestmark = [pytest.mark.anyio, pytest.mark.full]

OUTAGE = (60.0, 660.0)
TASKS = 10_000
CONCURRENCY = 8


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("seed", [1])
async def test_ten_minutes_without_the_service_cost_no_task_and_few_attempts(anyio_backend, seed):
    clock = VirtualClock(autojump=True)
    dlq = DeadLetterQueue("memory://", clock=clock, retry=[5, 30], max_retries=2)
    chance = random.Random(seed)
    arrivals: list[float] = []
    failed = 0

    @dlq.processor("email.send")
    async def send(task: Task) -> None:
        nonlocal failed
        arrivals.append(clock.monotonic())
        await clock.sleep(0.02)
        if OUTAGE[0] <= clock.monotonic() < OUTAGE[1]:
            failed += 1
            raise ConnectionError("down")

    gate = Breaker(5, 30)
    tasks = [Task(type="email.send", delay=chance.uniform(0, 900)) for _ in range(TASKS)]
    for at in range(0, TASKS, 100):
        await dlq.enqueue_many(tasks[at : at + 100])
    worker = dlq.worker(concurrency=CONCURRENCY, breakers={"email.*": gate})
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        with anyio.fail_after(300):
            while (await dlq.stats()).by_state["succeeded"] < TASKS:
                await clock.sleep(1)
        worker.stop()
    stats = await dlq.stats()
    assert stats.by_state["dead"] == 0
    assert stats.lifetime["failures"] <= 5 + CONCURRENCY, "what opened it, and what was in flight"
    probes = (OUTAGE[1] - OUTAGE[0]) / gate.recovery
    assert failed <= 5 + CONCURRENCY + probes

    back = next(at for at in arrivals if at >= OUTAGE[1] - 0.02)  # the probe that got through
    after = [at for at in arrivals if at > back]
    for tenth in range(1, 100):
        allowed = (2 ** (tenth / 10) - 1) / math.log(2)  # the integral of a rate that doubles each second, from 1
        assert sum(at <= back + tenth / 10 for at in after) <= allowed + 1
    await dlq.aclose()
