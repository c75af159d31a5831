"""An application over a queue with three letters, and a client without a network.

On SQLite under asyncio and in memory under trio: each loop and each store meets every test, at half the cost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from deadletter import DeadLetterQueue, Task
from deadletter.http import create_app

from .clients import SECRET, TOKENS, client_of


@pytest.fixture
async def dlq(anyio_backend: str, tmp_path: Path) -> AsyncIterator[DeadLetterQueue]:
    url = "memory://" if anyio_backend == "trio" else f"sqlite:///{tmp_path / 'a.db'}"
    async with DeadLetterQueue(url, redact=("card",), release="v1") as queue:
        for n in range(3):
            payload = {"n": n, "password": SECRET, "card": f"4111-{n}", "customer": {"id": n}}
            task = Task(
                type="email.send" if n else "report",
                id=f"task-{n}",
                payload=payload,
                priority="high" if n == 0 else "normal",
                metadata={"tenant": f"t{n}"},
                idempotency_key=f"key-{n}",
            )
            await queue.capture(task, ValueError(f"timeout {SECRET} of 4111-{n}"))
        yield queue


@pytest.fixture
async def client(dlq: DeadLetterQueue) -> AsyncIterator[httpx2.AsyncClient]:
    """Of an application with neither tokens nor authorize, on this machine."""
    async with client_of(create_app(dlq)) as made:
        yield made


@pytest.fixture
def guarded(dlq: DeadLetterQueue) -> Callable[[str | None], httpx2.AsyncClient]:
    """Clients of an application with a token of each scope, by scope."""
    app = create_app(dlq, tokens=TOKENS)
    return lambda scope: client_of(app, token=TOKENS.get(scope or "", scope))
