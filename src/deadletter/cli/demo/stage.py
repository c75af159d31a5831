"""How the demo tells its story: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import abc
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from ..output import harmless

_PAUSE = 1.0  # seconds between plain lines of progress


class Stage(abc.ABC):
    """Where the story is told."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the curtain rose."""
        return time.monotonic() - self._began

    def tell(self, text: str) -> None:
        """One line of the story, with the time."""
        self.line(f"{self.elapsed:5.1f} s  {text}")

    @abc.abstractmethod
    def line(self, text: str) -> None:
        """One line."""

    @abc.abstractmethod
    def progress(self, delivered: int, pending: int, running: int, dead: int) -> None:
        """How far it is."""


class _Plain(Stage):
    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out
        self._last = 0.0

    def line(self, text: str) -> None:
        print(harmless(text), file=self._out, flush=True)

    def progress(self, delivered: int, pending: int, running: int, dead: int) -> None:
        if self.elapsed - self._last >= _PAUSE:
            self._last = self.elapsed
            self.tell(f"  delivered {delivered}, pending {pending}, running {running}, dead {dead}")


@contextlib.contextmanager
def open_stage(total: int, out: TextIO | None = None) -> Iterator[Stage]:
    """A stage on ``out`` (stdout where None is given) for so many deliveries."""
    place: TextIO = out if out is not None else sys.stdout
    if not place.isatty() or os.environ.get("TERM") == "dumb":
        yield _Plain(place)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    console = Console(file=place, highlight=False)
    columns = (TextColumn("delivered"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)

        class _Live(Stage):
            def line(self, text: str) -> None:
                console.print(Text(harmless(text)))

            def progress(self, delivered: int, pending: int, running: int, dead: int) -> None:
                told = f"pending {pending}  running {running}  dead {dead}"
                bar.update(task, completed=delivered, description=told)

        yield _Live()
