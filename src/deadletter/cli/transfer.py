"""Commands that move dead letters as NDJSON: export, import."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

from cyclopts import Parameter

from ..model.errors import InvalidTask
from ..model.row import BATCH, Inserted, NewRow
from . import output
from .exits import DONE, FAILED, BadUse, complain
from .flags import Flags, Switch, Where
from .letter_lines import LONGEST, line_of, row_of
from .output import emit, say
from .reading import each
from .session import Session, session


async def export(
    *,
    out: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    limit: int | None = None,
    where: Where | None = None,
    flags: Flags | None = None,
) -> int:
    """Write dead letters as NDJSON, a letter a line, newest first.

    Example: deadletter export --newer-than 1d -o letters.ndjson

    Without --reveal hidden values are left out, and what held some cannot be replayed where it is imported.

    Args:
        out: Write to this file (mode 0600) instead of stdout.
        limit: At most so many.
    """
    query = (where or Where()).query()
    count = 0
    async with session(flags) as desk:
        with contextlib.ExitStack() as stack:
            if out is not None:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(_private(out))))
            async for record in each(desk, query, limit):
                emit(line_of(record, desk.item(record)))
                count += 1
    say(f"{count} exported")
    return DONE


async def import_(file: str, /, *, dry_run: Switch = False, flags: Flags | None = None) -> int:
    """Store exported letters as dead letters. Safe to repeat; a bad line is named, and nothing of it is stored.

    Example: deadletter import letters.ndjson --url sqlite:///other.db

    Args:
        file: What export wrote; - reads stdin.
        dry_run: Only check and count.
    """
    totals: dict[str, int] = {"read": 0, "stored": 0, "known": 0, "failed": 0}
    with contextlib.ExitStack() as stack:
        lines: TextIO = sys.stdin
        if file != "-":
            lines = stack.enter_context(Path(file).open(encoding="utf-8", errors="strict"))  # noqa: ASYNC230 - a file, read in turns with the store
        async with session(flags, create=True) as desk:
            batch: list[tuple[int, NewRow]] = []
            for number, row in _rows(lines, desk, totals):
                batch.append((number, row))
                if len(batch) == BATCH:
                    await _store(desk, batch, totals, dry_run=dry_run)
                    batch = []
            await _store(desk, batch, totals, dry_run=dry_run)
            said = ", ".join(f"{count} {word}" for word, count in totals.items() if count or word in ("read", "stored"))
            desk.answer(totals, lambda: output.pairs([("dry run" if dry_run else "import", said)]))
    return FAILED if totals["failed"] else DONE


def _rows(lines: TextIO, desk: Session, totals: dict[str, int]) -> Iterator[tuple[int, NewRow]]:
    number = 0
    while line := _next(lines):
        number += 1
        if not line.strip():
            continue
        totals["read"] += 1
        try:
            yield number, row_of(line, desk.queue)
        except (InvalidTask, ValueError, TypeError, LookupError) as error:
            totals["failed"] += 1
            complain(f"line {number}: {error}")


def _next(lines: TextIO) -> str:
    line = lines.readline(LONGEST)
    if len(line) == LONGEST:
        raise BadUse(f"a line has more than {LONGEST} characters; was it made by export?")
    return line


async def _store(desk: Session, batch: list[tuple[int, NewRow]], totals: dict[str, int], *, dry_run: bool) -> None:
    if dry_run:
        totals["stored"] += len(batch)
        return
    for number, row in batch:
        # One by one: insert is all or nothing, and one letter that meets a stranger must not keep its neighbours out.
        insertion = (await desk.queue.backend.insert(desk.queue.name, [row]))[0]
        if insertion.verdict is Inserted.STORED:
            totals["stored"] += 1
        elif insertion.verdict is Inserted.EXISTS:
            totals["known"] += 1
        else:
            totals["failed"] += 1
            complain(f"line {number}: its id or key belongs to another task ({insertion.id}); it is left out")


def _private(path: Path) -> TextIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8")
