"""How far a long command is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from ..model.record import BulkResult
from .output import say

_PAUSE = 5.0


@contextlib.contextmanager
def progress(verb: str, *, quiet: bool = False) -> Iterator[Callable[[BulkResult], object] | None]:
    """Give a function to tell of each step."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _lines(verb)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(verb), BarColumn(), TextColumn("{task.completed}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda result: bar.update(task, completed=result.matched)


def _lines(verb: str) -> Callable[[BulkResult], object]:
    last = time.monotonic()

    def tell(result: BulkResult) -> None:
        nonlocal last
        if time.monotonic() - last >= _PAUSE:
            last = time.monotonic()
            say(f"{verb}: {result.matched} so far")

    return tell
