"""The kinds of values that a request may have: how each is read, and its JSON Schema.

A check takes a JSON value and answers what it means; it raises ValueError with the rest of a sentence.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ..model.event import EventKind
from ..rules.duration_text import parse_duration
from ..rules.strict_json import loads_strict

MOST_DAYS = 36_600
MOST_IDS = 10_000
LONGEST_TEXT = 1_000
LONGEST_DELAY = 366 * 86400  # seconds

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_SWITCH = {"true": True, "1": True, "false": False, "0": False}


def text(longest: int = LONGEST_TEXT) -> tuple[dict[str, Any], Callable[[Any], str]]:
    """Text of 1 to ``longest`` characters: schema and check."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not 1 <= len(value) <= longest:
            raise ValueError(f"{_shown(value)} cannot be meant; give text of 1 to {longest} characters")
        return value

    return {"type": "string", "minLength": 1, "maxLength": longest}, check


def one_of(kind: type[enum.StrEnum] | tuple[str, ...]) -> tuple[dict[str, Any], Callable[[Any], str]]:
    """One of some words: schema and check."""
    words = [str(word) for word in kind]

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"{_shown(value)} is none of {', '.join(words)}")
        return value

    return {"type": "string", "enum": words}, check


def whole(lowest: int, highest: int) -> tuple[dict[str, Any], Callable[[Any], int]]:
    """A whole number: schema and check."""

    def check(value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON knows one kind of number
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise ValueError(f"{_shown(value)} cannot be meant; give a whole number from {lowest} to {highest}")
        return value

    return {"type": "integer", "minimum": lowest, "maximum": highest}, check


def number(lowest: float, highest: float, *, above: bool = False) -> tuple[dict[str, Any], Callable[[Any], float]]:
    """A number: schema and check; ``above`` leaves out the lowest itself."""

    def check(value: Any) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not lowest <= value <= highest or (above and value == lowest):
            said = "more than" if above else "from"
            raise ValueError(f"{_shown(value)} cannot be meant; give a number {said} {lowest:g} to {highest:g}")
        return float(value)

    low = {"exclusiveMinimum": lowest} if above else {"minimum": lowest}
    return {"type": "number", **low, "maximum": highest}, check


def switch(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is neither true nor false")  # noqa: TRY004 - as all checks
    return value


def switch_text(text: str) -> bool:
    """True or false in a URL."""
    if text.lower() not in _SWITCH:
        raise ValueError(f"{_shown(text)} is neither true nor false")
    return _SWITCH[text.lower()]


def number_text(text: str) -> Any:
    """A number in a URL; what is none is refused here, what is too large by its check."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{_shown(text)} is no number")
    return int(text) if _INTEGER.fullmatch(text) else float(text)


def age(value: Any) -> Any:
    """Seconds, or a time."""
    if isinstance(value, str):
        at = _moment(value)
        return at if at is not None else parse_duration(value)
    return number(0, MOST_DAYS * 86400)[1](value)


def delay(value: Any) -> float:
    """Seconds."""
    return number(0, LONGEST_DELAY)[1](parse_duration(value) if isinstance(value, str) else value)


def age_text(text: str) -> Any:
    """An age in a URL."""
    return text.replace(" ", "+") if _moment(text.replace(" ", "+")) else text  # a + of a zone, not spelled %2B


def time_(value: Any) -> datetime:
    """A time with a zone, in UTC."""
    at = _moment(value) if isinstance(value, str) else None
    if at is None:
        raise ValueError(f"{_shown(value)} is no time with a zone; write it like 2026-01-31T12:00:00Z")
    return at


def _moment(text: str) -> datetime | None:
    if len(text) > 40:
        return None
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo is not None else None
    except (ValueError, OverflowError):  # the year 9999 west of here
        return None


def object_(value: Any) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is no JSON object")  # noqa: TRY004 - as all checks
    return value


def pairs_text(read: Callable[[str], Any]) -> Callable[[list[str]], Any]:
    """Pairs in a URL, each ``NAME=VALUE``, as a mapping."""

    def from_text(texts: list[str]) -> Any:
        found: dict[str, Any] = {}
        for text in texts:
            name, separator, value = text.partition("=")
            if not separator or not name:
                raise ValueError(f"{_shown(text)} has no name and value; write NAME=VALUE, such as customer.id=7")
            if name in found:
                raise ValueError(f"{_shown(name)} is given twice; give it once")
            found[name] = read(value)
        return found

    return from_text


def json_or_text(text: str) -> Any:
    """JSON where it is JSON (7, true, "7"), else the text itself."""
    try:
        return loads_strict(text, max_bytes=LONGEST_TEXT)
    except ValueError:
        return text


def ids(value: Any) -> list[str]:
    """A list of ids."""
    if not isinstance(value, list) or not all(isinstance(one, str) and 0 < len(one) <= 200 for one in value):
        raise ValueError("this is no list of ids; give texts of 1 to 200 characters")
    if len(value) > MOST_IDS:
        raise ValueError(f"{len(value)} ids are too many at a time; give at most {MOST_IDS}")
    return value


def kinds(value: Any) -> list[str]:
    """A list of kinds of events."""
    known = [str(kind) for kind in EventKind]
    if not isinstance(value, list) or not all(one in known for one in value):
        raise ValueError(f"these are not all among {', '.join(known)}")
    return value


def listed_text(texts: list[str]) -> list[str]:
    """A list in a URL: joined by commas, or given several times."""
    return [one for text in texts for one in text.split(",") if one]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:57]!r}... ({len(value)} characters)"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return repr(value)
    return "an object" if isinstance(value, dict) else "a list"


AGE = {
    "oneOf": [
        {"type": "number", "minimum": 0, "maximum": MOST_DAYS * 86400},
        {"type": "string", "minLength": 1, "maxLength": 40},
    ]
}
TIME = {"type": "string", "format": "date-time", "maxLength": 40}
IDS = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": 200},
    "maxItems": MOST_IDS,
}
PAIRS = {"type": "object", "maxProperties": 100, "propertyNames": {"minLength": 1, "maxLength": LONGEST_TEXT}}
KINDS = {"type": "array", "items": {"type": "string", "enum": [str(kind) for kind in EventKind]}, "maxItems": 20}
PAIRS_IN_URL = {
    "type": "array",
    "items": {"type": "string", "pattern": "^[^=]{1,200}=", "maxLength": LONGEST_TEXT},
    "maxItems": 100,
}
