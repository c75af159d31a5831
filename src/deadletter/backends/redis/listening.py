"""What one listener hears of a queue: hints as they are published, events as they are stored, whatever servers come and go."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import anyio
from redis import exceptions

from ...model.errors import BackendUnavailable
from ...model.row import EventRow, Hint
from .client import Connections
from .events import AT_ONCE, Events
from .wires import Ear

log = logging.getLogger("deadletter.redis")

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.5  # seconds between two tries to be heard again
_LOST = (exceptions.RedisError, OSError)


class Listening:
    """One subscription, made anew where its server went away."""

    def __init__(self, connections: Connections, channel: str, events: Events) -> None:
        self._connections, self._channel, self._events = connections, channel, events
        self._ear: Ear | None = None
        self._closings = connections.closings

    async def begin(self) -> None:
        """Subscribe, and stand where the first signal is the next one. Raises BackendUnavailable."""
        self._ear = await self._connections.listen(self._channel)
        await self._events.begin()

    async def signals(self) -> AsyncGenerator[Hint | EventRow, None]:
        """Hints and events, without end; raises BackendUnavailable where the backend was closed meanwhile."""
        waits, look = _FIRST_WAIT, True
        while True:
            try:
                if self._ear is None:
                    await self.begin()
                    log.info("%s is heard again", self._connections.url)
                    heard: bool | None = True  # there may be work that nobody told us of
                elif look:
                    heard = None
                else:
                    heard = await self._heard(self._ear)
                fresh = await self._events.read() if heard is not False else []
            except BackendUnavailable as error:
                self._must_be_open()
                if waits == _FIRST_WAIT:
                    log.warning("not heard until it is back: %s", error)
                await self.close()
                await anyio.sleep(waits)
                waits, look = min(2 * waits, _LONGEST_WAIT), False
                continue
            waits = _FIRST_WAIT
            if heard is not None:
                yield Hint()
            for event in fresh:
                yield event
            if heard is None and fresh and not look:  # stored, and not told: perhaps nobody tells us anything any more
                await self.close()
            look = len(fresh) >= AT_ONCE

    async def _heard(self, ear: Ear) -> bool | None:
        try:
            heard = await ear.hear()
        except _LOST as error:
            raise self._connections.away(error) from error
        self._must_be_open()  # redis-py would connect anew, behind the back of who closed it
        return heard

    def _must_be_open(self) -> None:
        if self._connections.closings != self._closings:
            raise BackendUnavailable(f"{self._connections.url} was closed; listen again")

    async def close(self) -> None:
        """Stop listening."""
        ear, self._ear = self._ear, None
        if ear is not None:
            await ear.close()
