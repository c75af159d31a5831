"""A dead man's switch: somebody elsewhere is asked for as long as all is well, and tells people when nobody asks."""

from __future__ import annotations

import logging

from ..interfaces.clock import Clock
from .posting import check_url, post

log = logging.getLogger("deadletter.monitor")


class Heartbeat:
    """Asks a URL while the elected monitor makes its steps. ``well`` is reset by each beat, and set by each step."""

    def __init__(self, url: str | None, interval: float, clock: Clock) -> None:
        self._url = check_url("heartbeat", url) if url is not None else None
        self._interval = max(1.0, interval)
        self._clock = clock
        self.well = False

    def is_well(self) -> None:
        """A step was made."""
        self.well = True

    async def run(self) -> None:
        """Beat until cancelled."""
        away = False
        while self._url is not None:
            if self.well:
                self.well = False
                try:
                    await post(self._url, b"", {}, timeout=min(10.0, self._interval))
                    away = False
                except Exception as error:  # whatever it is: the switch tells by our silence
                    if not away:
                        log.warning("no heartbeat: %s", error)
                    away = True
                await self._clock.sleep(self._interval)
            else:
                await self._clock.sleep(min(1.0, self._interval))
