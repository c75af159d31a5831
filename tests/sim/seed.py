"""What one line plays again: a store, a number, and what was taken away from the world that the number makes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import attrs

FAULTS = ("lose_request", "lose_reply", "slow", "repeat", "kill", "freeze", "stop", "cut", "away", "jump")
PARTS = {"tasks": 9, "producers": 3, "workers": 3, "operators": 2}  # a producer's tasks; and how many there are at most


@attrs.frozen
class Seed:
    """Written as ``memory:7``, or with what was taken away as ``memory:7/tasks=2/operators=0/without=kill+slow``."""

    store: str
    number: int
    most: tuple[tuple[str, int], ...] = ()
    without: tuple[str, ...] = ()
    shards: int = 1  # drawn by the number where it is read from a line

    @classmethod
    def of(cls, text: str) -> Seed:
        """Read one; raises ValueError where it cannot be one."""
        first, *limits = text.split("/")
        store, _, number = first.partition(":")
        most: dict[str, int] = {}
        without: tuple[str, ...] = ()
        for limit in limits:
            name, _, value = limit.partition("=")
            if name == "without":
                without = tuple(value.split("+"))
            elif name in PARTS:
                most[name] = int(value)
            else:
                raise ValueError(f"{limit!r} in the seed {text!r} limits nothing; one of {', '.join(PARTS)}, without")
        if set(without) - set(FAULTS):
            raise ValueError(f"{without} in the seed {text!r} are not all faults; these are: {', '.join(FAULTS)}")
        seed = cls(store, int(number), tuple(most.items()), without)
        return attrs.evolve(seed, shards=seed.chance("shards").choice((1, 1, 1, 2, 3)))

    def __str__(self) -> str:
        limits = [f"/{name}={n}" for name, n in self.most]
        return (
            f"{self.store}:{self.number}{''.join(limits)}{'/without=' + '+'.join(self.without) if self.without else ''}"
        )

    @property
    def root(self) -> str:
        """What all that is drawn comes from."""
        return f"{self.store}:{self.number}"

    def chance(self, what: str) -> random.Random:
        """A source of its own, so that less of something else changes nothing here."""
        return random.Random(f"{self.root} {what}")

    def at_most(self, name: str, n: int) -> int:
        """``n`` of something, or as many as are allowed."""
        return min(n, dict(self.most).get(name, n))

    def smaller(self) -> Iterator[Seed]:
        """The same with less of one thing each."""
        most = dict(self.most)
        for name, largest in PARTS.items():
            for n in range(name != "operators", most.get(name, largest)):
                yield attrs.evolve(self, most=tuple({**most, name: n}.items()))
        for fault in FAULTS:
            if fault not in self.without:
                yield attrs.evolve(self, without=(*self.without, fault))
