from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from deadletter.__main__ import main


def test_without_the_cli_extra_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['cyclopts'] = None; from deadletter.__main__ import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == 'the deadletter command needs an extra: pip install "deadletter-sdk[cli]"\n'


def test_a_broken_command_line_is_not_blamed_on_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deadletter.cli", None)
    with pytest.raises(ModuleNotFoundError, match=r"deadletter\.cli"):
        main()


def test_the_exit_code_is_that_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deadletter.cli", SimpleNamespace(main=lambda: 7))
    assert main() == 7
