"""What a user gives: a task, checked as soon as it is made."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, cast

import attrs

from ..runtime.chance import new_id
from .errors import InvalidTask

Duration: TypeAlias = "timedelta | float"

_ID = re.compile(r"[A-Za-z0-9._:-]{1,200}")
_LONGEST = 100 * 366 * 24 * 3600  # seconds: what a 64-bit time in ms and a datetime both hold


class Priority(enum.StrEnum):
    """Which tasks go first; strict, with a guard so that low is never starved."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


def _check_text(_: Origin, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidTask(f"origin.{attribute.name}", f"{_short(value)} is no text")


def _check_raw(_: Origin, __: object, value: Any) -> None:
    if not isinstance(value, bytes):
        raise InvalidTask("origin.raw", f"a {type(value).__name__} is no message; give its bytes")


@attrs.frozen(kw_only=True)
class Origin:
    """Where a captured task came from.

    Attributes:
        system: the queue system it ran under, such as ``"celery"``.
        queue: its queue there.
        native_id: its id there.
        raw: the message as it was, untouched.
    """

    system: str = attrs.field(validator=_check_text)
    queue: str | None = attrs.field(default=None, validator=attrs.validators.optional(_check_text))
    native_id: str | None = attrs.field(default=None, validator=attrs.validators.optional(_check_text))
    raw: bytes | None = attrs.field(default=None, validator=attrs.validators.optional(_check_raw))


def seconds(field: str, value: object) -> float:
    """The length of a duration in seconds; raises InvalidTask that names ``field``."""
    if isinstance(value, timedelta):
        length = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        length = float(value) if abs(value) <= _LONGEST else math.inf  # an int may be too large for a float
    else:
        raise InvalidTask(field, f"{_short(value)} is no duration; give seconds or a timedelta")
    if not 0 <= length <= _LONGEST:
        raise InvalidTask(field, f"{_short(value)} is out of range; give 0 to {_LONGEST} seconds")
    return length


def _type(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 200 or not value.isprintable():
        raise InvalidTask("type", f"{_short(value)} is no type; give 1-200 printable characters")
    return value


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # an int of over 4,300 digits, or whatever a user's __repr__ raises
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def _check_type(_: Task, __: object, value: Any) -> None:
    _type(value)


def _check_id(_: Task, __: object, value: Any) -> None:
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise InvalidTask("id", f"{_short(value)} is no id; give 1-200 characters out of A-Z a-z 0-9 . _ : -")


def _check_payload(_: Task, __: object, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise InvalidTask("payload", f"{_short(value)} is no JSON object; give a mapping")


def _check_retries(_: Task, __: object, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1_000_000:
        raise InvalidTask("max_retries", f"{_short(value)} is no count of retries; give 0 to 1000000 or None")


def _check_key(_: Task, __: object, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not 1 <= len(value) <= 1000:
        raise InvalidTask("idempotency_key", f"{_short(value)} is no key; give 1-1000 characters or None")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidTask("idempotency_key", "it holds a lone surrogate, which is no Unicode text") from None


_FIRST = datetime(1, 1, 2, tzinfo=UTC)
_LAST = datetime(9999, 12, 30, tzinfo=UTC)  # what is stored must be shown in any time zone


def _check_delay(_: Task, __: object, value: Any) -> None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidTask("delay", f"{value!r} has no time zone; give an aware datetime")
        if not _FIRST <= value <= _LAST:
            raise InvalidTask(
                "delay", f"{value.isoformat()} is out of range; give a time from {_FIRST:%Y} to {_LAST:%Y}"
            )
        return
    seconds("delay", value)


def _check_duration(_: Task, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and seconds(attribute.name, value) == 0:
        raise InvalidTask(attribute.name, "it is 0; give a positive duration or None")


def _check_uncertain(_: Task, __: object, value: Any) -> None:
    if value not in (None, "retry", "dead"):
        raise InvalidTask("on_uncertain", f'{_short(value)} is not one of "retry", "dead", None')


def _check_metadata(_: Task, __: object, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise InvalidTask("metadata", f"{_short(value)} is no mapping of str to str")
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise InvalidTask("metadata", f"{_short(name)}: {_short(text)} is not str to str")


def _priority(value: object) -> Priority:
    if type(value) is Priority:
        return value
    try:
        return Priority(cast("str", value))
    except ValueError:
        raise InvalidTask("priority", f'{_short(value)} is not one of "high", "normal", "low"') from None


@attrs.frozen(kw_only=True, eq=True, unsafe_hash=False)
class Task:
    """What to do, and how long to try.

    Durations are seconds or ``timedelta``. Raises InvalidTask (a ValueError) that names the field.

    Attributes:
        type: names the processor, 1-200 printable characters.
        payload: a JSON object.
        id: 1-200 of ``A-Za-z0-9._:-``; a new UUIDv7 where none is given.
        priority: ``high``, ``normal`` or ``low``.
        max_retries: retries after the first attempt; None lets the queue decide.
        idempotency_key: one live task per type and key.
        delay: first attempt not before enqueue + delay, or not before that time.
        timeout: the longest that one attempt may run.
        expires_in: dead (``expired``) where no attempt ended by then.
        on_uncertain: what happens when its worker vanished in mid-attempt; None lets the queue decide.
        metadata: kept and never interpreted.
        origin: where a captured task came from.
    """

    type: str = attrs.field(validator=_check_type)
    payload: Mapping[str, Any] = attrs.field(factory=dict, validator=_check_payload)
    id: str = attrs.field(factory=new_id, validator=_check_id)
    priority: Priority = attrs.field(default=Priority.NORMAL, converter=_priority)
    max_retries: int | None = attrs.field(default=None, validator=_check_retries)
    idempotency_key: str | None = attrs.field(default=None, validator=_check_key)
    delay: timedelta | float | datetime = attrs.field(default=0, validator=_check_delay)
    timeout: timedelta | float | None = attrs.field(default=None, validator=_check_duration)
    expires_in: timedelta | float | None = attrs.field(default=None, validator=_check_duration)
    on_uncertain: Literal["retry", "dead"] | None = attrs.field(default=None, validator=_check_uncertain)
    metadata: Mapping[str, str] = attrs.field(factory=dict, validator=_check_metadata)
    origin: Origin | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(Origin))
    )

    def __hash__(self) -> int:
        """By id: the payload is a mapping and has no hash."""
        return hash(self.id)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(at: datetime) -> int:
    """Milliseconds since the epoch."""
    return int((at - EPOCH) / timedelta(milliseconds=1))


def from_ms(at_ms: int) -> datetime:
    """An aware UTC datetime."""
    return EPOCH + timedelta(milliseconds=at_ms)
