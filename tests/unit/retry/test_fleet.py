"""The vectorised fleets of benchmarks/backoff do what the engine and the exact simulator do, within 2 %."""

from __future__ import annotations

import math
from collections import Counter

import anyio
import pytest
from _fleet import Fleet, Share, Storm, exponential  # of benchmarks/backoff

from deadletter import DeadLetterQueue, Task
from deadletter.retry import Budget, Exponential, RetryPolicy, simulate
from deadletter.runtime.chance import Chance
from deadletter.testing import VirtualClock

OUTAGE = 30.0
TASKS = 300


def fleet(jitter: str | None, *, budget: Share | None = None, tasks: int = TASKS) -> Storm:
    """As many clients in the outage's first tenth of a second, against a service that serves all afterwards."""
    delays = exponential(base=0.5, jitter=jitter)
    return Fleet(
        arrivals=tasks * 10, duration=0.1, outage=OUTAGE, capacity=math.inf, delays=delays, budget=budget
    ).run()


async def real(policy: RetryPolicy) -> tuple[int, Counter[int]]:
    """The attempts that a worker makes under the virtual clock, and how many in each second."""
    clock = VirtualClock(autojump=True)
    load: Counter[int] = Counter()
    done = 0
    async with DeadLetterQueue("memory://", clock=clock, retry=policy, max_retries=1000, chance=Chance(7)) as dlq:

        @dlq.processor("call")
        async def call(task: Task) -> None:
            nonlocal done
            load[int(clock.monotonic())] += 1
            if clock.monotonic() < OUTAGE:
                raise ConnectionError
            done += 1
            if done == TASKS:
                group.cancel_scope.cancel()

        await dlq.enqueue_many([Task(type="call", id=f"client-{n}") for n in range(TASKS)])
        async with anyio.create_task_group() as group:
            group.start_soon(dlq.worker(concurrency=TASKS).run)
    return load.total(), load


@pytest.mark.anyio
@pytest.mark.parametrize("jitter", [None, pytest.param("equal", marks=pytest.mark.full)])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_fleet_makes_as_many_attempts_as_the_engine(jitter: str | None) -> None:
    """Total and peak, of an outage that every client meets."""
    attempts, load = await real(Exponential(base=0.5, jitter=jitter))  # type: ignore[arg-type]
    found = fleet(jitter, tasks=TASKS if jitter is None else 30 * TASKS)
    scale = found.tasks / TASKS
    assert attempts == pytest.approx(found.attempts / scale, rel=0.02)
    if jitter is None:
        assert max(load.values()) == found.load.max()


@pytest.mark.parametrize("jitter", [None, "full", "equal", "decorrelated"])
@pytest.mark.parametrize("budget", [None, Share(0.1, 20)])
def test_a_fleet_agrees_with_the_exact_simulator(jitter: str | None, budget: Share | None) -> None:
    """Attempts while the service is down and after, with and without a shared budget."""
    policy: RetryPolicy = Exponential(jitter=jitter)  # type: ignore[arg-type]
    if budget is not None:
        policy = Budget(policy, ratio=budget.ratio, min_per_second=budget.min_per_second)
    exact = simulate(policy, outage=60, arrivals=50, duration=70, max_retries=1000, horizon=3600)
    found = Fleet(
        arrivals=50, duration=70, outage=60, capacity=math.inf, delays=exponential(jitter=jitter), budget=budget
    ).run()
    assert found.attempts == pytest.approx(exact.attempts, rel=0.02)
    assert found.served.sum() == found.tasks
    assert found.load[:60].sum() == pytest.approx(sum(exact.load[:60]), rel=0.02)
    if jitter is None:  # else it is the last of many draws, which differs from seed to seed
        assert found.time_to_recover == pytest.approx(exact.time_to_recover, rel=0.02)
