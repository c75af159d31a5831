"""Clients of an application, without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2

from deadletter import DeadLetterQueue, Task

SECRET = "hunter2-and-more"
TOKENS = {"read": "r-token-0001", "write": "w-token-0002", "admin": "a-token-0003"}


def client_of(app: Any, *, token: str | None = None, peer: str = "127.0.0.1", **options: Any) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    headers |= options.pop("headers", {})
    transport = httpx2.ASGITransport(app, client=(peer, 40_000), raise_app_exceptions=False, **options)
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost:5002", headers=headers)


class Stream:
    """An answer that never ends, as its client reads it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.closed = anyio.Event()

    async def until(self, piece: str) -> str:
        """Wait until the text holds a piece; answers the text so far."""
        with anyio.fail_after(10):
            while piece not in self.text:
                await anyio.sleep(0.002)
        return self.text


def scope_of(method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    """A request as a server would put it."""
    named = {"host": "localhost:5002", **headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path.partition("?")[0],
        "raw_path": path.partition("?")[0].encode(),
        "query_string": path.partition("?")[2].encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in named.items()],
        "client": ("127.0.0.1", 40_000),
        "server": ("127.0.0.1", 5002),
    }


async def post_in_pieces(app: Any, path: str, pieces: list[bytes]) -> int:
    """POST a JSON body whose length nobody tells, and which never ends; answers the status."""
    left, statuses = list(pieces), []

    async def receive() -> dict[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": True}
        await anyio.sleep_forever()
        return {}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    with anyio.fail_after(10):
        await app(scope_of("POST", path, {"Content-Type": "application/json"}), receive, send)
    return statuses[0]


@asynccontextmanager
async def streaming(
    app: Any,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    at_start: Callable[[], Awaitable[object]] | None = None,
) -> AsyncIterator[Stream]:
    """GET a path whose answer is a stream, and hang up at the end; ``at_start`` runs when its first byte arrives."""
    stream = Stream()
    scope = scope_of("GET", path, headers or {})

    async def receive() -> dict[str, Any]:
        await stream.closed.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            stream.status = message["status"]
            stream.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            if at_start is not None:
                await at_start()
        else:
            stream.text += message.get("body", b"").decode()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(app, scope, receive, send)
            yield stream
            stream.closed.set()


async def three_letters(queue: DeadLetterQueue) -> None:
    """A report and two mails, with values to hide in payload and message."""
    for n in range(3):
        task = Task(
            type="email.send" if n else "report",
            id=f"task-{n}",
            payload={"n": n, "password": SECRET, "card": f"4111-{n}", "customer": {"id": n}},
            priority="high" if n == 0 else "normal",
            metadata={"tenant": f"t{n}"},
            idempotency_key=f"key-{n}",
        )
        await queue.capture(task, ValueError(f"timeout {SECRET} of 4111-{n}"))
