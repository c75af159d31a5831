"""``deadletter serve`` as a real process: the guide's curls, signals, refusals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from deadletter import DeadLetterQueue, State, Task

from ..redis_servers import valkey
from .servers import Serving

GUIDE = Path(__file__).parent / "guide"
# The guide's port is on this machine for anybody: curl is led to ours, and asks for localhost:5002 all the same.
CURL = 'curl() { command curl -sS --connect-to "localhost:5002:127.0.0.1:$PORT" -w "\\n%{http_code}\\n" "$@"; }\n'


def bash(name: str, port: int) -> list[tuple[int, dict]]:
    """Run a block of the guide as it stands; answers the status and document of each curl."""
    script = CURL + (GUIDE / f"{name}.sh.txt").read_text()
    done = subprocess.run(
        ["bash", "-eu", "-c", script], env={**os.environ, "PORT": str(port)}, capture_output=True, text=True, check=True
    )
    answers = re.findall(r"(.*)\n(\d{3})\n", done.stdout)
    return [(int(status), json.loads(document)) for document, status in answers]


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.full)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return valkey().emptied() if request.param == "redis" else f"sqlite:///{tmp_path / 'a.db'}"


def test_every_curl_of_the_guide_as_it_stands(url):
    dlq = DeadLetterQueue(url)
    dlq.sync.capture(Task(type="send_email", id="task-123"), ValueError("Timeout of the mail server"))
    for priority in ("high", "normal", "low"):
        dlq.sync.capture(Task(type="report", id=f"{priority}-1", priority=priority), ValueError("no"))
    with Serving(url) as server:
        everything, high, normal, low, stats = bash("view", server.port)
        assert [status for status, _ in (everything, high, normal, low, stats)] == [200] * 5
        assert [page["total"] for _, page in (everything, high, normal, low)] == [4, 1, 2, 1]
        assert stats[1]["by_state"]["dead"] == 4

        by_type, by_error = bash("search", server.port)
        assert [[item["id"] for item in page["items"]] for _, page in (by_type, by_error)] == [["task-123"]] * 2

        one, many = bash("retry", server.port)
        assert one == (200, {"task_id": "task-123", "state": "pending"})
        assert (many[0], many[1]["matched"], many[1]["changed"], many[1]["failed"]) == (200, 1, 1, 0)
        assert dlq.sync.get("task-123").state is dlq.sync.get("normal-1").state is State.PENDING

        assert bash("purge", server.port) == [(200, {"matched": 0, "changed": 0})] * 2
        assert server.stop() == 0
    assert dlq.sync.stats().by_state["dead"] == 2
    dlq.sync.aclose()


def test_it_ends_cleanly_while_clients_listen(tmp_path):
    with Serving(f"sqlite:///{tmp_path / 'a.db'}") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(b"GET /api/dlq/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            heard = b""
            while b": listening" not in heard:
                heard += client.recv(4096)
            assert server.stop() == 0
            rest = b""
            while piece := client.recv(4096):
                rest += piece
        assert "Traceback" not in server.told


@pytest.mark.full
def test_ctrl_c_ends_it_cleanly(tmp_path):
    with Serving(f"sqlite:///{tmp_path / 'a.db'}", DEADLETTER_API_TOKENS="read:a-secret-token") as server:
        assert server.stop(signal.SIGINT) == 0
        assert "a-secret-token" not in server.told


@pytest.mark.full
def test_tokens_of_a_file_open_it_to_other_machines(tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("read:first-token\nadmin:second-token\n")
    with Serving(
        f"sqlite:///{tmp_path / 'a.db'}", "--host", "0.0.0.0", DEADLETTER_API_TOKENS_FILE=str(tokens)
    ) as server:
        asked = ["curl", "-sS", "-o", os.devnull, "-w", "%{http_code}", f"http://127.0.0.1:{server.port}/api/dlq"]
        by_token = [
            subprocess.run([*asked, *more], capture_output=True, text=True, check=True).stdout
            for more in ([], ["-u", "me:first-token"], ["-H", "Authorization: Bearer second-token"], ["-u", "me:other"])
        ]
        assert by_token == ["401", "200", "200", "401"]
