"""How much one script may do, by how long the last ones held the server."""

from __future__ import annotations

from ...model.row import BATCH

LONG_MS = 3.0  # as read, to the millisecond above: a step that really took 2 to 3 ms is the last that is let pass
LEAST, MORE = 10, 5


class Pace:
    """The weight of a step: halved where one took long, and grown by a little where none did.

    Additive increase and multiplicative decrease, as Chiu and Jain (1989) showed for networks: a server that is busy, or
    has slow processors, gets short scripts at once and longer ones again only bit by bit.
    """

    def __init__(self) -> None:
        self.weight = BATCH

    def took(self, held_ms: float, weight: int) -> None:
        """A step of this weight held the server for so long."""
        if held_ms > LONG_MS:
            self.weight = max(LEAST, min(self.weight, weight) // 2)
        elif self.weight < BATCH:
            self.weight = min(BATCH, self.weight + MORE)
