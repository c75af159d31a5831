"""One seed, from its first callback to the verdict."""

from __future__ import annotations

import gc
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import attrs

from .actors import POSTPONE
from .invariants import violations
from .loop import Deadlock, Livelock
from .scenario import live
from .seed import Seed
from .shrink import shrunk
from .world import QUEUE, World

SHRINKING = 300  # worlds that are tried to find a smaller one


@attrs.frozen
class Story:
    """What became of a seed."""

    seed: str
    wrong: list[str]
    digest: str
    steps: int
    seconds: float
    crash: BaseException | None = None

    def check(self) -> None:
        """Raise what went wrong, with the line that plays it again, and one that plays a smaller world."""
        if self.wrong:
            told = "\n  ".join(self.wrong[:10])
            small = shrunk(Seed.of(self.seed), lambda seed: play(str(seed)).wrong, tries=SHRINKING)
            smaller = f"\n{_line(str(small))}  # a smaller world" if str(small) != self.seed else ""
            raise AssertionError(f"{told}\n{_line(self.seed)}  # plays it again{smaller}") from self.crash


def _line(seed: str) -> str:
    return f"SIM_SEED={seed} python -m pytest tests/sim -k seed"


def play(seed: str) -> Story:
    """Run a seed such as ``memory:7``."""
    return run(World(Seed.of(seed)), live)


def run(world: World, story: Callable[[World], Awaitable[None]]) -> Story:
    """Let a story happen in a world, and check everything at its end."""
    wrong: list[str] = []
    POSTPONE.seed(str(world.seed))

    async def main() -> None:
        try:
            await story(world)
            world.heard += await world.network.server.events(QUEUE)
            wrong.extend(violations(world))
        finally:
            world.bury()

    with undisturbed():
        try:
            world.loop.run(main())
        except (Deadlock, Livelock) as error:
            wrong.append(str(error))
    return Story(str(world.seed), wrong, world.watch.digest, world.loop.steps, world.loop.time(), world.crash)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without the collector and the log."""
    # The collector would end abandoned generators at moments of its own; log lines cost more than the steps they tell
    # of.
    gc.disable()
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()
