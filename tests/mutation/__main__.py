"""Spoil the library piece by piece, and count what the tests notice.

python -m tests.mutation                 goes on where it stopped, room by room
python -m tests.mutation rules --minutes 20
python -m tests.mutation rules --only 0123456789   one mutant by its key
python -m tests.mutation --write         only the page
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

import pytest

from ..proof import page
from .book import Book
from .plugin import Plugin, Verdict, install
from .rooms import ROOMS, ROOT, Room
from .schema import Mutant

SEED = 1  # of the sample of a large room


def chosen(room: Room, mutants: list[Mutant]) -> list[Mutant]:
    """All of them that can be turned on after the import, or a sample."""
    late = [mutant for mutant in mutants if mutant.late]
    if room.sample is None or room.sample >= len(late):
        return late
    return random.Random(SEED).sample(late, room.sample)


def measure(name: str, *, only: str | None, minutes: float) -> int:
    """Run a room; the exit code of pytest."""
    room, book = ROOMS[name], Book(name)
    finder = install(room.modules(), ROOT)
    picked = chosen(room, finder.mutants)
    book.plan(picked)
    wanted = [mutant for mutant in picked if (mutant.key == only if only else not book.knows(mutant))]
    random.Random(SEED).shuffle(wanted)  # so that a run that is cut short says something of all modules
    wanted.sort(key=lambda mutant: not book.missed(mutant))  # the tests may be better now
    print(f"{name}: {len(picked)} mutants, {len(wanted)} to do", flush=True)
    if not wanted:
        return 0

    def tell(verdict: Verdict) -> None:
        book.enter(verdict)
        if only or verdict.word in ("survived", "unreached"):
            where = f"{verdict.mutant.path}:{verdict.mutant.line}"
            print(
                f"{verdict.word} {verdict.mutant.key} {where} {verdict.mutant.was} -> {verdict.mutant.becomes}",
                flush=True,
            )

    kept = ROOT / ".proof" / f"reach-{name}.pickle"
    plugin = Plugin(wanted, kept, tell, time.monotonic() + minutes * 60)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:randomly", "--no-header"]
    code = pytest.main([*options, *(str(Path(test)) for test in room.tests)], plugins=[plugin])
    if book.fresh:
        book.save()
    return int(code)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("room", nargs="?", choices=ROOMS)
    parser.add_argument("--only", help="the key of one mutant")
    parser.add_argument("--minutes", type=float, default=24 * 60)
    parser.add_argument("--write", action="store_true", help="only write the page")
    said = parser.parse_args()
    code = 0
    if not said.write:
        if said.room is None:
            parser.error("name a room: one process can import only one of them spoilt")
        code = measure(said.room, only=said.only, minutes=said.minutes)
    Book.write_page(page)
    return code


if __name__ == "__main__":
    sys.exit(main())
