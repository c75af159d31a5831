"""Commands on a server: the same words and the same output as on the store behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deadletter import DeadLetterQueue, State, Task
from deadletter.cli.exits import run

from .servers import Serving

SECRET = "hunter2-and-more"
TOKEN = "an-admin-token"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('remote') / 'a.db'}"
    dlq = DeadLetterQueue(url, name="Mühle 1", release="v1")
    for n in range(12):
        payload = {"n": n, "password": SECRET, "customer": {"id": n % 3}}
        task = Task(type=f"email.{n % 2}", id=f"task-{n}", payload=payload, metadata={"tenant": "t"}, max_retries=n)
        dlq.sync.capture(task, ValueError(f"refused {SECRET} of {n}"))
    dlq.sync.enqueue(Task(type="report", id="waiting", delay=3600))
    dlq.sync.enqueue(Task(type="report", id="another", delay=3600))
    dlq.sync.aclose()
    return url


@pytest.fixture(scope="module")
def server(store: str) -> Iterator[Serving]:
    with Serving(store, "--queue", "Mühle 1", DEADLETTER_API_TOKENS=f"admin:{TOKEN},read:a-read-token") as serving:
        yield serving
        assert serving.stop() == 0


@pytest.fixture
def both(store: str, server: Serving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command on the store and on the server; answers what both print, and their exit code."""
    monkeypatch.setenv("DEADLETTER_TOKEN", TOKEN)
    monkeypatch.delenv("DEADLETTER_URL", raising=False)

    def ask(*tokens: str) -> tuple[int, str]:
        code = run([*tokens, "--url", store, "--queue", "Mühle 1"])
        out, err = capsys.readouterr()
        far = run([*tokens, "--url", server.base])
        far_out, far_err = capsys.readouterr()
        assert (far, far_out.replace(server.base, store), far_err.replace(server.base, store)) == (code, out, err), (
            tokens
        )
        assert SECRET not in far_out
        return code, far_out

    return ask


@pytest.mark.parametrize("form", [pytest.param([], marks=pytest.mark.full), ["--json"]], ids=["plain", "json"])
def test_looking_is_the_same(both, form):
    for tokens in (
        ["ls"],
        ["ls", "--limit", "5", "--type", "email.*", "--older-than", "0s"],
        ["ls", "--state", "pending"],
        ["ls", "--payload", "customer.id=1", "--metadata", "tenant=t", "--ids", "task-1", "task-2"],
        ["ls", "--type", "nothing"],
        ["search", "REFUSED", "--newer-than", "1d"],
        ["search", SECRET],
        ["show", "task-3"],
        ["show", "waiting"],
        ["groups"],
        ["groups", "--by", "type", "--payload", "customer.id=1", "--ids", "task-1", "task-4"],
    ):
        assert both(*tokens, *form)[0] == 0
    assert both("show", "nobody", *form)[0] == 1
    assert both("show", "a/../b\x00", *form)[0] == 1
    assert both("check", "--max-items", "3")[0] == 1


def test_changing_is_the_same(store, server, monkeypatch, capsys):
    monkeypatch.setenv("DEADLETTER_TOKEN", TOKEN)
    dlq = DeadLetterQueue(store, name="Mühle 1")

    def on_server(*tokens: str, code: int = 0) -> str:
        assert run([*tokens, "--url", server.base]) == code
        return capsys.readouterr().out

    assert on_server("stats").split()[:4] == ["queue", "Mühle", "1", "on"]
    assert (
        on_server("retry", "task-0", "--payload", '{"n": 1}', "--type", "email.9", "--delay", "5m")
        == "task-0 pending\n"
    )
    assert dlq.sync.get("task-0").task.payload == {"n": 1}
    on_server("retry", "task-0", code=1)
    on_server("retry", "task-1", "--type", "\x00", code=2)
    assert on_server("cancel", "waiting") == "waiting cancelled\n"
    on_server("cancel", "task-1", code=1)
    assert "2 would be changed" in on_server("retry-all", "--ids", "task-1", "task-2", "nobody", "--dry-run")
    assert '"changed":2' in on_server("retry-all", "--ids", "task-1", "task-2", "--yes", "--json")
    assert dlq.sync.get("task-2").state is State.PENDING
    assert '"changed":1' in on_server("purge", "--ids", "task-3", "--payload", "customer.id=0", "--yes", "--json")
    assert '"matched":0' in on_server("purge", "--payload", f"password={SECRET}", "--yes", "--json")
    assert "1 would be changed" in on_server("erase", "--ids", "another", "nobody", "--dry-run")
    assert '"changed":1' in on_server("erase", "--ids", "another", "--why", "asked for", "--yes", "--json")
    assert '"matched":0' in on_server("erase", "--payload", f"password={SECRET}", "--yes", "--json")
    assert "email.* paused: mail is down" in on_server("pause", "email.*", "--why", "mail is down")
    assert "email.* resumed" in on_server("resume", "email.*")
    assert "nothing was paused" in on_server("resume")
    dlq.sync.aclose()


def test_what_cannot_be_is_one_line(server, store, monkeypatch, capsys):
    def told(*tokens: str) -> str:
        assert run([*tokens]) == 2
        out, err = capsys.readouterr()
        [line] = err.splitlines()
        assert out == ""
        return line

    assert "a token is needed" in told("ls", "--url", server.base)
    monkeypatch.setenv("DEADLETTER_TOKEN", "wrong-token")
    assert "wrong-token" not in told("ls", "--url", server.base)
    monkeypatch.setenv("DEADLETTER_TOKEN", "a-read-token")
    assert "scope write" in told("pause", "x", "--why", "y", "--url", server.base)
    assert "does not answer" in told("ls", "--url", "http://127.0.0.1:1")
    assert "this command works on a store" in told("export", "--url", server.base)
    assert "shows no hidden values" in told("ls", "--reveal", "--url", server.base)
    assert "leave them out" in told("ls", "--queue", "q", "--url", server.base)
    assert "DEADLETTER_TOKEN" in told("ls", "--url", server.base.replace("http://", "http://me:secret@"))
    assert "is a server already" in told("serve", "--url", server.base)
    assert "is a store" in told("open", "--url", store)


def test_open_leads_to_the_dashboard(server, monkeypatch, capsys):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)))
    assert run(["open", "--url", server.base]) == 0
    assert (opened, capsys.readouterr().out) == ([f"{server.base}/"], f"{server.base}/\n")
    monkeypatch.setitem(os.environ, "DEADLETTER_URL", server.base)
    assert run(["open", "--json"]) == 0
    assert capsys.readouterr().out == f'{{"url":"{server.base}/","opened":false}}\n'
