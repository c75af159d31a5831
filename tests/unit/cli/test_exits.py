"""What can go wrong around a command: one line, the right exit code, and never a traceback."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import deadletter
from deadletter import DeadLetterQueue, Task
from deadletter.backends.sqlite import file
from deadletter.cli.exits import run

COMMAND = f'"{sys.executable}" -m deadletter'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    dlq = DeadLetterQueue(f"sqlite:///{path}")
    for n in range(3):
        dlq.sync.capture(Task(type="mail", id=f"letter-{n}", payload={"fill": "x" * 3_000}), ValueError("refused"))
    dlq.sync.aclose()
    return path


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO dl_migrations VALUES (99, 1)")
        connection.commit()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


STORES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no database": (lambda path: path.write_bytes(b"not a database" * 100), "is not an SQLite database"),
    "newer": (newer, "was written by a newer version (schema 99, this one knows 3); upgrade deadletter"),
    "directory": (directory, "cannot be opened; check that it is a file"),
    "gone": (Path.unlink, "does not exist, and what only reads does not make it; check the path"),
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("command", ["ls", "purge --everything --yes", "stats --json"])
def test_a_store_that_will_not_open(path: Path, store: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said = STORES[store]
    spoil(path)
    assert run([*command.split(), "--url", f"sqlite:///{path}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith(f"deadletter: {path} {said}")


def test_a_file_that_somebody_holds_locked_can_be_read_and_not_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(file, "LOCK_SECONDS", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for tokens in (["ls"], ["show", "letter-0"], ["groups"], ["stats"], ["check"], ["doctor"], ["search", "ref"]):
            assert run([*tokens, "--url", f"sqlite:///{path}"]) == 0
        capsys.readouterr()
        assert run(["retry", "letter-0", "--url", f"sqlite:///{path}"]) == 2
    assert capsys.readouterr().err == (
        f"deadletter: {path} was locked for 0.1 s by another process; end its transaction and try again\n"
    )


def shell(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("DEADLETTER_")}
    here = str(Path(deadletter.__file__).parents[1])
    environ |= {"DEADLETTER_URL": f"sqlite:///{path}", "PYTHONPATH": here, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["bash", "-c", script.replace("deadletter", COMMAND)],
        env=environ,
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("command", "named"),
    [("ls > /dev/full", "output"), ("export > /dev/full", "output"), ("export -o /dev/full", "/dev/full")],
)
def test_a_full_disk_is_named(path: Path, command: str, named: str) -> None:
    done = shell(f"deadletter {command}", path)
    assert (done.returncode, done.stderr) == (2, f"deadletter: {named}: No space left on device\n")


def test_a_closed_stdout_is_nobody_to_tell(path: Path) -> None:
    done = shell("deadletter ls >&-", path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_leaves_is_no_error(path: Path) -> None:
    done = shell("set -o pipefail; deadletter export | head -c 10; echo $?", path)
    assert done.stdout == '{"id":"let0\n'
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


APPS = {
    "no such module": ("nowhere:dlq", "", "there is no module 'nowhere'"),
    "no such name": ("cli_app_b:nothing", "", "module 'cli_app_b' has no 'nothing'"),
    "no queue": ("cli_app_b:x", "x = 1", "is a int; it must be a DeadLetterQueue"),
    "no attribute": ("cli_app_b", "", "names no queue; write it as module:attribute"),
    "raises": ("cli_app_b:dlq", "1 / 0", "importing 'cli_app_b' failed: ZeroDivisionError: division by zero ("),
    "leaves": ("cli_app_b:dlq", "raise SystemExit(3)", "importing 'cli_app_b' failed: SystemExit: 3 ("),
    "no syntax": ("cli_app_b:dlq", "x = (", "SyntaxError: '(' was never closed (cli_app_b.py, line 1)"),
    "needs more": ("cli_app_b:dlq", "import no_such_thing", "No module named 'no_such_thing'"),
}


@pytest.mark.parametrize("case", APPS)
def test_an_app_that_cannot_be_used(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app, source, said = APPS[case]
    (tmp_path / "cli_app_b.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cli_app_b", raising=False)
    assert run(["ls", "--app", app]) == 2
    monkeypatch.delitem(sys.modules, "cli_app_b", raising=False)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("deadletter: --app: ")
    assert said in line
