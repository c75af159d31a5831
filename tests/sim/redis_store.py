"""Redis as a sequential object: each call is one blocking trip to a real server, and nobody else runs meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deadletter import Clock
from deadletter.backends.redis import RedisBackend
from deadletter.backends.redis.scripts import load_script
from deadletter.backends.redis.wires import Ear, ThreadWire, Wire
from deadletter.runtime.loops import Bell

from ..redis_servers import valkey

TELLING = ("insert", "apply")  # the scripts after which there may be work, or an event


class InlineWire(ThreadWire):
    """Runs where it stands; who listens is woken after each trip that may tell, for a message comes at no fixed time."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.ears: list[InlineEar] = []

    async def run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        answers = self._run(commands)
        if commands[0][1] in {told for name in TELLING for told in (load_script(name).sha, load_script(name).text)}:
            for ear in self.ears:
                ear.bell.ring()
        return answers

    async def listen(self, channel: str) -> Ear:
        del channel
        return InlineEar(self)


class InlineEar(Ear):
    def __init__(self, wire: InlineWire) -> None:
        self.bell = Bell()
        self._ears = wire.ears
        self._ears.append(self)

    async def hear(self) -> bool:
        await self.bell.wait()
        return True

    async def close(self) -> None:
        self._ears.remove(self)


class InlineRedis(RedisBackend):
    """On an empty database of a real server."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(valkey().emptied(), clock=clock)
        wire = InlineWire(self._connections.endpoint.sync_client())

        async def here() -> Wire:
            return wire

        self._connections._here = here  # type: ignore[method-assign]
