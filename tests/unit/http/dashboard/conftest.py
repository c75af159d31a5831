"""Pages over a queue in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest

from deadletter import DeadLetterQueue, Task
from deadletter.http import create_app

from ..clients import SECRET, TOKENS, client_of
from .markup import Page

ORIGIN = {"Origin": "http://localhost:5002"}


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: pages reach the queue through the calls that the API's tests make on both."""
    return "asyncio"


@pytest.fixture
async def dlq() -> AsyncIterator[DeadLetterQueue]:
    async with DeadLetterQueue("memory://", redact=("card",), release="v1") as queue:
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
async def app(dlq):
    made = create_app(dlq)
    yield made
    await made.state.site.samples.stop()
    await made.state.site.operations.stop()


@pytest.fixture
async def client(app) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser on this machine: it names its origin."""
    async with client_of(app, headers=ORIGIN) as made:
        yield made


@pytest.fixture
def guarded(dlq) -> Callable[[str], httpx2.AsyncClient]:
    app = create_app(dlq, tokens=TOKENS)
    return lambda scope: client_of(app, token=TOKENS[scope], headers=ORIGIN)


@pytest.fixture
def see(client) -> Callable[..., Awaitable[Page]]:
    """A page by its URL; its status is 200 unless said otherwise."""

    async def get(url: str, status: int = 200) -> Page:
        response = await client.get(url)
        assert response.status_code == status, response.text
        return Page(response.text)

    return get
