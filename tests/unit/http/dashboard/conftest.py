"""Pages over a queue in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest

from deadletter import DeadLetterQueue
from deadletter.http import create_app

from ..clients import TOKENS, client_of, three_letters
from .markup import Page

ORIGIN = {"Origin": "http://localhost:5002"}


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: pages reach the queue through the calls that the API's tests make on both."""
    return "asyncio"


@pytest.fixture
async def dlq() -> AsyncIterator[DeadLetterQueue]:
    async with DeadLetterQueue("memory://", redact=("card",), release="v1") as queue:
        await three_letters(queue)
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
