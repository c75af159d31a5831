"""The guide's variables, and ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from deadletter import Alerter, InvalidSetting
from deadletter.alerts import LogAlerter, alerters_from_env, environment
from deadletter.alerts.environment import monitor_options
from deadletter.cli.exits import run

from ...sinks import client_tls, mail_server, receiver

MAIL = {"SMTP_HOST": "smtp.gmail.com", "ALERT_EMAIL": "alerts@yourdomain.com"}
GUIDE = {
    **MAIL,
    "SMTP_PORT": "587",
    "SMTP_USER": "your-email@gmail.com",
    "SMTP_PASSWORD": "your-app-password",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/YOUR/WEBHOOK/URL",
    "ALERT_WEBHOOK_URL": "https://your-webhook-endpoint.com/alerts",
}
VARIABLES = (
    *GUIDE,
    *("SMTP_SECURITY", "SMTP_FROM", "ALERT_WEBHOOK_SECRET", "ALERT_WEBHOOK_FORMAT", "ALERT_APPRISE_URLS"),
    *("ALERT_TIMEZONE", "ALERT_SUMMARY_AT", "ALERT_DASHBOARD_URL", "ALERT_HEARTBEAT_URL", "ALERT_QUIET_HOURS"),
)


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> pytest.MonkeyPatch:
    """An environment in which nothing of ours is set."""
    for variable in (*VARIABLES, "DEADLETTER_URL", "DEADLETTER_QUEUE", "DEADLETTER_APP"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_the_guides_variables_make_three_channels() -> None:
    assert [alerter.channel for alerter in alerters_from_env(GUIDE)] == ["email", "slack", "webhook"]
    assert alerters_from_env(dict.fromkeys(GUIDE, "")) == []


@pytest.mark.parametrize(
    ("variable", "environ"),
    [
        ("SMTP_HOST", {"ALERT_EMAIL": "a@b.example"}),
        ("ALERT_EMAIL", {"SMTP_HOST": "mail"}),
        ("ALERT_EMAIL", {**MAIL, "ALERT_EMAIL": "nobody"}),
        ("SMTP_PORT", {**MAIL, "SMTP_PORT": "smtp"}),
        ("SMTP_PORT", {**MAIL, "SMTP_PORT": "99999"}),
        ("SMTP_PASSWORD", {**MAIL, "SMTP_USER": "me"}),
        ("SMTP_USER", {**MAIL, "SMTP_PASSWORD": "hunter2"}),
        ("SMTP_SECURITY", {**MAIL, "SMTP_SECURITY": "ssl"}),
        ("SMTP_FROM", {**MAIL, "SMTP_FROM": "x y"}),
        ("SLACK_WEBHOOK_URL", {"SLACK_WEBHOOK_URL": "hooks.slack.com/hunter2"}),
        ("ALERT_WEBHOOK_URL", {"ALERT_WEBHOOK_URL": "file:///hunter2"}),
        ("ALERT_WEBHOOK_URL", {"ALERT_WEBHOOK_SECRET": "whsec_hunter2"}),
        ("ALERT_WEBHOOK_SECRET", {"ALERT_WEBHOOK_URL": "http://x/", "ALERT_WEBHOOK_SECRET": "whsec_a"}),
        ("ALERT_WEBHOOK_FORMAT", {"ALERT_WEBHOOK_URL": "http://x/", "ALERT_WEBHOOK_FORMAT": "xml"}),
        ("ALERT_APPRISE_URLS", {"ALERT_APPRISE_URLS": "nosuch://hunter2"}),
    ],
)
def test_a_bad_value_is_told_by_its_variable_and_no_secret(variable: str, environ: Mapping[str, str]) -> None:
    with pytest.raises(InvalidSetting) as refused:
        alerters_from_env(environ)
    assert refused.value.name == variable
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_monitors_options() -> None:
    told = monitor_options(
        {
            "ALERT_TIMEZONE": "Europe/Vienna",
            "ALERT_SUMMARY_AT": "7:30",
            "ALERT_DASHBOARD_URL": "https://dlq.example.com",
            "ALERT_QUIET_HOURS": "22:00-06:00",
        }
    )
    quiet = told.pop("quiet_hours")
    assert (str(quiet.timezone), f"{quiet.start:%H:%M}") == ("Europe/Vienna", "22:00")
    assert told == {"timezone": "Europe/Vienna", "summary_at": "07:30", "dashboard": "https://dlq.example.com"}
    assert monitor_options({"ALERT_SUMMARY_AT": "none"}) == {"summary_at": None}
    for variable, text in {
        "ALERT_TIMEZONE": "Moon",
        "ALERT_SUMMARY_AT": "noon",
        "ALERT_DASHBOARD_URL": "dlq",
        "ALERT_HEARTBEAT_URL": "x",
        "ALERT_QUIET_HOURS": "night",
    }.items():
        with pytest.raises(InvalidSetting) as refused:
            monitor_options({variable: text})
        assert refused.value.name == variable


def test_an_installed_package_adds_a_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    def pager(environ: Mapping[str, str]) -> Alerter | None:
        return LogAlerter(name="pager") if environ.get("PAGER") else None

    monkeypatch.setattr(environment, "_installed", lambda: [pager])
    assert [each.channel for each in alerters_from_env({"PAGER": "1"})] == ["pager"]
    assert alerters_from_env({}) == []


# The command


def test_none_configured_is_exit_2_in_one_line(environ: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["monitor", "--test-alert"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("deadletter: no channel is configured: set SMTP_HOST and ALERT_EMAIL, ")
    assert err.count("\n") == 1


def test_a_bad_value_is_exit_2_and_names_the_variable(
    environ: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for test in ([], ["--test-alert"]):
        environ.setenv("SLACK_WEBHOOK_URL", "hunter2")
        assert run(["monitor", *test]) == 2
        err = capsys.readouterr().err
        assert err.startswith("deadletter: SLACK_WEBHOOK_URL: ")
        assert "hunter2" not in err
        assert err.count("\n") == 1


def test_the_guides_environment_sends_through_every_channel_and_exits_0(
    environ: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with mail_server(starttls=True, password="hunter2") as box, receiver() as slack, receiver() as webhook:
        environ.setattr("ssl.create_default_context", lambda *_, **__: client_tls_once())
        for variable, value in {
            "SMTP_HOST": "localhost",
            "SMTP_PORT": str(box.port),
            "SMTP_USER": "user",
            "SMTP_PASSWORD": "hunter2",
            "ALERT_EMAIL": "alerts@yourdomain.com",
            "SLACK_WEBHOOK_URL": slack.url,
            "ALERT_WEBHOOK_URL": webhook.url,
        }.items():
            environ.setenv(variable, value)
        assert run(["monitor", "--test-alert"]) == 0
        assert capsys.readouterr().out == "email: sent\nslack: sent\nwebhook: sent\n"
        assert (len(box.mails), len(slack.requests), len(webhook.requests)) == (1, 1, 1)
        slack.answers.append(500)
        assert run(["monitor", "--test-alert"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "email: sent"
        assert lines[1].startswith("slack: failed: http://127.0.0.1:")
        assert lines[1].endswith("answered 500")
        assert lines[2] == "webhook: sent"
        assert not os.path.exists("deadletter.db"), "a test needs no store"


_TRUSTING = client_tls()


def client_tls_once() -> Any:
    """What trusts our authority; made before ``create_default_context`` was replaced."""
    return _TRUSTING
