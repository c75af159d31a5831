"""A search that takes long, on a page that is looked at meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from deadletter import DeadLetterQueue
from deadletter.engine import reading
from deadletter.http import create_app
from deadletter.http.dashboard import letters as letters_page

from .conftest import letters
from .test_looks import AXE, RULES

pytestmark = pytest.mark.full


@pytest.fixture
def base(url: str, dlq: DeadLetterQueue, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server in this process, each of whose answers looks at three letters."""
    monkeypatch.setattr(letters_page, "PATIENCE", 0)
    monkeypatch.setattr(reading, "_STEP", 3)
    letters(dlq, 5)
    letters(dlq, 1, "rare.first", KeyError)
    letters(dlq, 8)
    letters(dlq, 1, "rare.last", KeyError)
    letters(dlq, 8)
    served = DeadLetterQueue(url)
    server = uvicorn.Server(uvicorn.Config(create_app(served), log_level="error", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()
    served.sync.aclose()


RARE = "/letters?payload=n%3D0&type=rare.*"  # which no store narrows a look by


@pytest.fixture
def page(chromium: Any, base: str) -> Iterator[Any]:
    made = chromium.new_page(base_url=base)
    yield made
    made.close()


def test_it_goes_on_by_itself_and_moves_no_row(page):
    """What is found is put below what is there, until every letter was looked at."""
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text))
    page.goto(RARE)
    page.get_by_text("2 letters match").wait_for()
    assert page.locator("#looking").count() == 0
    assert [link.inner_text() for link in page.locator(".c-type a").all()] == ["rare.last", "rare.first"]
    assert page.get_by_text("Older letters").count() == 0
    page.locator(".row[data-id] input").first.check()
    assert page.get_by_role("button", name="Retry 1 selected…").is_enabled()
    assert complaints == []


def test_it_is_stopped_and_taken_up_again(page):
    """And what shows how far it came breaks no rule of accessibility."""
    asked: list[str] = []

    def hold(route):
        asked.append(route.request.url)  # and never answered

    page.route("**/letters?*cursor=*", hold)
    page.goto(RARE)
    page.locator("#looking").wait_for()
    assert "Searched" in page.locator("#looking").inner_text()
    page.evaluate((AXE / "axe.min.js").read_text())
    found = page.evaluate("tags => axe.run({runOnly: {type: 'tag', values: tags}})", list(RULES))
    assert [(rule["id"], rule["nodes"][0]["html"][:160]) for rule in found["violations"]] == []
    page.get_by_role("button", name="Stop").click()
    assert page.get_by_role("button", name="Stop").count() == 0
    page.unroute("**/letters?*cursor=*")
    page.get_by_role("link", name="Search on").click()
    page.get_by_text("2 letters match").wait_for()
    assert len(asked) == 1


def test_it_goes_on_without_scripts(chromium, base):
    context = chromium.new_context(base_url=base, java_script_enabled=False)
    page = context.new_page()
    page.goto(RARE)
    met, pieces = [], 0
    while True:
        met += [link.inner_text() for link in page.locator(".c-type a").all()]
        if page.locator("#looking").count() == 0:
            break
        pieces += 1
        page.get_by_role("link", name="Search on").click()
    assert met == ["rare.last", "rare.first"]
    assert pieces == 7
    context.close()
