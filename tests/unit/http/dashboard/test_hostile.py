"""Whatever stands in a letter or a URL is text on a page, and nothing else."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from deadletter import Task

from ..clients import SECRET
from .markup import Page

pytestmark = pytest.mark.anyio

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}{% raise %}${7*7}",
    "javascript:alert(1)",
    "' onmouseover='alert(1)",
    "</textarea></pre><svg onload=alert(1)>",
    "\u2028\u202e\x1b[31m",
]
PAGES = ["/", "/health", "/letters", "/letters?state=pending", "/review?type=*", "/operations", "/pauses", "/workers"]
KNOWN = {
    *("html", "head", "title", "meta", "link", "script", "body", "a", "header", "span"),
    *("nav", "ul", "li", "p", "main", "footer", "kbd", "div", "dl", "dt"),
    *("dd", "h1", "h2", "h3", "section", "ol", "svg", "path", "button", "figure"),
    *("figcaption", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "time"),
    *("form", "label", "input", "select", "option", "datalist", "textarea", "pre", "code", "bdi"),
    *("strong", "del", "ins", "progress", "noscript"),
}


class Told(Exception):
    pass


def check(page: Page) -> None:
    """Only our own elements, no style and no script beside files, no link to anything but a path of ours."""
    assert {tag for tag, _ in page.elements} <= KNOWN
    assert page.open == []
    for tag, found in page.elements:
        assert "style" not in found, (tag, found)
        assert not [name for name in found if name.startswith("on")], (tag, found)
        if tag == "script":
            assert (found.get("src") or "").startswith("/static/")
        for name in ("href", "src", "action", "hx-get", "sse-connect"):
            if name in found:
                assert re.match(r"(/(?!/)|\?|#|$)", found[name] or ""), (tag, found)


@pytest.fixture
async def hostile(dlq):
    """Letters and pending tasks with such text in every field that takes it."""
    for n, text in enumerate(HOSTILE):
        plain = re.sub(r"[\x00-\x1f\u2028\u202e]", "", text)
        task = Task(
            type=plain,
            id=f"hostile-{n}",
            payload={text: [text, {"deep": text}]},
            idempotency_key=text,
            metadata={text: text},
        )
        error = type(re.sub(r"\W", "_", plain), (Told,), {"__module__": plain})(text)
        error.add_note(text)
        await dlq.capture(task, error)
        await dlq.enqueue(Task(type=plain, payload={"text": text}))
        await dlq.pause(plain.replace("*", "\\*"), why=plain)
    return [f"/letters/hostile-{n}" for n in range(len(HOSTILE))]


async def test_hostile_text_stays_text(see, hostile):
    for url in [*PAGES, *hostile]:
        page = await see(url)
        check(page)
        assert "49" not in page.text.replace("2049", "").split()
    told = (await see("/letters/hostile-0")).text
    assert told.count("<script>alert(1)</script>") >= 5


@pytest.mark.parametrize("text", HOSTILE)
async def test_a_hostile_url_stays_text(client, text):
    for name in ("error_contains", "type", "payload", "older_than", text):
        response = await client.get(f"/letters?{quote(name)}={quote(text)}&told={quote(text)}")
        assert response.status_code in {200, 400}
        check(Page(response.text))
    response = await client.get(f"/letters/{quote(text, safe='')}")
    assert response.status_code == 404
    if response.headers["content-type"].startswith("text/html"):
        check(Page(response.text))


async def test_every_page_comes_with_a_strict_policy(client):
    for url in [*PAGES, "/letters/task-0", "/letters/none", "/letters?limit=x"]:
        response = await client.get(url)
        policy = response.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= {
            part.strip() for part in policy.split(";")
        }
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "same-origin"
        assert response.headers["content-type"] == "text/html; charset=utf-8"


async def test_what_is_hidden_is_on_no_page(client):
    for url in [*PAGES, "/letters/task-0", "/letters/task-1", f"/letters?error_contains={SECRET}"]:
        text = (await client.get(url)).text
        body = text.replace(f'value="{SECRET}"', "").replace(f"<bdi>{SECRET}</bdi>", "")
        assert SECRET not in body or "error_contains" in url
        assert "4111-" not in text
    assert "Nothing matches" in (await client.get(f"/letters?error_contains={SECRET}")).text
