"""Ten thousand tasks and a service that is down for ten minutes, on a virtual clock."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import deadletter
from deadletter import DeadLetterQueue, Task
from deadletter.adapters.breakers import Breaker
from deadletter.engine.parking import MARK
from deadletter.testing import VirtualClock

from ..prometheus_server import wait_for
from ..redis_servers import valkey

pytestmark = pytest.mark.anyio

OUTAGE = (60.0, 660.0)
TASKS = 10_000
CONCURRENCY = 8


@pytest.mark.full
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


APP = """
import os, pathlib
from deadletter import DeadLetterQueue
from deadletter.adapters.breakers import Breaker

dlq = DeadLetterQueue(os.environ["URL"], retry=[0.2], max_retries=3)
dlq.breakers["mail"] = Breaker(5, 1)

@dlq.processor("mail")
async def mail(task):
    if not pathlib.Path("up").exists():
        raise ConnectionError("down")
"""


@pytest.mark.full
@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_an_open_circuit_outlives_the_workers_that_opened_it(tmp_path: Path, store: str) -> None:
    """Two processes share it, both are killed, another one takes part, and closes it when the service is back."""
    url = valkey().emptied() if store == "redis" else f"sqlite:///{tmp_path / 'o.db'}"
    (tmp_path / "mailer.py").write_text(APP)
    environ = {**os.environ, "URL": url, "PYTHONPATH": str(Path(deadletter.__file__).parents[1])}
    command = [sys.executable, "-m", "deadletter", "worker", "--app", "mailer:dlq", "--concurrency", "4"]

    def start() -> subprocess.Popen[bytes]:
        out = subprocess.DEVNULL
        return subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=out, stderr=out)

    dlq = DeadLetterQueue(url)
    dlq.sync.enqueue_many([Task(type="mail") for _ in range(60)])
    running = [start(), start()]
    try:
        wait_for(lambda: any(pause.why.startswith(MARK) for pause in dlq.sync.paused()), "the circuit")
        wait_for(lambda: dlq.sync.stats().by_state["running"] == 0, "the end of what was in flight")
        for worker in running:
            worker.send_signal(signal.SIGKILL)
            worker.wait(30)
        running = [start()]
        wait_for(lambda: dlq.sync.stats().lifetime.get("postponed", 0) > 0, "a probe")
        (tmp_path / "up").touch()
        wait_for(lambda: dlq.sync.stats().by_state["succeeded"] == 60, "all of them")
        stats = dlq.sync.stats()
        assert stats.by_state["dead"] == 0
        assert stats.lifetime["failures"] <= 2 * (5 + 4), "what opened it in each of two, and what was in flight"
        assert not dlq.sync.paused()
    finally:
        for worker in running:
            worker.kill()
            worker.wait(30)
        dlq.sync.aclose()
