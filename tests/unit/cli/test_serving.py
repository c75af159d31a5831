"""What serve refuses, before it serves anything."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deadletter.cli.exits import run


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The one line that says why."""

    def ask(*options: str, **environment: str) -> str:
        for name in ("DEADLETTER_API_TOKENS", "DEADLETTER_API_TOKENS_FILE", "DEADLETTER_APP", "DEADLETTER_URL"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert run(["serve", f"--url=sqlite:///{tmp_path / 'a.db'}", *options]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        [line] = err.splitlines()
        return line

    return ask


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_an_address_that_others_reach_wants_tokens(refused, host):
    assert "set DEADLETTER_API_TOKENS, or say --insecure" in refused("--host", host)


def test_a_port_that_is_taken_is_named(refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in refused("--port", str(port))
    assert "--port: 70000 is no port" in refused("--port", "70000")
    assert "cannot listen on" in refused("--host", "no.such.host.invalid", DEADLETTER_API_TOKENS="read:x")


def test_bad_tokens_are_named_and_never_shown(refused, tmp_path):
    for text in ("root:hush-hush", "hush-hush", "read:hush hush"):
        line = refused(DEADLETTER_API_TOKENS=text)
        assert "DEADLETTER_API_TOKENS: " in line
        assert "hush" not in line
    file = tmp_path / "tokens"
    assert "DEADLETTER_API_TOKENS_FILE: cannot read" in refused(DEADLETTER_API_TOKENS_FILE=str(file))
    file.write_text("\n")
    assert "DEADLETTER_API_TOKENS_FILE: there is no token" in refused(DEADLETTER_API_TOKENS_FILE=str(file))
    file.write_bytes(b"\xff\xfe")
    assert "it is no text" in refused(DEADLETTER_API_TOKENS_FILE=str(file))
    assert "set one of them" in refused(DEADLETTER_API_TOKENS_FILE=str(file), DEADLETTER_API_TOKENS="read:x")
