"""Numbers and durations that users give to a policy, checked where they are given."""

from __future__ import annotations

from datetime import timedelta

LONGEST = 100 * 366 * 24 * 3600  # seconds: a 64-bit time in ms and a datetime both hold it


def number(argument: str, value: object, low: float, high: float) -> float:
    """A real number from ``low`` to ``high``; raises ValueError that names ``argument``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{argument} is {value!r}; give a number from {low:g} to {high:g}")
    return float(value)


def seconds(argument: str, value: object, low: float = 0, high: float = LONGEST) -> float:
    """A duration in seconds from ``low`` to ``high``; raises ValueError that names ``argument``."""
    length = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(length, bool) or not isinstance(length, int | float) or not low <= length <= high:
        raise ValueError(f"{argument} is {value!r}; give a timedelta, or seconds from {low:g} to {high:g}")
    return float(length)


def whole(argument: str, value: object) -> int:
    """A count from 0 up; raises ValueError that names ``argument``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{argument} is {value!r}; give a whole number from 0 up")
    return value
