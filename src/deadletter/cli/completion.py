"""The command ``completion``: what makes a shell complete commands and flags."""

from __future__ import annotations

from typing import Literal

from .exits import DONE

# Cyclopts only defines its function, which zsh would call by itself from a file of that very name alone.
_ZSH = """
compdef _cyclopts_deadletter deadletter
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _cyclopts_deadletter "$@"
fi"""


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print what makes a shell complete commands, flags and their choices.

    Example: deadletter completion bash > ~/.local/share/bash-completion/completions/deadletter

    For zsh write it to a file _deadletter in a directory of $fpath, for fish to
    ~/.config/fish/completions/deadletter.fish.

    Args:
        shell: For this shell.
    """
    from .app import make_app

    print(make_app().generate_completion(shell=shell), end="")
    if shell == "zsh":
        print(_ZSH)
    return DONE
