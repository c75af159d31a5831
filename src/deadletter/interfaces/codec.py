"""How a task's envelope becomes bytes."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any


class Codec(abc.ABC):
    """Turns a JSON-like document into bytes and back: swap it to encrypt or compress.

    What comes back must equal what went in. Raise InvalidTask for a value that cannot be stored (naming its path) and
    Undecodable for bytes that cannot be read.
    """

    @abc.abstractmethod
    def encode(self, document: Mapping[str, Any]) -> bytes:
        """The document as bytes; raises InvalidTask that names the path of a value with no faithful form."""

    @abc.abstractmethod
    def decode(self, body: bytes) -> dict[str, Any]:
        """The document again; raises Undecodable."""
