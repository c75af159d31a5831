"""Channels against real servers on loopback."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import orjson
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from deadletter import Alert, Alerter, InvalidTask, PermanentError, RetryAfter
from deadletter.alerts import AppriseAlerter, EmailAlerter, LogAlerter, SlackAlerter, WebhookAlerter, posting
from deadletter.alerts.posting import NotDelivered

from ...sinks import Receiver, client_tls, mail_server, receiver
from .material import one_of_each

pytestmark = pytest.mark.anyio

ALERT = one_of_each()[0]
OLD, NEW = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
SECRET_PATH = "T000-B000-XXXX"


@pytest.fixture
def sink() -> Iterator[Receiver]:
    with receiver() as sink:
        yield sink


async def failure(send: Callable[[], Awaitable[object]]) -> Exception:
    """What a delivery raised; nothing of it shows what must not be seen."""
    with pytest.raises(Exception) as raised:
        await send()
    shown = "".join(traceback.format_exception(raised.value))
    assert "SECRET" not in shown
    assert SECRET_PATH not in shown
    assert "hunter2" not in shown
    assert isinstance(raised.value, Exception)
    return raised.value


# Webhooks


async def test_a_webhook_gets_type_timestamp_and_data(sink: Receiver) -> None:
    await WebhookAlerter(sink.url).send(ALERT)
    (request,) = sink.requests
    body = orjson.loads(request.body)
    assert set(body) == {"type", "timestamp", "data"}
    assert body["type"] == "deadletter.task_dead"
    assert body["timestamp"] == "2026-11-30T09:00:00Z"
    assert body["data"]["count"] == 10_000
    assert body["data"]["id"] == ALERT.id
    assert request.headers["content-type"] == "application/json"
    assert "webhook-signature" not in request.headers


async def test_its_signature_verifies_with_every_secret_in_use(sink: Receiver) -> None:
    alerter = WebhookAlerter(sink.url, [NEW, OLD])
    await alerter.send(ALERT)
    await alerter.send(ALERT)
    first, again = sink.requests
    for secret in (OLD, NEW):
        assert Webhook(secret).verify(first.body, dict(first.headers))["data"]["count"] == 10_000
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(first.body + b" ", dict(first.headers))
    assert first.headers["webhook-id"] == again.headers["webhook-id"] == ALERT.id
    assert first.body == again.body


async def test_it_can_speak_cloudevents(sink: Receiver) -> None:
    await WebhookAlerter(sink.url, OLD, format="cloudevents").send(ALERT)
    (request,) = sink.requests
    event = orjson.loads(request.body)
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert (
        event.items()
        >= {
            "specversion": "1.0",
            "id": ALERT.id,
            "source": "/deadletter/default",
            "type": "deadletter.task_dead",
        }.items()
    )
    Webhook(OLD).verify(request.body, dict(request.headers))


async def test_a_user_and_password_in_the_url_become_a_header(sink: Receiver) -> None:
    await WebhookAlerter(sink.url.replace("127", "me:hunter2@127")).send(ALERT)
    assert sink.requests[0].headers["authorization"] == "Basic bWU6aHVudGVyMg=="


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (500, NotDelivered),
        (503, NotDelivered),
        (408, NotDelivered),
        (429, NotDelivered),
        ((429, {"Retry-After": "7"}), RetryAfter),
        ((503, {"Retry-After": "nonsense"}), NotDelivered),
        (400, PermanentError),
        (401, PermanentError),
        (404, PermanentError),
        (410, PermanentError),
        ((302, {"Location": "http://127.0.0.1:1/"}), PermanentError),
        ((307, {"Location": "http://169.254.169.254/"}), PermanentError),
        ("reset", NotDelivered),
    ],
)
async def test_an_answer_decides_whether_it_is_tried_again_and_is_never_repeated(
    answer: object, kind: type[Exception]
) -> None:
    with receiver(answer) as sink:
        alerter = WebhookAlerter(f"{sink.url}/{SECRET_PATH}")
        error = await failure(lambda: alerter.send(ALERT))
        assert type(error) is kind, error
        assert len(sink.requests) == 1, "no redirect is followed"
        assert "127.0.0.1" in str(error)
        if kind is RetryAfter:
            assert getattr(error, "delay", None) in (7.0, 7)


async def test_a_receiver_that_hangs_is_given_up() -> None:
    with receiver("hang") as sink:
        error = await failure(lambda: WebhookAlerter(sink.url, timeout=0.1).send(ALERT))
    assert isinstance(error, NotDelivered)
    assert "no answer within 0.1 s" in str(error)


async def test_nobody_there_and_no_such_name_are_told() -> None:
    for url in ("http://127.0.0.1:9/x", "http://no-such-host.invalid/x"):
        assert isinstance(await failure(lambda url=url: WebhookAlerter(url).send(ALERT)), NotDelivered)


async def test_tls_is_checked() -> None:
    with receiver(tls=True) as sink:
        await WebhookAlerter(sink.url, tls=client_tls()).send(ALERT)
        error = await failure(lambda: WebhookAlerter(sink.url).send(ALERT))
        assert isinstance(error, NotDelivered)
        assert len(sink.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/x",
        "gopher://example.com",
        "javascript:alert(1)",
        "http://",
        "example.com/hook",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "http://exa mple.com/",
        "http://example.com/\r\nHost: other",
        "http://" + "x" * 3_000,
        "",
        None,
    ],
)
async def test_other_schemes_and_refused_addresses_are_told_at_once_without_the_url(url: Any) -> None:
    for make in (WebhookAlerter, SlackAlerter):
        with pytest.raises(InvalidTask) as refused:
            make(url)
        assert refused.value.field == "url"
        assert len(str(refused.value)) < 200


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "64:ff9b::a9fe:a9fe"])
async def test_the_address_is_checked_that_is_really_connected_to(
    sink: Receiver, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """A name that resolves to a good address first and to a bad one when it is connected to (DNS rebinding)."""
    real = anyio.getaddrinfo
    asked: list[str] = []

    async def rebound(host: str, port: int, **options: Any) -> Any:
        if host != "hooks.example.com":
            return await real(host, port, **options)
        asked.append(host)
        return [(2, 1, 6, "", (address, port))]

    monkeypatch.setattr(posting.anyio, "getaddrinfo", rebound)
    alerter = WebhookAlerter("http://hooks.example.com/x")
    error = await failure(lambda: alerter.send(ALERT))
    assert isinstance(error, PermanentError)
    assert "nothing is ever sent there" in str(error)
    assert asked == ["hooks.example.com"], "resolved once"


async def test_spellings_of_a_metadata_address_lead_nowhere() -> None:
    for host in ("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:a9fe:a9fe]"):
        try:
            alerter = WebhookAlerter(f"http://{host}/latest")
        except InvalidTask:
            continue
        error = await failure(lambda alerter=alerter: alerter.send(ALERT))
        assert isinstance(error, PermanentError | NotDelivered)
        assert "SECRET" not in str(error)


def test_secrets_that_cannot_be_are_refused_and_never_shown() -> None:
    for secret in ("whsec_", "", "whsec_a", ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ""]):
        if secret == "":
            continue
        with pytest.raises(InvalidTask, match="^secret: "):
            WebhookAlerter("http://127.0.0.1/", secret)
    shown = repr(WebhookAlerter(f"http://me:hunter2@127.0.0.1/{SECRET_PATH}", OLD))
    assert OLD[6:] not in shown
    assert "hunter2" not in shown
    assert SECRET_PATH not in shown


# Slack


async def test_slack_gets_blocks(sink: Receiver) -> None:
    await SlackAlerter(sink.url).send(ALERT)
    body = orjson.loads(sink.requests[0].body)
    assert "10,000 tasks of mail.send died" in body["text"]
    assert [block["type"] for block in body["blocks"]] == [
        *("header", "section", "section", "section", "section"),
        *("section", "actions"),
    ]
    assert SECRET_PATH not in repr(SlackAlerter(f"https://hooks.slack.com/services/{SECRET_PATH}"))


# Mail


async def test_a_mail_has_a_text_and_an_html_part() -> None:
    with mail_server() as box:
        await EmailAlerter("127.0.0.1", ["a@example.com", "b@example.com"], port=box.port).send(ALERT)
    (mail,) = box.mails
    assert box.recipients == [["a@example.com", "b@example.com"]]
    assert mail["Subject"] == "[deadletter] 10,000 tasks of mail.send died: SMTPServerDisconnected"
    assert mail["Message-ID"] == "<0193-alert@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    text, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
    assert "deadletter show 0193-sample" in text.get_content()
    assert "<h1" in html.get_content()


async def test_starttls_with_a_login() -> None:
    with mail_server(starttls=True, password="hunter2") as box:
        alerter = EmailAlerter(
            "localhost", "ops@example.com", port=box.port, username="user", password="hunter2", tls=client_tls()
        )
        await alerter.send(ALERT)
        assert (box.encrypted, len(box.logins)) == ([True], 1)
        untrusting = EmailAlerter("localhost", "ops@example.com", port=box.port, username="user", password="hunter2")
        assert isinstance(await failure(lambda: untrusting.send(ALERT)), NotDelivered)
        assert len(box.mails) == 1


async def test_tls_from_the_start() -> None:
    with mail_server(tls=True, password="hunter2") as box:
        alerter = EmailAlerter(
            *("localhost", "ops@example.com"),
            port=box.port,
            username="user",
            password="hunter2",
            security="tls",
            tls=client_tls(),
        )
        await alerter.send(ALERT)
        assert (box.encrypted, len(box.logins)) == ([True], 1)


async def test_a_relay_on_this_machine_needs_neither_tls_nor_login() -> None:
    with mail_server() as box:
        await EmailAlerter(
            "127.0.0.1", "ops@example.com", port=box.port, username="me@example.com", password="hunter2"
        ).send(ALERT)
        assert box.mails[0]["From"] == "deadletter <me@example.com>"
    with mail_server(password="hunter2", login_needs_tls=False) as box:
        await EmailAlerter(
            "127.0.0.1", "ops@example.com", port=box.port, username="user", password="hunter2", security="plain"
        ).send(ALERT)
        assert len(box.logins) == 1


async def test_a_server_without_starttls_gets_no_password_where_it_must_have_it() -> None:
    with mail_server(password="hunter2", login_needs_tls=False) as box:
        alerter = EmailAlerter(
            "127.0.0.1", "o@example.com", port=box.port, username="user", password="hunter2", security="starttls"
        )
        error = await failure(lambda: alerter.send(ALERT))
        assert isinstance(error, NotDelivered)
        assert "STARTTLS" in str(error)
        assert (box.mails, box.logins) == ([], [])


@pytest.mark.parametrize(
    ("answer", "kind"), [("451 SECRET later", NotDelivered), ("554 SECRET never", PermanentError)], ids=["4xx", "5xx"]
)
async def test_the_servers_code_decides_whether_a_mail_is_tried_again(answer: str, kind: type[Exception]) -> None:
    with mail_server() as box:
        box.answers.append(answer)
        error = await failure(lambda: EmailAlerter("127.0.0.1", "ops@example.com", port=box.port).send(ALERT))
        assert type(error) is kind


async def test_a_wrong_password_is_told_without_it() -> None:
    with mail_server(starttls=True, password="other") as box:
        alerter = EmailAlerter(
            "localhost", "ops@example.com", port=box.port, username="user", password="hunter2", tls=client_tls()
        )
        assert "refused the login" in str(await failure(lambda: alerter.send(ALERT)))
    assert "hunter2" not in repr(alerter)


async def test_no_mail_server_is_no_end() -> None:
    assert isinstance(
        await failure(lambda: EmailAlerter("127.0.0.1", "o@example.com", port=9, timeout=1).send(ALERT)), NotDelivered
    )


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("to", {"to": "nobody"}),
        ("to", {"to": "a@b.example\r\nBcc: c@d.example"}),
        ("to", {"to": []}),
        ("sender", {"sender": "x\n@example.com"}),
        ("host", {"host": ""}),
        ("host", {"host": "mail\n.example.com"}),
        ("port", {"port": 0}),
        ("port", {"port": "25"}),
        ("security", {"security": "none"}),
        ("username", {"username": "me"}),
        ("name", {"name": "a b"}),
        ("timeout", {"timeout": -1}),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(field: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask, match=f"^{field}: "):
        EmailAlerter(**{"host": "localhost", "to": "ops@example.com", **options})


# Log and Apprise


async def test_the_log_says_it_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "deadletter.alerts"):
        for alert in one_of_each():
            await LogAlerter().send(alert)
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert caplog.records[0].levelname == "ERROR"
    assert caplog.records[0].facts["count"] == 10_000  # type: ignore[attr-defined]


async def test_apprise_delivers_and_says_when_it_could_not(sink: Receiver) -> None:
    url = sink.url.replace("http://", "json://")
    await AppriseAlerter(url).send(ALERT)
    assert "10,000 tasks" in orjson.loads(sink.requests[0].body)["title"]
    sink.answers.append(500)
    assert isinstance(await failure(lambda: AppriseAlerter([url]).send(ALERT)), NotDelivered)
    for urls in ("nonsense", [], [url, f"nosuch://{SECRET_PATH}"]):
        with pytest.raises(InvalidTask, match="^urls: ") as refused:
            AppriseAlerter(urls)
        assert SECRET_PATH not in str(refused.value)


def test_each_channel_has_a_name_of_its_own(sink: Receiver) -> None:
    made: list[Alerter] = [
        EmailAlerter("localhost", "o@example.com"),
        SlackAlerter(sink.url),
        WebhookAlerter(sink.url),
        LogAlerter(),
        AppriseAlerter(sink.url.replace("http:", "json:")),
    ]
    assert [each.channel for each in made] == ["email", "slack", "webhook", "log", "apprise"]
    assert WebhookAlerter(sink.url, name="pager").channel == "pager"


def test_an_alert_is_what_a_channel_of_your_own_gets() -> None:
    assert isinstance(ALERT, Alert)
