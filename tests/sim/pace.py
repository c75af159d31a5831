"""How fast messages travel, and who goes first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import attrs

from .loop import Chooser, lane_of

FAULTY = (0.0, 0.05, 0.2, 0.5)
CHANGES = 3  # of priorities, in one story
MESSAGES = 500  # among which they lie


@attrs.frozen(kw_only=True)
class Rates:
    """How often what goes wrong."""

    lose_request: float = 0.0
    lose_reply: float = 0.0
    slow: float = 0.0
    repeat: float = 0.0
    longest: float = 0.05  # seconds that a slow message takes at most

    @classmethod
    def drawn(cls, chance: random.Random, longest: float) -> Rates:
        """Each on its own."""
        lose_request, lose_reply, slow, repeat = (chance.choice(FAULTY) for _ in range(4))
        return cls(lose_request=lose_request, lose_reply=lose_reply, slow=slow, repeat=repeat, longest=longest)

    @classmethod
    def moderate(cls, longest: float) -> Rates:
        """A bad day."""
        return cls(lose_request=0.05, lose_reply=0.05, slow=0.05, repeat=0.05, longest=longest)


class Pace:
    """Messages take what they take; slow ones up to ``longest``."""

    def __init__(self, chance: random.Random, rates: Rates) -> None:
        self.chance = chance
        self.rates = rates

    def delay(self, rates: Rates, who: str) -> float:
        """Seconds until a message of somebody arrives."""
        if self.chance.random() < rates.slow:
            return self.chance.uniform(0.0, rates.longest)
        return self.chance.uniform(0.0005, 0.01)


class Priorities(Pace):
    """Probabilistic concurrency testing (Burckhardt et al. 2010), for messages as Ozkan et al. (2018) have it.

    Each process has a priority: who has a higher one goes first, and has faster messages. At a few messages that were
    drawn before, their sender falls to the lowest, and its message waits until the others have had time to act.
    """

    def __init__(self, chance: random.Random, rates: Rates, held: float) -> None:
        super().__init__(chance, rates)
        self._held = held
        self._ranks: dict[str, float] = {}
        self._changes = set(chance.sample(range(MESSAGES), CHANGES))
        self._messages = 0

    def delay(self, rates: Rates, who: str) -> float:
        """See Pace."""
        self._messages += 1
        if rates != Rates() and self._messages in self._changes:
            self._ranks[who] = -self._messages
            return self.chance.uniform(self._held / 2, self._held * 2)
        return super().delay(rates, who) * (2 - self._rank(who) if self._rank(who) > 0 else 4)

    def _rank(self, who: str) -> float:
        return self._ranks.setdefault(who, self.chance.random())

    def order(self) -> Chooser:
        """Who is ready and has the highest priority; messages before all."""

        def rank(handle: asyncio.Handle) -> float:
            lane = lane_of(handle)
            return 2.0 if lane is None else self._rank(lane.name)

        def choose(ready: Sequence[asyncio.Handle]) -> int:
            return max(range(len(ready)), key=lambda at: (rank(ready[at]), -at))

        return choose
