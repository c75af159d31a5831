"""The command as a process: on a terminal, in a pipe, as a worker under signals and under a supervisor."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import deadletter
from deadletter import DeadLetterQueue, Task

COMMAND = [sys.executable, "-m", "deadletter"]
LONGEST = 30.0

APP = """
import os, signal, threading
from pathlib import Path
from deadletter import DeadLetterQueue, current_attempt

dlq = DeadLetterQueue.from_env(lease=2)
here = Path(__file__).parent

@dlq.processor("note")
def note(task):
    with (here / "notes").open("a") as file:
        file.write(f"{task.payload['n']} {os.getpid()}\\n")

@dlq.processor("slow")
async def slow(task):
    import anyio
    (here / "slow-started").touch()
    while not (here / "slow-may-end").exists():
        await anyio.sleep(0.01)
    (here / "slow-ended").touch()
"""


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    (tmp_path / "shop.py").write_text(APP)
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DEADLETTER_")}
    here = str(Path(deadletter.__file__).parents[1])  # a relative PYTHONPATH means nothing in another directory
    ours = {"DEADLETTER_URL": f"sqlite:///{tmp_path / 'a.db'}", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": here}
    return {**kept, **ours}


@pytest.fixture
def dlq(environ: Mapping[str, str]) -> Iterator[DeadLetterQueue]:
    queue = DeadLetterQueue(environ["DEADLETTER_URL"])
    yield queue
    queue.sync.aclose()


def wait_for(true: Callable[[], object], what: str) -> None:
    until = time.monotonic() + LONGEST
    while not true():
        assert time.monotonic() < until, f"{what} never came"
        time.sleep(0.02)


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, environ: Mapping[str, str], *tokens: str, **more: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *tokens],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environ, "TERM": "xterm", "COLUMNS": "160", **more},
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def expect(self, text: str) -> None:
        until = time.monotonic() + LONGEST
        while text not in self.seen:
            assert time.monotonic() < until, f"{text!r} is not in {self.seen!r}"
            if not self._read():
                pytest.fail(f"{text!r} is not in {self.seen!r}")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(LONGEST)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], LONGEST)
        assert ready, f"nothing more after {self.seen!r}"
        try:
            found = os.read(self._master, 65536)
        except OSError:  # Linux says so when the other side is closed
            return False
        self.seen += found.decode().replace("\r\n", "\n")
        return bool(found)


def _letters(dlq: DeadLetterQueue, count: int = 3) -> None:
    for n in range(count):
        task = Task(type="note", id=f"letter-{n}", payload={"n": n, "text": "[red]\x1b]0;owned\x07"})
        dlq.sync.capture(task, ValueError(f"[bold]refused[/bold] \x1b[2J{n}"))


def test_a_terminal_gets_a_table_without_anything_that_steers_it(
    environ: Mapping[str, str], dlq: DeadLetterQueue
) -> None:
    _letters(dlq)
    shown = Terminal(environ, "ls")
    assert shown.end() == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.seen)
    assert "\x1b" not in plain
    assert re.search(r"ID +TYPE +DIED +TRIES +WHY +ERROR", plain)
    assert "ValueError: [bold]refused[/bold] \\x1b[2J2" in plain
    assert " ago" in plain


def test_no_color_is_obeyed(environ: Mapping[str, str], dlq: DeadLetterQueue) -> None:
    _letters(dlq)
    for command in (["show", "letter-1"], ["stats"]):
        shown = Terminal(environ, *command, NO_COLOR="1")
        assert shown.end() == 0
        assert "\x1b" not in shown.seen


def test_show_on_a_terminal(environ: Mapping[str, str], dlq: DeadLetterQueue) -> None:
    _letters(dlq)
    shown = Terminal(environ, "show", "letter-1")
    assert shown.end() == 0
    assert "\x1b[1mpayload\x1b[0m" in shown.seen
    assert "\x1b]0;" not in shown.seen


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 3), ("\n", 1, 3)])
def test_retry_all_on_a_terminal_says_how_many_and_asks(
    environ: Mapping[str, str], dlq: DeadLetterQueue, answer: str, code: int, left: int
) -> None:
    _letters(dlq)
    asked = Terminal(environ, "retry-all", "--everything")
    asked.expect(f"retry 3 letters of queue 'default' on {dlq.backend.url}? [y/N] ")
    asked.type(answer)
    assert asked.end() == code
    assert dlq.sync.stats().by_state["dead"] == left


def test_a_reader_that_has_seen_enough_is_no_error(environ: Mapping[str, str], dlq: DeadLetterQueue) -> None:
    _letters(dlq, 60)
    ls = subprocess.Popen([*COMMAND, "ls", "--json"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ls.stdout is not None
    ls.stdout.close()
    _, err = ls.communicate(timeout=LONGEST)
    assert (ls.returncode, err) == (0, b"")


def test_lists_do_not_load_rich_off_a_terminal(environ: Mapping[str, str], dlq: DeadLetterQueue) -> None:
    _letters(dlq)
    code = "import sys; from deadletter.cli.exits import run; run(['ls']); sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False, timeout=LONGEST).returncode == 0


def _worker(environ: Mapping[str, str], tmp_path: Path, *tokens: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "worker", "--concurrency", "4", *tokens],
        env=environ,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_a_worker_drains_on_sigterm_and_logs_json_on_stderr(
    environ: Mapping[str, str], dlq: DeadLetterQueue, tmp_path: Path
) -> None:
    task_id = dlq.sync.enqueue(Task(type="slow"))
    worker = _worker(environ, tmp_path, "--app", "shop:dlq")
    wait_for((tmp_path / "slow-started").exists, "the attempt")
    worker.send_signal(signal.SIGTERM)
    (tmp_path / "slow-may-end").touch()
    out, err = worker.communicate(timeout=LONGEST)
    assert (worker.returncode, out) == (0, b"")
    assert (tmp_path / "slow-ended").exists()
    assert dlq.sync.get(task_id).state == "succeeded"
    assert {json.loads(line)["level"] for line in err.splitlines()} == {"info"}


def test_a_second_signal_stops_at_once(environ: Mapping[str, str], dlq: DeadLetterQueue, tmp_path: Path) -> None:
    dlq.sync.enqueue(Task(type="slow"))
    worker = _worker(environ, tmp_path, "--import", "shop", "--types", "slow", "--log", "plain")
    wait_for((tmp_path / "slow-started").exists, "the attempt")
    assert worker.stderr is not None
    worker.send_signal(signal.SIGINT)
    for line in worker.stderr:
        if b"draining" in line:
            break
    worker.send_signal(signal.SIGINT)
    assert worker.wait(LONGEST) == 130
    worker.communicate()
    assert not (tmp_path / "slow-ended").exists()


def test_a_worker_that_was_told_of_an_unknown_type_is_refused(environ: Mapping[str, str], tmp_path: Path) -> None:
    worker = _worker(environ, tmp_path, "--app", "shop:dlq", "--types", "sms.*")
    _, err = worker.communicate(timeout=LONGEST)
    assert worker.returncode == 2
    assert err == b"deadletter: --types: none of the registered types matches sms.*\n"


def _notes(tmp_path: Path) -> list[list[str]]:
    file = tmp_path / "notes"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_supervisor_starts_a_killed_worker_again_and_leaves_nobody_behind(
    environ: Mapping[str, str], dlq: DeadLetterQueue, tmp_path: Path
) -> None:
    boss = _worker(environ, tmp_path, "--app", "shop:dlq", "--processes", "2")
    wait_for(lambda: len(dlq.sync.stats().workers) == 2, "two workers")
    pids = {int(worker.name.split(":")[1]) for worker in dlq.sync.stats().workers}
    os.kill(min(pids), signal.SIGKILL)
    wait_for(lambda: {int(w.name.split(":")[1]) for w in dlq.sync.stats().workers} - pids, "another worker")
    pids |= {int(worker.name.split(":")[1]) for worker in dlq.sync.stats().workers}
    dlq.sync.enqueue(Task(type="note", payload={"n": 1}))
    wait_for(lambda: _notes(tmp_path), "the note")
    boss.send_signal(signal.SIGTERM)
    _, err = boss.communicate(timeout=LONGEST)
    assert boss.returncode == 0
    assert b"ended with -9; another starts" in err
    assert not any(map(_alive, pids))


def test_workers_go_when_their_supervisor_is_killed(
    environ: Mapping[str, str], dlq: DeadLetterQueue, tmp_path: Path
) -> None:
    boss = _worker(environ, tmp_path, "--app", "shop:dlq", "--processes", "2")
    wait_for(lambda: len(dlq.sync.stats().workers) == 2, "two workers")
    pids = {int(worker.name.split(":")[1]) for worker in dlq.sync.stats().workers}
    boss.kill()
    boss.communicate()
    wait_for(lambda: not any(map(_alive, pids)), "their end")
