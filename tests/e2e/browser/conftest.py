"""A real Chromium before a real ``deadletter serve`` on a SQLite file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deadletter import DeadLetterQueue, Task

from ..servers import Serving

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Ended with its module: while it is there its event loop counts as running, and nobody else could run one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'queue.db'}"


@pytest.fixture
def dlq(url: str) -> Iterator[DeadLetterQueue]:
    queue = DeadLetterQueue(url, release="v7", redact=("card",))
    yield queue
    queue.sync.aclose()


@pytest.fixture
def server(url: str, dlq: DeadLetterQueue) -> Iterator[Serving]:
    letters(dlq, 6)
    with Serving(url) as serving:
        yield serving


def letters(dlq: DeadLetterQueue, n: int, type: str = "email.send", error: type[Exception] = TimeoutError) -> list[str]:
    """Capture so many letters; their ids."""
    made = []
    for at in range(n):
        payload = {"n": at, "card": "4111", "to": f"user{at}@example.com"}
        try:
            raise error(f"no answer from mail.example.com ({at})")
        except Exception as failed:
            made.append(dlq.sync.capture(Task(type=type, payload=payload), failed))
    return made


@pytest.fixture
def tab(chromium: Any, server: Serving) -> Iterator[Callable[..., Any]]:
    """Opens tabs; at the end none may have met an error or a breach of the policy, but for what it was told to expect."""
    contexts: list[Any] = []
    complaints: list[str] = []
    expected: list[str] = []

    def open_tab(path: str = "/", *, expect: tuple[str, ...] = (), width: int = 1280, **options: Any) -> Any:
        expected.extend(expect)
        context = chromium.new_context(base_url=server.base, viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        page.goto(path)
        return page

    yield open_tab
    for context in contexts:
        context.close()
    assert [said for said in complaints if not any(word in said for word in expected)] == []
