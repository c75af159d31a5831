"""What JSON is allowed to be here: strict about what is stored, stricter about what strangers send.

Both ways end in the same walk, so that a payload refused by ``enqueue`` is refused over HTTP in the same words.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any, NoReturn
from uuid import UUID

from ..model.errors import InvalidTask, UnserializablePayload

MAX_DEPTH = 100  # orjson gives up at 254 on writing and at 1,024 on reading: ours is the same everywhere
SMALLEST, LARGEST = -(2**63), 2**64 - 1  # what orjson writes and reads exactly

_INSTEAD: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (tuple, "would come back as a list; use a list"),
    ((set, frozenset), "has no JSON form; use a sorted list"),
    ((bytes, bytearray, memoryview), "has no JSON form; use base64 text"),
    (Decimal, "has no JSON form; use str(value), which keeps every digit"),
    ((date, time), "has no JSON form; use value.isoformat()"),  # a datetime is a date
    (timedelta, "has no JSON form; use value.total_seconds()"),
    ((UUID, PurePath), "has no JSON form; use str(value)"),
    (enum.Enum, "has no JSON form; use its .value"),
    (str, "would come back as plain text; use str(value)"),
    ((int, float), "would come back as a plain number; use int(value) or float(value)"),
    (list, "would come back as a plain list; use list(value)"),
)


def check_json(value: object, path: str, *, depth: int = 1) -> None:
    """Refuse whatever would not come back from JSON as it went in.

    Args:
        value: any Python value.
        path: what the value is called in errors, such as ``"payload"``; may be empty.
        depth: the level that ``value`` is on; more than 100 levels are refused, and so is a value that holds itself.

    Raises:
        UnserializablePayload: ``field`` is the path of the first value that is refused.
    """
    kind = type(value)
    if value is None or kind is bool:
        return
    if kind is str:
        _check_text(value, path)
    elif kind is int:
        if not SMALLEST <= value <= LARGEST:  # type: ignore[operator] # it is an int
            raise UnserializablePayload(path, "this integer does not fit in 64 bits; use text")
    elif kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type] # it is a float
            raise UnserializablePayload(path, f"{value} has no JSON form; use None or text")
    elif kind is list or isinstance(value, Mapping):
        _check_container(value, path, depth)  # type: ignore[arg-type] # one of the two
    elif not (isinstance(value, enum.Enum) and isinstance(value, str | int)):  # such an enum equals its value
        raise UnserializablePayload(path, f"{kind.__name__} {_instead(value)}")


def loads_strict(text: str | bytes, *, max_bytes: int, field: str = "body") -> Any:
    """Read JSON that a stranger wrote.

    Unlike the codec's reader, it sees NaN, infinities, numbers that do not fit, and keys given twice.

    Args:
        text: UTF-8.
        max_bytes: longer input is refused unread.
        field: what errors call the document.

    Raises:
        InvalidTask: what is wrong and, where it is known, at which path or position.
    """
    raw = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    if len(raw) > max_bytes:
        raise InvalidTask(field, f"is {len(raw)} bytes, more than {max_bytes}; send less")

    def constant(name: str) -> NoReturn:
        raise InvalidTask(field, f"{name} is no JSON; use null or text")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidTask(field, f"the key {short(twice)} is given twice; give it once")
        return document

    try:
        document = json.loads(raw.decode(), parse_constant=constant, object_pairs_hook=unique, parse_int=_integer)
    except RecursionError:
        raise InvalidTask(field, f"is nested deeper than {MAX_DEPTH} levels; flatten it") from None
    except UnicodeDecodeError as error:
        raise InvalidTask(field, f"is no UTF-8 text (byte {error.start}); send UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidTask(field, f"is no JSON: {error}") from None
    check_json(document, field)
    return document


def child(path: str, key: str) -> str:
    """The path of a member: ``payload.items``, or ``payload["a b"]`` where the key is no plain name."""
    if key.isidentifier():
        return f"{path}.{key}" if path else key
    return f"{path}[{short(key)}]"


def too_deep(document: Any, levels: int) -> bool:
    """Whether plain lists and dicts are nested in more levels than that; ``document`` is the first."""
    level = [document]
    while level and levels >= 0:
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) is dict or type(item) is list
        ]
        levels -= 1
    return levels < 0


def _check_container(value: list[Any] | Mapping[Any, Any], path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UnserializablePayload(path, f"nested deeper than {MAX_DEPTH} levels, or it holds itself; flatten it")
    if isinstance(value, list):
        for index, item in enumerate(value):
            check_json(item, f"{path}[{index}]", depth=depth + 1)
        return
    for key, item in value.items():
        if type(key) is not str:
            raise UnserializablePayload(path, f"the key {short(key)} is a {type(key).__name__}; use a str")
        _check_text(key, path)
        check_json(item, child(path, key), depth=depth + 1)


def _check_text(text: Any, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnserializablePayload(path, "the text holds a lone surrogate, which is no Unicode; replace it") from None


def _integer(digits: str) -> int:
    # int() refuses more than 4,300 digits without a path; 40 do not fit in 64 bits either, and the walk says where
    return int(digits[:40])


def _instead(value: object) -> str:
    for kinds, advice in _INSTEAD:
        if isinstance(value, kinds):
            return advice
    return "has no JSON form; use a dict of plain values"


def short(value: object) -> str:
    """A value for an error message, cut at 80 characters; text as JSON writes it."""
    text = json.dumps(value) if type(value) is str else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
