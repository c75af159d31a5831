"""How pages are for everybody: rules of accessibility, narrow and zoomed windows, hostile text."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from deadletter import Task

from .conftest import letters

pytestmark = pytest.mark.full

AXE = Path(__file__).parent / "axe"
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "{{7*7}}",
    "</textarea><svg onload=alert(1)>",
    "x" * 190,
)


@pytest.fixture
def pages(dlq) -> list[str]:
    """Every page, each with something on it."""
    task_id = letters(dlq, 3, "billing.charge", ConnectionRefusedError)[0]
    odd = letters(dlq, 1, "report.build", KeyError)[0]
    waiting = dlq.sync.enqueue(Task(type="email.send", delay=3600))
    dlq.sync.pause("report.*", why="the figures are being checked")
    return [
        "/",
        "/letters",
        "/letters?type=billing.*&error_contains=answer&newer_than=1h",
        "/letters?older_than=soon",
        "/letters?type=none",
        "/letters?state=pending",
        f"/letters/{task_id}",
        f"/letters/{odd}",
        f"/letters/{waiting}",
        "/review?type=billing.*",
        "/review?action=purge",
        "/review?action=erase&type=billing.*",
        "/operations",
        "/pauses",
        "/workers",
        "/letters/none",
    ]


def test_the_rules_are_those_that_were_published():
    said = (AXE / "README.md").read_text()
    assert hashlib.sha256((AXE / "axe.min.js").read_bytes()).hexdigest() in said


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_a_rule_of_accessibility(tab, pages, scheme):
    rules = (AXE / "axe.min.js").read_text()
    for width in (1280, 360):
        page = tab(width=width, color_scheme=scheme, expect=("400", "404"))
        for path in pages:
            page.goto(path)
            page.evaluate(rules)
            found = page.evaluate("tags => axe.run({runOnly: {type: 'tag', values: tags}})", list(RULES))
            broken = [
                (rule["id"], node["html"][:160], node["failureSummary"])
                for rule in found["violations"]
                for node in rule["nodes"]
            ]
            assert broken == [], (path, width)
            assert len(found["passes"]) > 10


@pytest.mark.parametrize("width", [360, 640, 1400])
def test_no_page_scrolls_sideways(tab, pages, dlq, width):
    """640 is a window of 1,280 at a zoom of 200 %."""
    long = dlq.sync.capture(Task(type="t" * 200, payload={"k" * 300: "v" * 5_000}), ValueError("m" * 1_500))
    page = tab(width=width, expect=("400", "404"))
    for path in [*pages, f"/letters/{long}"]:
        page.goto(path)
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, path


def test_hostile_text_does_nothing(tab, dlq):
    """Nothing runs, nothing is asked for elsewhere, and no policy is even tried."""
    ids = []
    for text in HOSTILE:
        task = Task(type=text, payload={text: text}, metadata={text: text}, idempotency_key=text)
        ids.append(dlq.sync.capture(task, type(re.sub(r"\W", "_", text), (Exception,), {"__module__": text})(text)))
        dlq.sync.pause(text, why=text)
    page = tab("/")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in ["/", "/letters", "/pauses", "/workers", "/review?type=*", *(f"/letters/{one}" for one in ids)]:
        page.goto(path)
        page.wait_for_load_state("load")
        assert page.locator("img, svg[onload], iframe").count() == 0
    base = page.evaluate("location.origin")
    assert all(url.startswith((base, "data:")) for url in asked)
