"""The command as a process: in a pipe, as a worker under signals and under a supervisor."""

from __future__ import annotations

import json
import os
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


def _letters(dlq: DeadLetterQueue, count: int = 3) -> None:
    for n in range(count):
        task = Task(type="note", id=f"letter-{n}", payload={"n": n, "text": "[red]\x1b]0;owned\x07"})
        dlq.sync.capture(task, ValueError(f"[bold]refused[/bold] \x1b[2J{n}"))


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
