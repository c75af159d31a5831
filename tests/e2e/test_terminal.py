"""Each command on a terminal: what it draws, what it asks, what Ctrl-C does, and how it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pexpect
import pytest

import deadletter
from deadletter import DeadLetterQueue, Query, Task

COMMAND = [sys.executable, "-m", "deadletter"]
LONGEST = 30
SGR = re.compile(r"\x1b\[[0-9;]*m")

Spawn = Callable[..., pexpect.spawn]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three letters and a pending task."""
    path = tmp_path_factory.mktemp("filled") / "filled.db"
    dlq = DeadLetterQueue(f"sqlite:///{path}")
    for n in range(3):
        dlq.sync.capture(Task(type="mail", id=f"letter-{n}", payload={"n": n}), ValueError(f"refused {n}"))
    dlq.sync.enqueue(Task(type="mail", id="waiting", delay=5000))
    dlq.sync.aclose()
    return path


@pytest.fixture
def path(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(filled, tmp_path / "a.db"))


@pytest.fixture
def environ(path: Path) -> Mapping[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DEADLETTER_")}
    here = str(Path(deadletter.__file__).parents[1])
    ours = {"DEADLETTER_URL": f"sqlite:///{path}", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": here, "TERM": "xterm"}
    return {**{name: text for name, text in kept.items() if name != "NO_COLOR"}, **ours}


@pytest.fixture
def spawn(environ: Mapping[str, str], tmp_path: Path) -> Spawn:
    def start(*tokens: str, **more: str) -> pexpect.spawn:
        return pexpect.spawn(
            COMMAND[0],
            [*COMMAND[1:], *tokens],
            env={**environ, **more},
            cwd=str(tmp_path),
            encoding="utf-8",
            timeout=LONGEST,
            dimensions=(50, 160),
        )

    return start


def end(child: pexpect.spawn, code: int = 0) -> str:
    """Everything from here to the end, which comes with this exit code."""
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, child.signalstatus) == (code, None), child.before
    return str(child.before).replace("\r\n", "\n")


def left(path: Path, query: Query | None = None) -> list[str]:
    dlq = DeadLetterQueue(f"sqlite:///{path}")
    items = dlq.sync.list(query or Query()).items
    dlq.sync.aclose()
    return sorted(item.id for item in items)


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        (["ls"], r"ID +TYPE +DIED +TRIES +WHY +ERROR"),
        (["ls", "--state", "pending"], r"waiting +mail +in 1h +0 +pending"),
        (["show", "letter-1"], r"state +dead \(captured\)"),
        (["search", "REFUSED 2"], r"letter-2 +mail +\d+s ago"),
        (["groups"], r"FINGERPRINT +COUNT +TYPE +LAST +ERROR"),
        (["stats"], r"dead +3\n"),
        (["check"], r"healthy"),
        (["doctor"], r"queues +default\n"),
        (["simulate", "--outage", "30s"], r"█"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_looks_is_drawn(spawn: Spawn, tokens: list[str], shown: str) -> None:
    assert re.search(shown, SGR.sub("", end(spawn(*tokens))))


def test_check_ends_with_1_when_unhealthy(spawn: Spawn) -> None:
    assert end(spawn("check", "--max-items", "2"), 1) == "3 dead letters, more than 2\n"


@pytest.mark.parametrize("tokens", [["--help"], ["ls"], ["groups"], ["show", "letter-0"]], ids=lambda tokens: tokens[0])
def test_without_colour_nothing_is_styled(spawn: Spawn, tokens: list[str]) -> None:
    assert "\x1b" in end(spawn(*tokens))
    assert "\x1b" not in end(spawn(*tokens, NO_COLOR="1"))


@pytest.mark.parametrize(
    ("tokens", "asked", "done", "remain"),
    [
        (["retry-all", "--everything"], "retry 3 letters", "3 of 3 changed", []),
        (["purge", "--limit", "1"], "delete 1 letter", "1 of 1 changed", ["letter-1", "letter-2"]),
        (["erase", "--type", "mail", "--rate", "100"], "erase 4 tasks", "4 of 4 changed", []),
    ],
    ids=["retry-all", "purge", "erase"],
)
def test_what_changes_many_says_how_many_and_asks(
    spawn: Spawn, path: Path, tokens: list[str], asked: str, done: str, remain: list[str]
) -> None:
    question = f"{asked} of queue 'default' on sqlite:///{path}? [y/N] "
    child = spawn(*tokens)
    child.expect_exact(question)
    child.sendline("")
    assert "nothing was changed" in end(child, 1)
    assert len(left(path)) == 3
    child = spawn(*tokens)
    child.expect_exact(question)
    child.sendline("y")
    assert done in end(child)
    assert left(path) == remain


def test_ctrl_c_at_the_question_changes_nothing(spawn: Spawn, path: Path) -> None:
    child = spawn("purge", "--everything")
    child.expect_exact("[y/N] ")
    child.sendintr()
    # The terminal ends the line only where it was being read already.
    assert end(child, 130).replace("\n", "") == "^Cdeadletter: interrupted"
    assert len(left(path)) == 3


def test_ctrl_c_on_the_way_keeps_what_is_done(spawn: Spawn, path: Path) -> None:
    child = spawn("retry-all", "--everything", "--rate", "1", "--yes")
    child.expect("retrying")
    while len(left(path)) == 3:
        pass
    child.sendintr()
    assert "deadletter: interrupted\n" in end(child, 130)
    assert 0 < len(left(path)) < 3


def test_nothing_matches_nothing_is_asked(spawn: Spawn) -> None:
    assert end(spawn("purge", "--type", "nobody")) == "0 of 0 changed\n"


def test_single_changes_are_told_and_not_asked_for(spawn: Spawn, path: Path) -> None:
    assert end(spawn("retry", "letter-0", "letter-1", "--delay", "1h")) == "letter-0 pending\nletter-1 pending\n"
    assert end(spawn("cancel", "waiting")) == "waiting cancelled\n"
    assert end(spawn("cancel", "waiting"), 1) == "deadletter: no task 'waiting' is known here\n"
    assert left(path) == ["letter-2"]


def test_letters_move_through_a_pipe_while_the_bar_is_on_the_terminal(
    spawn: Spawn, environ: Mapping[str, str], path: Path, tmp_path: Path
) -> None:
    """Stdout holds the letters and nothing else, whatever is drawn on stderr."""
    command = f"{' '.join(COMMAND)} export --reveal > out.ndjson"
    child = pexpect.spawn(
        "/bin/sh", ["-c", command], env=dict(environ), cwd=str(tmp_path), encoding="utf-8", timeout=LONGEST
    )
    assert "3 exported" in end(child)
    assert (tmp_path / "out.ndjson").read_text().count("\n") == 3
    assert "3 read, 3 stored" in end(spawn("import", "out.ndjson", "--url", "sqlite:///b.db"))
    assert left(tmp_path / "b.db") == left(path)


APP = """
from deadletter import DeadLetterQueue

dlq = DeadLetterQueue.from_env()

@dlq.processor("mail")
def mail(task):
    pass
"""


def test_a_worker_logs_plain_lines_and_drains_on_ctrl_c(spawn: Spawn, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    child = spawn("worker", "--app", "shop:dlq")
    child.expect(r"info +worker .* takes mail from sqlite:")
    child.sendintr()
    child.expect("SIGINT: draining 0 attempts; a second one stops at once")
    assert "stopped" in end(child)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["lss"], 'Did you mean "ls"?'),
        (["ls", "--urll", "x"], "Did you mean --url?"),
        (["show", "nobody"], "no task 'nobody' is known here"),
        (["ls", "--url", "sqlite:///none.db"], "none.db does not exist"),
    ],
    ids=["command", "flag", "id", "file"],
)
def test_a_mistake_is_one_line(spawn: Spawn, tokens: list[str], said: str) -> None:
    [line] = end(spawn(*tokens), 1 if tokens[0] == "show" else 2).splitlines()
    assert line.startswith("deadletter: ")
    assert said in line


def test_sigint_off_a_terminal_ends_it_too(environ: Mapping[str, str]) -> None:
    child = subprocess.Popen(
        [*COMMAND, "retry-all", "--everything", "--rate", "0.05", "--yes"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    path = Path(environ["DEADLETTER_URL"].removeprefix("sqlite:///"))
    while len(left(path)) == 3:
        pass
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=LONGEST)
    assert (child.returncode, out, err) == (130, b"", b"deadletter: interrupted\n")
