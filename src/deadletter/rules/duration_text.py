"""Lengths of time as people type them: in the environment, in flags, in a URL."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_PIECE = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*(ms|[smhdw])\s*", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,9})?")


def parse_duration(text: str) -> float:
    """Read ``45``, ``45s``, ``1h30m`` or ``7d 12h`` as seconds; units ms, s, m, h, d, w. Raises ValueError."""
    plain = text.strip()
    if _NUMBER.fullmatch(plain):
        return float(plain)
    total, at = 0.0, 0
    while at < len(plain):
        piece = _PIECE.match(plain, at)
        if piece is None:
            break
        total += float(piece[1]) * _UNITS[piece[2].lower()]
        at = piece.end()
    if not plain or at < len(plain):
        raise ValueError(f"{shown(text)} is no duration; write seconds, or such as 45s, 1h30m, 7d 12h")
    return total


def shown(text: str) -> str:
    """A text for an error message, cut at 60 characters."""
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."
