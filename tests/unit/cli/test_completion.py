"""The scripts that make a shell complete: in each real shell, and as far as that goes without it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pexpect
import pytest

from deadletter.cli.app import make_app
from deadletter.cli.exits import run

COMMANDS = [name for name in make_app() if not name.startswith("-")]
ASK = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
COMPREPLY=()
$(complete -p deadletter | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    made = {shell: folder / f"deadletter.{shell}" for shell in ("bash", "zsh", "fish")}
    for shell, path in made.items():
        with path.open("w") as file, contextlib.redirect_stdout(file):
            assert run(["completion", shell]) == 0
    return made


CASES = [
    (["ret"], ["retry", "retry-all"]),
    (["ls", "--er"], ["--error-contains", "--error-type"]),
    (["ls", "--priority", ""], ["high", "normal", "low"]),
    (["groups", "--by", "w"], ["worker"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["purge", "--type", "x", "--dr"], ["--dry-run"]),
]


@pytest.mark.parametrize(("words", "offered"), CASES, ids=" ".join)
def test_bash_completes(scripts: dict[str, Path], words: list[str], offered: list[str]) -> None:
    asked = ["bash", "--norc", "-c", ASK, "bash", str(scripts["bash"]), "deadletter", *words]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20)
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_bash_completes_every_command(scripts: dict[str, Path]) -> None:
    asked = ["bash", "--norc", "-c", ASK, "bash", str(scripts["bash"]), "deadletter", ""]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20)
    assert set(COMMANDS) <= set(done.stdout.split())


@pytest.mark.full
@pytest.mark.parametrize(("words", "offered"), CASES, ids=" ".join)
def test_fish_completes(scripts: dict[str, Path], words: list[str], offered: list[str]) -> None:
    line = " ".join(["deadletter", *words])
    asked = ["fish", "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"', str(scripts["fish"]), line]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20)
    told = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert set(offered) <= {word for word in told if word.startswith(words[-1])}
    assert done.stderr == ""


@pytest.mark.full
@pytest.mark.parametrize(
    ("typed", "became"),
    [
        ("deadletter comple", "deadletter completion "),
        ("deadletter completion fi", "deadletter completion fish "),
        ("deadletter purge --dr", "deadletter purge --dry-run "),
        ("deadletter ls --priority hi", "deadletter ls --priority high "),
    ],
)
def test_zsh_completes(scripts: dict[str, Path], tmp_path: Path, typed: str, became: str) -> None:
    """In a real one at a terminal: it completes only what somebody types."""
    shutil.copy(scripts["zsh"], tmp_path / "_deadletter")
    shell = pexpect.spawn(
        "zsh", ["-f", "-i"], env={"TERM": "dumb", "PATH": os.environ["PATH"], "HOME": str(tmp_path)}, timeout=20
    )
    try:
        shell.sendline(f"PS1='> '; fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D; print rea''dy")
        shell.expect_exact("ready")
        for _ in range(2):  # the first time reads the script, the second has it
            shell.send(f"{typed}\t")
            shell.expect_exact(became)
            shell.sendcontrol("u")
    finally:
        shell.close(force=True)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_others_name_every_command_and_are_read_where_their_shell_is(scripts: dict[str, Path], shell: str) -> None:
    """Without the shell: the script's first line, its commands, and that its quotes are closed."""
    text = scripts[shell].read_text()
    assert text.startswith({"zsh": "#compdef deadletter\n", "fish": "# Fish completion for deadletter\n"}[shell])
    for command in COMMANDS:
        assert re.search({"zsh": rf"'{command}:", "fish": rf"-a '?{command}'? "}[shell], text), command
    for line in text.splitlines():
        bare = re.sub(r'\\.|"[^"\']*"', "", line)
        assert line.lstrip().startswith("#") or bare.count("'") % 2 == 0, line
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n", str(scripts[shell])], check=True, timeout=20)


def test_help_says_how_to_install_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for place in (
        "bash-completion/completions/deadletter",
        "_deadletter in a directory of $fpath",
        "completions/deadletter.fish",
    ):
        assert place in out
