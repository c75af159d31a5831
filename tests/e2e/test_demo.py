"""The demo, for real: its account closes, and can fail to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import redis

from ..redis_servers import Server, debian_program

COMMAND = [sys.executable, "-m", "deadletter"]


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DEADLETTER_")}
    return {**kept, "TMPDIR": str(tmp_path)}


def _demo(environ: Mapping[str, str], *tokens: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "demo", *tokens]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=110)


def _children(marker: str) -> list[int]:
    """Processes that have the marker in their command line or environment."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                text = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            except OSError:
                continue
            if marker.encode() in text and int(place.name) != os.getpid():
                found.append(int(place.name))
    return found


def test_a_thousand_deliveries_survive_and_the_account_closes(environ: Mapping[str, str], tmp_path: Path) -> None:
    done = _demo(environ, "--json")
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)
    assert (account["accepted"], account["delivered"], account["lost"]) == (1000, 997, 0)
    assert account["still_dead"] == 3
    assert account["replayed"] >= 115
    assert account["retried"] > account["replayed"]
    assert account["closes"] is True
    assert account["problems"] == []
    assert account["seconds"] < 30
    for scene in ("kill -9", "the receiver is down", "by cause", "mended", "replayed", "Try next"):
        assert scene in done.stderr
    assert _children(str(tmp_path)) == []
    ls = subprocess.run([*COMMAND, "ls", "--url", account["url"]], capture_output=True, text=True, check=True)
    assert len(ls.stdout.splitlines()) == 3


@pytest.mark.full
def test_the_account_of_a_receiver_that_loses_one_of_a_hundred_does_not_close(environ: Mapping[str, str]) -> None:
    """Several are lost, since one alone may be delivered again by the worker that took over from the killed one."""
    done = _demo(environ, "--deliveries", "600", "--drop-every", "100")
    assert done.returncode == 1, done.stdout
    assert "it does NOT close" in done.stdout
    assert re.search(r"! [1-9] accepted, and neither in the receiver's log nor dead", done.stdout)
    assert done.stderr == ""


def test_ctrl_c_leaves_no_child(environ: Mapping[str, str], tmp_path: Path) -> None:
    demo = subprocess.Popen([*COMMAND, "demo"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "accepted" in line:
            break
    assert len(_children(str(tmp_path))) == 5
    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=30)
    assert (demo.returncode, err) == (130, "deadletter: interrupted\n")
    until = time.monotonic() + 10
    while _children(str(tmp_path)):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_too_few_deliveries_are_refused(environ: Mapping[str, str]) -> None:
    done = _demo(environ, "--deliveries", "3")
    assert done.returncode == 2
    assert done.stderr == "deadletter: --deliveries: 3 makes no demonstration; give 100 to 100000\n"


@pytest.fixture
def durable() -> Iterator[Server]:
    server = Server(debian_program(), "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.end()


def _until(demo: subprocess.Popen[str], word: str) -> None:
    assert demo.stderr is not None
    for line in demo.stderr:
        if word in line:
            return
    pytest.fail(f"the demo ended without a word of {word!r}")


def _frozen_leases(server: Server) -> float:
    """When the last lease ends that anybody holds; from here on nothing changes on the server."""
    with server.client() as client:
        while True:
            _until_leased(client)
            client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
            if ends := _lease_ends(client):
                return max(ends)
            client.execute_command("CLIENT", "UNPAUSE")


def _until_leased(client: redis.Redis) -> None:
    while not _lease_ends(client):
        time.sleep(0.01)


def _lease_ends(client: redis.Redis) -> list[float]:
    keys = client.scan_iter("dl:{demo-??????:0}:lease")  # not those of its workers' presence
    return [ends_ms for key in keys for _, ends_ms in client.zrange(key, -1, -1, withscores=True)]


def _until_clock(ms: float) -> None:
    """Wait until this machine's clock, which is the server's too, has passed a time."""
    while time.time() * 1000 <= ms:
        time.sleep(0.01)


@pytest.mark.full
def test_the_account_closes_also_when_the_server_is_killed(environ: Mapping[str, str], durable: Server) -> None:
    """Twice by SIGKILL, while workers deliver and while they retry; it stays away once for longer than a lease."""
    command = [*COMMAND, "demo", "--url", durable.url(), "--json"]
    demo = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _until(demo, "deliveries accepted")
        durable.kill()
        _until(demo, "the store is away")
        durable.start()
        _until(demo, "the store is back")
        _until(demo, "the receiver is up again")
        last_lease_ms = _frozen_leases(durable)
        durable.kill()
        _until(demo, "the store is away")
        _until_clock(last_lease_ms)
        durable.start()
        out, err = demo.communicate(timeout=150)
    finally:
        demo.kill()
        demo.wait()
    account = json.loads(out)
    assert demo.returncode == 0, (account, err)
    assert (account["accepted"], account["delivered"], account["lost"]) == (1000, 997, 0)
    assert account["problems"] == []
