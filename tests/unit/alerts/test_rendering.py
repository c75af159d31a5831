"""What people read, and that nothing in a task's words can be more than words."""

from __future__ import annotations

import email
import email.policy
import re
import shlex
from html.parser import HTMLParser

import httpx2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter import Alert, DeadLetterQueue, Task
from deadletter.alerts.drafts import Desk, died
from deadletter.alerts.mail import EmailAlerter
from deadletter.alerts.plain_text import block, clean
from deadletter.alerts.rendering import as_html, as_text
from deadletter.alerts.slack import message
from deadletter.alerts.story import story
from deadletter.http import create_app

from .material import AT, HOSTILE, cause, hostile, one_of_each, to_alert

pytestmark = pytest.mark.anyio

MAILER = EmailAlerter("localhost", "ops@example.com", sender="deadletter@example.com")
TAGS = {"html", "head", "meta", "title", "body", "table", "tr", "td", "th", "h1", "h2", "p", "pre", "ul", "li", "a"}


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.hrefs: list[str] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.hrefs += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("alert", one_of_each(), ids=lambda alert: f"{alert.kind}-{alert.data.get('status', '')}")
def test_every_kind_reads_well_in_every_form(alert: Alert) -> None:
    told = story(alert)
    text, html, slack = as_text(told), as_html(told), orjson.dumps(message(told)).decode()
    for shown in (text, html, slack):
        assert "None" not in shown
        assert "https://dlq.example.com/ops/" in shown
    assert told.title == alert.title
    assert told.commands
    assert all(shlex.split(command)[0] == "deadletter" for _, command in told.commands)
    assert len(told.title) < 120


def test_a_death_says_what_since_when_how_many_which_release_the_sample_and_what_to_do() -> None:
    text = as_text(story(one_of_each()[0]))
    for said in (
        "10,000 tasks of mail.send died: SMTPServerDisconnected",
        "smtplib.SMTPServerDisconnected",
        "2026-11-30 08:59:00 UTC",
        "2026.11.3",
        "0193-sample",
        "Connection unexpectedly closed",
        "deadletter show 0193-sample",
        "deadletter retry-all --fingerprint f00d",
    ):
        assert said in text


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
def test_hostile_text_is_only_text(text: str) -> None:
    alert = hostile(text)
    told = story(alert)
    assert told.title.isprintable()
    assert all(value.isprintable() for _, value in told.facts)
    assert all(line.isprintable() for line in told.message.split("\n"))
    page = Page(as_html(told))
    assert page.tags <= TAGS
    assert not any(name.startswith("on") for name in page.attributes)
    assert all(href.startswith("https://dlq.example.com/") for href in page.hrefs)
    assert len(as_html(told)) < 40_000
    slack = orjson.dumps(message(told)).decode()
    assert "<!" not in slack
    assert "<@" not in slack
    assert "<http" not in slack
    for each in message(told)["blocks"]:
        if each["type"] == "section" and "text" in each:
            assert each["text"]["text"].count("```") % 2 == 0, "no fence is left open"
            assert len(each["text"]["text"]) <= 3_000


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
def test_no_text_makes_a_header_or_silences_the_mail(text: str) -> None:
    mail = MAILER.message(hostile(text))
    read = email.message_from_bytes(mail.as_bytes(), policy=email.policy.default)
    assert set(map(str.lower, read.keys())) == {
        "subject",
        "from",
        "to",
        "date",
        "message-id",
        "auto-submitted",
        "x-deadletter-kind",
        "mime-version",
        "content-type",
    }
    assert read["To"] == "ops@example.com"
    assert len(str(read["Subject"])) <= 200
    assert [part.get_content_type() for part in read.walk()] == ["multipart/alternative", "text/plain", "text/html"]


async def test_links_lead_to_pages_of_the_dashboard(anyio_backend: str) -> None:
    async with DeadLetterQueue("memory://") as dlq:
        id_ = await dlq.capture(Task(type="mail.send", id="a:b"), TimeoutError("no answer"))
        (group,) = await dlq.groups()
        desk = Desk("default", "http://localhost/")
        facts = cause(sample_id=id_, fingerprint=group.key)
        links = died(desk, [facts]).data["links"] + died(desk, [facts, facts]).data["links"]
        app = create_app(dlq)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app, client=("127.0.0.1", 1))) as client:
            for link in links:
                answer = await client.get(link["url"], headers={"Accept": "text/html"})
                assert answer.status_code == 200, link
                assert "mail.send" in answer.text
    assert [link["label"] for link in links] == ["this cause", "this letter", "dashboard"]


def test_a_command_of_a_hostile_queue_is_one_command() -> None:
    desk = Desk("q; rm -rf / #$(id)")
    command = desk.command("look", "ls")["command"]
    assert shlex.split(command) == ["deadletter", "ls", "--queue", "q; rm -rf / #$(id)"]


def test_an_id_that_reads_like_a_flag_is_in_no_command() -> None:
    commands = died(Desk("default"), [cause(sample_id="--everything")]).data["commands"]
    assert not any("--everything" in each["command"] for each in commands)


def test_a_kind_that_nobody_here_knows_is_shown_plainly() -> None:
    alert = Alert(id="1", kind="backup_failed", at=AT, queue="q", title="no\nbackup", data={"disk": "full", "x": []})
    text = as_text(story(alert))
    assert "no backup" in text
    assert re.search(r"disk: +full", text)


def test_the_message_id_follows_from_the_alert() -> None:
    alert = one_of_each()[0]
    assert MAILER.message(alert)["Message-ID"] == MAILER.message(alert)["Message-ID"] == "<0193-alert@example.com>"


@given(st.text(max_size=400), st.integers(2, 80))
def test_cleaned_text_is_one_printable_line_of_bounded_length(text: str, most: int) -> None:
    line = clean(text, most)
    assert line.isprintable()
    assert len(line) <= most
    assert clean(line, most) == line


@given(st.text(max_size=400))
def test_a_block_has_lines_and_nothing_else_that_is_not_printable(text: str) -> None:
    assert all(line.isprintable() for line in block(text, 200).split("\n"))


def test_many_causes_are_listed_up_to_a_bound() -> None:
    draft = died(Desk("default"), [cause(fingerprint=f"f{n}", new=n) for n in range(300)])
    text = as_text(story(to_alert(draft)))
    assert draft.title.startswith("300 causes: 300 new")
    assert "and 280 causes more" in text
    assert len(text) < 8_000
