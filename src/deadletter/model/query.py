"""Which tasks are meant: conditions, all of which must hold, and the cursor of a page."""

from __future__ import annotations

import base64
import binascii
import enum
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, TypeVar

import attrs

from .errors import InvalidQuery, InvalidTask
from .record import Reason, State, TaskRecord
from .task import Duration, Priority, Task, seconds, to_ms

_E = TypeVar("_E", bound=enum.Enum)
_Condition: TypeAlias = Callable[[TaskRecord], bool]
_TaskCondition: TypeAlias = Callable[[Task], bool]

_LONGEST = 1_000  # characters of a text condition or a glob
_MOST_IDS = 100_000
_MOST_CONDITIONS = 100  # paths of payload, names of metadata
_DEEPEST = 20  # of a value in a payload condition
_RANK = {priority: rank for rank, priority in enumerate(Priority)}

_ESCAPED = re.compile(r"(\\\*)|\*")


def glob_match(pattern: str, text: str) -> bool:
    r"""Whether ``text`` matches: ``*`` is any run of characters, ``\*`` a literal star. Linear time.

    A text of more than 1,000 characters matches nothing; a pattern of that length raises InvalidQuery.
    """
    pieces = _pieces(pattern)
    if len(text) > _LONGEST:
        return False
    if len(pieces) == 1:
        return text == pieces[0]
    first, *middle, last = pieces
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def is_glob(pattern: str) -> bool:
    """Whether a pattern has a wildcard."""
    return len(_pieces(pattern)) > 1


def literal(pattern: str) -> str | None:
    """The only text that a pattern matches; None where it has a wildcard."""
    return None if is_glob(pattern) else _pieces(pattern)[0]


@functools.lru_cache(maxsize=1024)
def _pieces(pattern: str) -> tuple[str, ...]:
    """The literal texts between the wildcards."""
    if len(pattern) > _LONGEST:
        raise InvalidQuery(f"type: a glob of {len(pattern)} characters; give at most {_LONGEST}")
    pieces, at = [""], 0
    for found in _ESCAPED.finditer(pattern):
        pieces[-1] += pattern[at : found.start()]
        if found[1]:
            pieces[-1] += "*"
        else:
            pieces.append("")
        at = found.end()
    pieces[-1] += pattern[at:]
    return tuple(pieces)


def encode_cursor(after: tuple[int, str]) -> str:
    """The opaque, URL-safe text for (time in ms, id) of the last row of a page."""
    time_ms, task_id = after
    return base64.urlsafe_b64encode(f"1 {time_ms} {task_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: object) -> tuple[int, str]:
    """(time in ms, id) of a cursor; raises InvalidQuery for what no page gave out."""
    try:
        text = _text("cursor", cursor)
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
        found = re.fullmatch(r"1 (-?\d{1,18}) ([A-Za-z0-9._:-]{1,200})", plain)
    except (binascii.Error, ValueError):
        found = None
    if found is None:
        raise InvalidQuery("cursor: no page gave this out; ask for the first page again, without a cursor")
    return int(found[1]), found[2]


def _short(value: object) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= 80 else f"{value[:60]!r}... ({len(value)} characters)"
    if value is None or isinstance(value, bool | float):
        return repr(value)
    return f"a value of type {type(value).__name__}"  # whose repr may be anything


def _text(field: str, value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST:
        raise InvalidQuery(f"{field}: {_short(value)} cannot be meant; give 1 to {_LONGEST} characters")
    return value


def _check_text(_: Query, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _text(attribute.name, value)


def _member(field: str, kind: type[_E], value: object) -> _E | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(member.value) for member in kind)
        raise InvalidQuery(f"{field}: {_short(value)} is none of {known}") from None


def _to_priority(value: Priority | str | None) -> Priority | None:
    return _member("priority", Priority, value)


def _to_state(value: State | str | None) -> State | None:
    return _member("state", State, value)


def _to_reason(value: Reason | str | None) -> Reason | None:
    return _member("reason", Reason, value)


def _when(field: str, value: Duration | datetime | None) -> timedelta | datetime | None:
    if value is None:
        return None
    try:
        if not isinstance(value, datetime):
            return timedelta(seconds=seconds(field, value))
        if value.tzinfo is not None:
            return value.astimezone(UTC)
    except (InvalidTask, OverflowError):
        raise InvalidQuery(
            f"{field}: {_short(value)} is no age; give seconds, a timedelta or an aware datetime"
        ) from None
    raise InvalidQuery(f"{field}: {value!r} has no time zone; give an aware datetime")


def _to_older(value: Duration | datetime | None) -> timedelta | datetime | None:
    return _when("older_than", value)


def _to_newer(value: Duration | datetime | None) -> timedelta | datetime | None:
    return _when("newer_than", value)


def _to_ids(value: Iterable[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence | set | frozenset) or isinstance(value, str | bytes):
        raise InvalidQuery(f"ids: {_short(value)} is no list; give a list of ids")
    if len(value) > _MOST_IDS:
        raise InvalidQuery(f"ids: {len(value)} of them; give at most {_MOST_IDS}")
    return tuple(_text("ids", item) for item in value)


def _to_metadata(value: Mapping[str, str] | None) -> Mapping[str, str] | None:
    wanted = _mapping("metadata", value)
    return wanted and {_text("metadata", name): _text("metadata", text) for name, text in wanted.items()}


def _to_payload(value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    wanted = _mapping("payload", value)
    for path, part in (wanted or {}).items():
        _check_json(_text("payload", path), part, _DEEPEST)
    return wanted


def _mapping(field: str, value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidQuery(f"{field}: {_short(value)} is no mapping")
    if len(value) > _MOST_CONDITIONS:
        raise InvalidQuery(f"{field}: {len(value)} conditions; give at most {_MOST_CONDITIONS}")
    return dict(value) or None


def _check_json(path: str, value: object, depth: int) -> None:
    if depth == 0:
        raise InvalidQuery(f"payload: the value for {_short(path)} is nested deeper than {_DEEPEST}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidQuery(f"payload: {value} for {_short(path)} is no JSON number")
    if isinstance(value, Mapping):
        if value.get("$redacted") is True:
            raise InvalidQuery(f"payload: a hidden value for {_short(path)} matches nothing; give the real one")
        for name, part in value.items():
            _text("payload", name)
            _check_json(path, part, depth - 1)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_json(path, part, depth - 1)
    elif not isinstance(value, str | int | float | None):
        raise InvalidQuery(f"payload: {_short(value)} for {_short(path)} is not JSON")


@attrs.frozen(kw_only=True)
class Query:
    r"""Conditions that must all hold; None leaves a field out. Raises InvalidQuery that names the field.

    Attributes:
        type: a name or a glob (only ``*``; ``\*`` is a literal one).
        priority, reason: equal.
        state: ``dead`` unless said otherwise; None is any state.
        error_contains: plain text, any case, in the last failure's error type, message or traceback.
        error_type, fingerprint: of the last failure, equal.
        older_than, newer_than: seconds, a timedelta or an aware datetime; of the death of a letter, else of creation.
        idempotency_key: equal.
        metadata: each name has this text.
        payload: each dotted path (``items.0.id`` looks into a list) has this JSON value; True is not 1.
        release: of the last failure, equal.
        ids: one of these; an empty list matches nothing.
    """

    type: str | None = attrs.field(default=None, validator=_check_text)
    priority: Priority | None = attrs.field(default=None, converter=_to_priority)
    state: State | None = attrs.field(default=State.DEAD, converter=_to_state)
    error_contains: str | None = attrs.field(default=None, validator=_check_text)
    error_type: str | None = attrs.field(default=None, validator=_check_text)
    fingerprint: str | None = attrs.field(default=None, validator=_check_text)
    reason: Reason | None = attrs.field(default=None, converter=_to_reason)
    older_than: timedelta | datetime | None = attrs.field(default=None, converter=_to_older)
    newer_than: timedelta | datetime | None = attrs.field(default=None, converter=_to_newer)
    idempotency_key: str | None = attrs.field(default=None, validator=_check_text)
    metadata: Mapping[str, str] | None = attrs.field(default=None, converter=_to_metadata)
    payload: Mapping[str, Any] | None = attrs.field(default=None, converter=_to_payload)
    release: str | None = attrs.field(default=None, validator=_check_text)
    ids: Sequence[str] | None = attrs.field(default=None, converter=_to_ids)

    @property
    def has_condition(self) -> bool:
        """Whether anything but the state is asked for."""
        return any(getattr(self, field.name) is not None for field in attrs.fields(Query) if field.name != "state")

    def resolved(self, now: datetime) -> Query:
        """The same query with durations made absolute: so long before ``now``."""
        older, newer = self.older_than, self.newer_than
        return attrs.evolve(
            self,
            older_than=now - older if isinstance(older, timedelta) else older,
            newer_than=now - newer if isinstance(newer, timedelta) else newer,
        )

    def matches(self, record: TaskRecord) -> bool:
        """Whether all conditions hold. The query must be ``resolved``."""
        return all(condition(record) for condition in self._conditions) and self.matches_task(record.task)

    def matches_task(self, task: Task) -> bool:
        """Whether those conditions hold that are of the task's content: idempotency_key, metadata, payload."""
        return all(condition(task) for condition in self._task_conditions)

    def scan_fields(self) -> dict[str, Any]:
        """What a backend may narrow a Scan by; ``state`` is left out where any will do."""
        fields: dict[str, Any] = {
            "state": self.state,
            "type": literal(self.type) if self.type is not None else None,
            "priority": _RANK[self.priority] if self.priority is not None else None,
            "fingerprint": self.fingerprint,
            "reason": self.reason,
            "error_type": self.error_type,
            "release": self.release,
            "text": self.error_contains.casefold() if self.error_contains is not None else None,
            "since_ms": to_ms(_absolute("newer_than", self.newer_than)) if self.newer_than is not None else None,
            "until_ms": to_ms(_absolute("older_than", self.older_than)) if self.older_than is not None else None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @functools.cached_property
    def _conditions(self) -> tuple[_Condition, ...]:
        """One test per field that is set, the cheap ones first."""
        conditions: list[_Condition] = [
            test(value) for name, test in _TESTS.items() if (value := getattr(self, name)) is not None
        ]
        return tuple(conditions)

    @functools.cached_property
    def _task_conditions(self) -> tuple[_TaskCondition, ...]:
        return tuple(test(value) for name, test in _TASK_TESTS.items() if (value := getattr(self, name)) is not None)


def _absolute(field: str, value: object) -> datetime:
    if not isinstance(value, datetime):
        raise InvalidQuery(f"{field}: a duration counts from now; call resolved(now) first")
    return value


def _time(record: TaskRecord) -> datetime:
    return record.died_at if record.state is State.DEAD and record.died_at is not None else record.created_at


def _of_failure(name: str) -> Callable[[Any], _Condition]:
    return lambda value: lambda record: record.failure is not None and getattr(record.failure, name) == value


def _test_ids(ids: Sequence[str]) -> _Condition:
    wanted = frozenset(ids)
    return lambda record: record.id in wanted


def _test_older(value: object) -> _Condition:
    bound = _absolute("older_than", value)
    return lambda record: _time(record) <= bound


def _test_newer(value: object) -> _Condition:
    bound = _absolute("newer_than", value)
    return lambda record: _time(record) >= bound


def _test_metadata(wanted: Mapping[str, str]) -> _TaskCondition:
    return lambda task: all(task.metadata.get(name) == text for name, text in wanted.items())


def _test_payload(wanted: Mapping[str, Any]) -> _TaskCondition:
    paths = [(path.split("."), value) for path, value in wanted.items()]
    return lambda task: all(_equal(value, _inside(task.payload, path)) for path, value in paths)


def _test_text(text: str) -> _Condition:
    needle = text.casefold()

    def test(record: TaskRecord) -> bool:
        failure = record.failure
        if failure is None:
            return False
        return any(needle in part.casefold() for part in (failure.error_type, failure.message, failure.traceback))

    return test


_NOTHING = object()


def _inside(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        if type(value) is dict or isinstance(value, Mapping):
            value = value.get(name, _NOTHING)
        elif isinstance(value, list | tuple) and re.fullmatch(r"[0-9]{1,9}", name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return _NOTHING
    return value


def _equal(wanted: Any, stored: Any) -> bool:
    """JSON equality: 1 and 1.0 are one number, True is none. As deep as ``wanted``, which was checked."""
    if isinstance(wanted, Mapping):
        return (
            isinstance(stored, Mapping)
            and wanted.keys() == stored.keys()
            and all(_equal(part, stored[name]) for name, part in wanted.items())
        )
    if isinstance(wanted, list | tuple):
        return isinstance(stored, list | tuple) and len(wanted) == len(stored) and all(map(_equal, wanted, stored))
    return isinstance(wanted, bool) is isinstance(stored, bool) and bool(wanted == stored)


_TESTS: Mapping[str, Callable[[Any], _Condition]] = {
    "state": lambda state: lambda record: record.state == state,
    "ids": _test_ids,
    "priority": lambda priority: lambda record: record.task.priority == priority,
    "reason": lambda reason: lambda record: record.reason == reason,
    "type": lambda pattern: lambda record: glob_match(pattern, record.task.type),
    "fingerprint": _of_failure("fingerprint"),
    "error_type": _of_failure("error_type"),
    "release": _of_failure("release"),
    "older_than": _test_older,
    "newer_than": _test_newer,
    "error_contains": _test_text,
}

_TASK_TESTS: Mapping[str, Callable[[Any], _TaskCondition]] = {
    "idempotency_key": lambda key: lambda task: task.idempotency_key == key,
    "metadata": _test_metadata,
    "payload": _test_payload,
}
