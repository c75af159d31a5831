"""On which shard of a queue a row lies. Stable for ever: what is stored is found by it again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ...model.row import NewRow

MOST = 64  # shards of a queue


def home(id_: str, shards: int) -> int:
    """The shard of a row that has no idempotency key, and where a search for any id begins."""
    return _of(b"id", id_, shards)


def place(new: NewRow, shards: int) -> int:
    """The shard of a new row: by its key, itself a hash of queue, type and key, so that equal keys meet; else by id."""
    return _of(b"key", new.key, shards) if new.key is not None else home(new.id, shards)


def _of(kind: bytes, name: str, shards: int) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=kind).digest()
    return int.from_bytes(digest, "big") % shards


class Homes:
    """Which ids lie elsewhere than at home: those of rows with a key. Bounded; what it forgets is searched for."""

    def __init__(self, shards: int, most: int = 20_000) -> None:
        self._shards = shards
        self._most = most
        self._elsewhere: dict[str, int] = {}

    def __getitem__(self, id_: str) -> int:
        found = self._elsewhere.get(id_)
        return home(id_, self._shards) if found is None else found

    def learn(self, shard: int, ids: Iterable[str]) -> None:
        """These ids were met there."""
        for id_ in ids:
            self._elsewhere.pop(id_, None)
            if home(id_, self._shards) != shard:
                self._elsewhere[id_] = shard
        while len(self._elsewhere) > self._most:
            self._elsewhere.pop(next(iter(self._elsewhere)), None)


_BITS = 40  # of one shard's position: 10^12 events


def packed(positions: Iterable[int]) -> int:
    """Positions in the streams of all shards as one number, which rises with any of them."""
    return sum(position << (_BITS * shard) for shard, position in enumerate(positions))


def unpacked(seq: int, shards: int) -> list[int]:
    """What was packed."""
    return [(seq >> (_BITS * shard)) & ((1 << _BITS) - 1) for shard in range(shards)]
