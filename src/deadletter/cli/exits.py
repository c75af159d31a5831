"""From whatever happens to an exit code and, where a user caused it, one line on stderr."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cyclopts import CycloptsError, UnusedCliTokensError

from ..model.errors import DeadLetterError, NotDead, NotReplayable, TaskBusy, TaskNotFound
from .output import harmless, say

DONE, FAILED, BAD_USE = 0, 1, 2
INTERRUPTED = 130  # as a shell says it: 128 + SIGINT

_OF_THE_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # print does not say where it failed
_OF_THE_DATA = (TaskNotFound, NotDead, NotReplayable, TaskBusy)  # well asked, and the answer is no


class BadUse(Exception):
    """What was typed cannot be meant; the message says what to type."""


def run(tokens: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` where None is given) and answer its exit code."""
    from .app import make_app

    if sys.stdout is None:  # closed by whoever started us: the exit code is all that is wanted
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end of the process
    try:
        answer = make_app()(tokens, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        _drop_output()
        return DONE
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except Exception as error:
        return told(error)
    return answer if isinstance(answer, int) else DONE


def told(error: Exception) -> int:
    """Say what a user can mend in one line and answer the exit code; raise what is our own mistake."""
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return told(error.exceptions[0])
    if isinstance(error, CycloptsError):
        chain = " ".join(("deadletter", *(error.command_chain or ())))
        said = str(error)
        if isinstance(error, UnusedCliTokensError):
            said = f"{' '.join(error.unused_tokens or ())}: this command takes no such argument"
        complain(f"{said} ({chain} --help tells more)")
        return BAD_USE
    if isinstance(error, DeadLetterError | BadUse):
        complain(str(error))
        return FAILED if isinstance(error, _OF_THE_DATA) else BAD_USE
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _OF_THE_OUTPUT):
        complain(f"{error.filename or 'output'}: {error.strerror}")
        if error.filename is None:
            _drop_output()
        return BAD_USE
    raise error


def complain(text: str) -> None:
    """One line on stderr that names the command."""
    say(f"deadletter: {harmless(' '.join(text.split()))}")


def _drop_output() -> None:
    # Python flushes stdout once more at exit, and would complain then.
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)
