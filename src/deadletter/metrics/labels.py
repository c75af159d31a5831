"""Label values that stay few and short, whatever names the tasks of a stranger have."""

from __future__ import annotations

from collections.abc import Iterable

OTHER = "other"
MOST = 100  # values of one label that have series of their own
_LONGEST = 200  # characters


def label(value: str) -> str:
    """The value as a label: never empty, cut where it is long."""
    return (value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…") or OTHER


class Bounded:
    """The first ``most`` values of a label; what comes later is ``other``.

    Who is in stays in: a series that moved into ``other`` and back would look like a restarted counter.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: set[str] = set()

    def admit(self, values: Iterable[str]) -> None:
        """Let these in, in order, as long as there is room: give the busiest first."""
        for value in values:
            if len(self._known) >= self._most:
                return
            self._known.add(value)

    def __call__(self, value: str) -> str:
        """The label of a value, which takes a free place."""
        if value not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return label(value)
