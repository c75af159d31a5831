"""Commands that move dead letters as NDJSON: export, import."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO

import attrs
from cyclopts import Parameter

from ..model.errors import InvalidTask
from ..model.record import State
from ..model.row import BATCH, GONE, Inserted, Insertion, NewRow
from ..model.task import from_ms
from . import output
from .exits import DONE, FAILED, BadUse, complain
from .flags import Flags, Switch, Where
from .letter_lines import LONGEST, line_of, row_of
from .output import emit, moment, say
from .progress import progress
from .reading import each
from .session import Session, session

_STDIO = Path("-")
_LETTERS = 50  # stored in one step: each has many indexes, and Redis does nothing else meanwhile
_STEP = 4_000_000  # bytes of lines that are stored in one step


async def export(
    *,
    out: Annotated[Path, Parameter(name=("--output", "-o"), allow_leading_hyphen=True, show_default=False)] = _STDIO,
    limit: int | None = None,
    where: Where | None = None,
    flags: Flags | None = None,
) -> int:
    """Write dead letters as NDJSON, a letter a line, newest first.

    Example: deadletter export --newer-than 1d -o letters.ndjson

    Without --reveal hidden values and raw messages of other queues are left
    out, and what held hidden values cannot be replayed where it is imported.
    With it the file holds them in plain text.

    Args:
        out: Write to this file (mode 0600) instead of stdout; - is stdout.
        limit: At most so many.
    """
    query = (where or Where()).query()
    if query.state != State.DEAD:
        raise BadUse("--state: only dead letters can be exported")
    count = 0
    async with session(flags) as desk:
        with _to(out), progress("exporting", quiet=out == _STDIO and sys.stdout.isatty()) as tell:
            async for record in each(desk, query, limit):
                emit(line_of(record, desk.item(record), reveal=desk.viewer.reveal))
                count += 1
                if count % BATCH == 0:
                    tell(count)
            sys.stdout.flush()
        if not count:
            await desk.remark_if_unknown()
    say(f"{count} exported")
    return DONE


async def import_(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    dry_run: Switch = False,
    flags: Flags | None = None,
) -> int:
    """Store exported letters as dead letters. Safe to repeat; a bad line is named, and nothing of it is stored.

    Example: deadletter import letters.ndjson --url sqlite:///other.db

    Args:
        file: What export wrote; - reads stdin.
        dry_run: Only check and count.
    """
    with contextlib.ExitStack() as stack:
        lines = sys.stdin.buffer if file == _STDIO else stack.enter_context(file.open("rb"))
        async with session(flags, create=True) as desk:
            tell = stack.enter_context(progress("importing"))
            intake = _Intake(desk, dry_run, tell, (await desk.queue.backend.inspect()).now_ms)
            for step in _steps(intake.rows(lines)):
                await intake.store(step)
    totals = intake.totals()
    desk.answer(totals, lambda: output.pairs([("dry run" if dry_run else "import", _said(totals))]))
    return FAILED if totals["failed"] else DONE


def _said(totals: dict[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in totals.items() if count or word in ("read", "stored"))


@attrs.frozen
class _Read:
    """A line that can be stored."""

    number: int
    row: NewRow
    size: int


@attrs.define
class _Intake:
    """An import on its way.

    Attributes:
        read: lines so far; stored: new letters; known: those that were there; failed: those that were left out.
    """

    desk: Session
    dry_run: bool
    tell: Callable[[int], object]
    now_ms: int
    read: int = 0
    stored: int = 0
    known: int = 0
    failed: int = 0

    def totals(self) -> dict[str, int]:
        return {"read": self.read, "stored": self.stored, "known": self.known, "failed": self.failed}

    def rows(self, lines: BinaryIO) -> Iterator[_Read]:
        """What the lines hold; complains of each that holds no letter."""
        for number, line in _numbered(lines):
            self.read += 1
            try:
                row = row_of(line, self.desk.queue)
            except InvalidTask as error:
                self.refuse(number, str(error))
                continue
            if row.keep_ms is not None and (row.ended_at_ms or 0) + row.keep_ms <= self.now_ms:
                ended = from_ms((row.ended_at_ms or 0) + row.keep_ms)
                self.refuse(number, f"expires_at: it was kept until {moment(ended)}; write null there to keep it")
                continue
            yield _Read(number, row, len(line))

    def refuse(self, number: int, problem: str) -> None:
        self.failed += 1
        complain(f"line {number}: {problem}")

    async def store(self, step: Sequence[_Read]) -> None:
        """Store the rows of one step, or only count them."""
        if self.dry_run:
            self.stored += len(step)
        else:
            for line, insertion in zip(step, await self._insert([line.row for line in step]), strict=True):
                self._settle(line, insertion)
        self.tell(self.read)

    async def _insert(self, rows: Sequence[NewRow]) -> list[Insertion]:
        backend, queue = self.desk.queue.backend, self.desk.queue.name
        insertions = await backend.insert(queue, rows)
        if all(insertion.verdict in (Inserted.STORED, Inserted.EXISTS) for insertion in insertions):
            return insertions
        # All or nothing: one by one, so that a letter that meets a stranger does not keep its neighbours out.
        return [(await backend.insert(queue, [row]))[0] for row in rows]

    def _settle(self, line: _Read, insertion: Insertion) -> None:
        if insertion.state == GONE:
            self.refuse(line.number, f"{insertion.id} went from here lately (purge, erase, cancel); try again later")
        elif insertion.verdict is Inserted.STORED:
            self.stored += 1
        elif insertion.verdict is Inserted.EXISTS:
            self.known += 1
        elif insertion.verdict is Inserted.TASK_CONFLICT:
            self.refuse(line.number, f"id: {insertion.id} is taken here by a task of another type or payload")
        else:
            self.refuse(line.number, f"idempotency_key: it is bound here to {insertion.id}, which has another payload")


def _numbered(lines: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines that are not empty, with their numbers; of one that is too long so much that the reader refuses it."""
    number = 0
    while line := lines.readline(LONGEST + 2):
        number += 1
        rest = line
        while len(rest) == LONGEST + 2 and not rest.endswith(b"\n"):
            rest = lines.readline(LONGEST + 2)
        if line.strip():
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _steps(found: Iterator[_Read]) -> Iterator[list[_Read]]:
    step: list[_Read] = []
    size = 0
    for line in found:
        step.append(line)
        size += line.size
        if len(step) == _LETTERS or size >= _STEP:
            yield step
            step, size = [], 0
    if step:
        yield step


@contextlib.contextmanager
def _to(out: Path) -> Iterator[None]:
    """Print to a file that nobody else can read."""
    if out == _STDIO:
        yield
        return
    try:
        with _private(out) as file, contextlib.redirect_stdout(file):
            yield
    except OSError as error:
        error.filename = error.filename or str(out)  # print does not say where it failed
        raise


def _private(path: Path) -> TextIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8")
