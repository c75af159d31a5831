"""Where ids, tokens and jitter come from."""

from __future__ import annotations

import os
import random
import re
import sys

if sys.version_info >= (3, 14):  # pragma: no cover - the other branch runs below 3.14
    from uuid import uuid7

    def new_id() -> str:
        """A new UUIDv7 with dashes: sorted by time, distinct after fork."""
        return str(uuid7())
else:
    from uuid_utils import uuid7

    def new_id() -> str:
        """A new UUIDv7 with dashes: sorted by time, distinct after fork."""
        return str(uuid7())


_NEW_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def is_new_id(id_: str) -> bool:
    """Whether an id reads like one of ``new_id``, so that nobody else has it."""
    return _NEW_ID.fullmatch(id_) is not None


class Chance:
    """Names and jitter. Seeded, it gives the same ones again: for tests and the simulator."""

    def __init__(self, seed: int | None = None) -> None:
        self._seeded = random.Random(seed) if seed is not None else None  # noqa: S311 - jitter and test ids
        self.random: random.Random = self._seeded or random.Random()  # noqa: S311 - jitter

    def name(self) -> str:
        """A fresh op id, lease token or worker suffix: 96 bits, unguessable unless seeded."""
        if self._seeded is not None:
            return f"{self._seeded.getrandbits(96):024x}"
        return os.urandom(12).hex()
