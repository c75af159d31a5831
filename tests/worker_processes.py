"""Worker processes with metrics pages, for tests that look at them from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import deadletter

from .prometheus_server import wait_for

APP = """
import os
from deadletter import DeadLetterQueue, PermanentError

dlq = DeadLetterQueue(os.environ["URL"], retry=[0.01], max_retries=1)

@dlq.processor("flaky")  # fails once, then succeeds
async def flaky(task):
    from deadletter import current_attempt
    if current_attempt().number == 1:
        raise ConnectionError("reset")

@dlq.processor("broken")
async def broken(task):
    raise OSError("no route")

@dlq.processor("refused")
async def refused(task):
    raise PermanentError("no")

@dlq.processor("fine")
def fine(task):
    pass
"""


@contextmanager
def workers(folder: Path, url: str, count: int, *, ports: Sequence[int] = ()) -> Iterator[list[int]]:
    """Worker processes, each with a page of its own; answers their ports. They are killed at the end."""
    (folder / "seen.py").write_text(APP)
    here = str(Path(deadletter.__file__).parents[1])
    environ = {**os.environ, "URL": url, "PYTHONPATH": here, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "deadletter", "worker", "--app", "seen:dlq", "--log", "plain"]
    started = []
    try:
        for n in range(count):
            port = str(ports[n]) if ports else "0"
            log = folder / f"worker-{n}.log"
            with log.open("wb") as out:
                process = subprocess.Popen(
                    [*command, "--metrics-port", port], env=environ, cwd=folder, stdout=out, stderr=out
                )
            started.append((process, log))
        yield [int(wait_for(lambda log=log: _port(log), log.name)) for _, log in started]
    finally:
        for process, _ in started:
            process.send_signal(signal.SIGKILL)
            process.wait(30)


@contextmanager
def serving(folder: Path, url: str) -> Iterator[int]:
    """A ``deadletter serve``; answers its port."""
    here = str(Path(deadletter.__file__).parents[1])
    environ = {**os.environ, "PYTHONPATH": here, "PYTHONDONTWRITEBYTECODE": "1"}
    log = folder / "serve.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "deadletter", "serve", "--url", url, "--port", "0"]
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=out, stderr=out)

    def port() -> int | None:
        assert process.poll() is None, log.read_text()
        found = re.search(r"serving http://127.0.0.1:(\d+)", log.read_text())
        return int(found[1]) if found else None

    try:
        yield wait_for(port, "serve")
    finally:
        process.kill()
        process.wait(30)


def _port(log: Path) -> str | None:
    assert "Traceback" not in log.read_text(), log.read_text()
    found = re.search(r"metrics are on http://127.0.0.1:(\d+)/metrics", log.read_text())
    return found[1] if found else None
