"""A guard around an effect that happens outside the queue's own rows."""

from __future__ import annotations

import abc
from typing import Literal

import attrs


@attrs.frozen(kw_only=True)
class Begun:
    """The answer of ``begin``.

    Attributes:
        word: ``started`` (go ahead, ``token`` is yours), ``completed`` (``result`` is the stored one), ``in_progress``
            (somebody else has it, for ``remaining`` seconds at most), ``conflict`` (the key is bound to another
            digest).
    """

    word: Literal["started", "completed", "in_progress", "conflict"]
    token: str | None = None
    result: bytes | None = None
    remaining: float | None = None


class IdempotencyStore(abc.ABC):
    """Remembers which effects happened.

    A token is valid until its ``ttl`` has passed; then another ``begin`` may take over.
    """

    @abc.abstractmethod
    async def begin(self, key: str, digest: str, ttl: float) -> Begun:
        """Claim the key for ``ttl`` seconds, or say who has it."""

    @abc.abstractmethod
    async def complete(self, token: str, result: bytes, ttl: float) -> None:
        """The effect happened: remember its result for ``ttl`` seconds.

        Raises LeaseLost where the token is not valid any more.
        """

    @abc.abstractmethod
    async def abandon(self, token: str) -> None:
        """The effect did not happen: free the key. Safe to repeat."""
