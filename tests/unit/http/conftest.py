"""An application over a queue with three letters, and a client without a network.

On SQLite under asyncio and in memory under trio: each loop and each store meets every test, at half the cost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from deadletter import DeadLetterQueue
from deadletter.http import create_app

from .clients import TOKENS, client_of, three_letters


@pytest.fixture
async def dlq(anyio_backend: str, tmp_path: Path) -> AsyncIterator[DeadLetterQueue]:
    url = "memory://" if anyio_backend == "trio" else f"sqlite:///{tmp_path / 'a.db'}"
    async with DeadLetterQueue(url, redact=("card",), release="v1") as queue:
        await three_letters(queue)
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
