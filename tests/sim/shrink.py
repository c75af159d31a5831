"""A smaller world that goes wrong in the same way: fewer tasks, processes and faults."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import attrs

from .seed import Seed

Wrong = Callable[[Seed], Sequence[str]]
"""What went wrong under a seed."""

NUMBERS = 4  # other worlds that are tried with the same limits


def shrunk(seed: Seed, wrong: Wrong, *, tries: int) -> Seed:
    """The smallest world that so many tries find, as delta debugging does it (Zeller 1999), one thing after another."""
    kind = kind_of(wrong(seed))
    found, left = seed, iter(range(tries))
    while kind is not None:
        better = next((each for each in _candidates(found) for _ in _one(left) if kind_of(wrong(each)) == kind), None)
        if better is None:
            break
        found = better
    return found


def _one(left: Iterator[int]) -> Iterator[int]:
    """One more try, if there is one."""
    return itertools.islice(left, 1)


def _candidates(seed: Seed) -> Iterator[Seed]:
    for smaller in seed.smaller():
        for number in range(seed.number, seed.number + NUMBERS):
            yield attrs.evolve(smaller, number=number)


def kind_of(wrong: Sequence[str]) -> str | None:
    """What two failures have in common: the invariant, or what else stands before the colon."""
    if not wrong:
        return None
    first = wrong[0].partition(":")[0]
    return "at" if first.startswith("at ") else first.partition(" of ")[0]
