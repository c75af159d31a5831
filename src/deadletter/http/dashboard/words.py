"""How values read on a page: ages, counts, times, payloads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))

TOLD: Mapping[str, str] = {
    "retried": "Sent back: it is pending now, and a worker takes it from here.",
    "edited": "Sent back with the edit: it is pending now, and the edit is noted in its history.",
    "cancelled": "Cancelled: the pending task is gone.",
    "not-cancelled": "Nothing was cancelled: a worker was faster.",
    "paused": "Paused: every worker knows within a second.",
    "resumed": "Resumed: workers claim these types again.",
    "called-off": "Called off: it does no further step.",
}
"""What a page may say about a form that went before it, by the word in its URL."""


def age(seconds: float | None) -> str:
    """Seconds in the largest unit that fits, such as ``3 h``; a dash for None."""
    if seconds is None:
        return "–"
    left = max(0.0, seconds)
    for unit, size in _UNITS:
        if left >= size:
            return f"{int(left // size)} {unit}"
    return "0 s"


def ago(at: datetime, now: datetime) -> str:
    """How long ago, or in how long."""
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{age(seconds)} ago" if seconds > 0 else f"in {age(-seconds)}"


def iso(at: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp(at: datetime) -> str:
    """A time for people, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def count(n: int) -> str:
    """A number with its thousands apart."""
    return f"{n:,}"


def pretty(value: Any) -> str:
    """JSON over several lines, as it stands: keys in their order, no escapes but those that JSON needs."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def first_line(text: str, longest: int = 240) -> str:
    """The first line that says something, cut."""
    line = next((part.strip() for part in text.splitlines() if part.strip()), "")
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def bare(name: str) -> str:
    """An error type without its module, as people know it."""
    return name.rpartition(".")[2] or name


def module(name: str) -> str:
    """The module of an error type, with its dot; empty for a builtin."""
    head, dot, _ = name.rpartition(".")
    return f"{head}{dot}" if head != "builtins" else ""


def plural(n: int, one: str, many: str | None = None) -> str:
    """``1 letter``, ``2 letters``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


FILTERS: Mapping[str, Callable[..., str]] = {
    "age": age,
    "ago": ago,
    "iso": iso,
    "stamp": stamp,
    "count": count,
    "pretty": pretty,
    "first_line": first_line,
    "bare": bare,
    "module": module,
    "plural": plural,
}
