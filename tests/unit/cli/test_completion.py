"""The scripts that make a shell complete: bash's in a real bash, the others as far as that goes without their shells."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

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


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ret"], ["retry", "retry-all"]),
        (["ls", "--er"], ["--error-contains", "--error-type"]),
        (["ls", "--priority", ""], ["high", "normal", "low"]),
        (["groups", "--by", "w"], ["worker"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["purge", "--type", "x", "--dr"], ["--dry-run"]),
    ],
    ids=" ".join,
)
def test_bash_completes(scripts: dict[str, Path], words: list[str], offered: list[str]) -> None:
    asked = ["bash", "--norc", "-c", ASK, "bash", str(scripts["bash"]), "deadletter", *words]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20)
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_bash_completes_every_command(scripts: dict[str, Path]) -> None:
    asked = ["bash", "--norc", "-c", ASK, "bash", str(scripts["bash"]), "deadletter", ""]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20)
    assert set(COMMANDS) <= set(done.stdout.split())


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
