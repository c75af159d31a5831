"""A queue under a virtual clock, monitors on it, and channels that remember what they were given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import anyio
import attrs
import pytest

from deadletter import Alert, Alerter, DeadLetterQueue, Task
from deadletter.alerts import Monitor
from deadletter.backends.memory import MemoryBackend
from deadletter.testing import VirtualClock

Watching: TypeAlias = Callable[..., AbstractAsyncContextManager[Monitor]]


@attrs.define(eq=False)
class Recorder(Alerter):
    """A channel; ``failures`` are raised by its next deliveries in turn."""

    name: str = "recorder"
    alerts: list[Alert] = attrs.field(factory=list)
    failures: list[Exception] = attrs.field(factory=list)
    hangs: bool = False

    @property
    def channel(self) -> str:
        return self.name

    async def send(self, alert: Alert) -> None:
        if self.hangs:
            await anyio.sleep_forever()
        if self.failures:
            raise self.failures.pop(0)
        self.alerts.append(alert)

    def of(self, kind: str) -> list[Alert]:
        return [alert for alert in self.alerts if alert.kind == kind]

    @property
    def statuses(self) -> list[str]:
        return [alert.data["status"] for alert in self.of("task_dead")]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(autojump=True)


@pytest.fixture
async def dlq(anyio_backend: str, clock: VirtualClock) -> AsyncIterator[DeadLetterQueue]:
    async with DeadLetterQueue(MemoryBackend(clock=clock), clock=clock, redact=("card",)) as queue:
        yield queue


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def watching(dlq: DeadLetterQueue, recorder: Recorder) -> Watching:
    """A monitor in the background, elected unless another one is."""

    @asynccontextmanager
    async def run(*alerters: Alerter, elected: bool = True, **options: Any) -> AsyncIterator[Monitor]:
        async with Monitor(dlq, alerters or [recorder], **options) as monitor:
            while elected and not monitor.elected:
                await dlq.clock.sleep(0.1)
            yield monitor

    return run


@pytest.fixture
def die(dlq: DeadLetterQueue) -> Callable[..., Awaitable[list[str]]]:
    """Letters, captured one after the other; answers their ids."""

    async def run(n: int = 1, error: Exception | None = None, **fields: Any) -> list[str]:
        told = {"type": "mail.send", **fields}
        return [await dlq.capture(Task(**told), error or TimeoutError("no answer")) for _ in range(n)]

    return run
