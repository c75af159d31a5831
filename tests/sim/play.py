"""One seed, from its first callback to the verdict."""

from __future__ import annotations

import gc
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
import attrs

from deadletter.model.row import EventRow

from .invariants import violations
from .loop import Deadlock, Livelock
from .scenario import POSTPONE, live
from .world import QUEUE, World


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
        """Raise what went wrong, with the line that plays it again."""
        if self.wrong:
            told = "\n  ".join(self.wrong[:10])
            raise AssertionError(
                f"{told}\nSIM_SEED={self.seed} python -m pytest tests/sim -k seed  # plays it again"
            ) from self.crash


def play(seed: str) -> Story:
    """Run a seed such as ``memory:7``."""
    store, _, number = seed.partition(":")
    return run(World(store, int(number)), live)


def run(world: World, story: Callable[[World], Awaitable[None]]) -> Story:
    """Let a story happen in a world, and check everything at its end."""
    wrong: list[str] = []
    POSTPONE.seed(world.seed)

    async def main() -> None:
        try:
            await story(world)
            await _hear(world)
            wrong.extend(violations(world))
        finally:
            world.bury()

    with _undisturbed():
        try:
            world.loop.run(main())
        except (Deadlock, Livelock) as error:
            wrong.append(str(error))
    return Story(world.seed, wrong, world.watch.digest, world.loop.steps, world.loop.time(), world.crash)


async def _hear(world: World) -> None:
    """All events that the store has kept."""
    with anyio.move_on_after(0.1):
        async with world.network.store.listen(QUEUE, 0) as signals:
            async for signal in signals:
                if isinstance(signal, EventRow):
                    world.heard.append(signal)


@contextmanager
def _undisturbed() -> Iterator[None]:
    # The collector would end abandoned generators at moments of its own; log lines cost more than the steps they tell
    # of.
    gc.disable()
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()
