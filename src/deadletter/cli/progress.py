"""How far a long command is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from .output import say, styled

_PAUSE = 5.0


@contextlib.contextmanager
def progress(verb: str, *, total: int | None = None, quiet: bool = False) -> Iterator[Callable[[int], object]]:
    """Give a function to tell how many are done so far; ``total``: of how many."""
    if quiet:
        yield lambda _: None
        return
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _lines(verb, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(verb), BarColumn(), TextColumn("{task.completed}"), TimeElapsedColumn())
    console = Console(stderr=True, color_system="auto" if styled() else None)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:  # stdout holds the answer
        task = bar.add_task(verb, total=total)
        yield lambda done: bar.update(task, completed=done)


def _lines(verb: str, total: int | None) -> Callable[[int], object]:
    last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _PAUSE:
            last = time.monotonic()
            say(f"{verb}: {done} so far" if total is None else f"{verb}: {done} of {total}")

    return tell
