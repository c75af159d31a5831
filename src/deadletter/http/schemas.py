"""JSON Schemas of what we answer: read off the attrs classes that it is made from."""

from __future__ import annotations

import enum
import re
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import attrs

from ..engine.alerting import MonitorInfo
from ..model.operation import Operation
from ..model.record import BulkResult, FailureGroup, Pause, Reason, Searched, State, Stats, WorkerInfo
from ..model.task import Priority

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_TIME = {"type": "string", "format": "date-time"}
_PLAIN: Mapping[Any, Mapping[str, Any]] = {
    str: _TEXT,
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: _TIME,
    Any: {},
}
_ATTRIBUTE = re.compile(r"^ {4,8}([a-z_]+(?:, [a-z_]+)*): (.+(?:\n {12,}.+)*)", re.MULTILINE)


def components() -> dict[str, dict[str, Any]]:
    """Every named schema."""
    classes = (Stats, WorkerInfo, FailureGroup, BulkResult, Pause, Operation, Searched)
    return {
        **{kind.__name__: of_class(kind) for kind in classes},
        "Error": _error(whole=False),
        "Failure": _failure(),
        "Item": _item(whole=True),
        "ListedItem": _item(whole=False),
        "Page": _page(),
        "Groups": _object(groups={"type": "array", "items": ref("FailureGroup")}),
        "Retried": _object(task_id=_TEXT, state={"type": "string", "enum": ["pending"]}),
        "Cancelled": _object(task_id=_TEXT, state={"type": "string", "enum": ["cancelled"]}),
        "Purged": _object(matched=_COUNT, changed=_COUNT),
        "Pauses": _object(paused={"type": "array", "items": ref("Pause")}),
        "MonitorInfo": of_class(MonitorInfo),
        "Monitor": _object(monitor=or_null(ref("MonitorInfo"))),
        "Operations": _object(operations={"type": "array", "items": ref("Operation")}),
        "Problem": _problem(),
    }


def ref(name: str) -> dict[str, str]:
    """A reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same, or null."""
    if "enum" in schema:
        return {**schema, "type": [schema["type"], "null"], "enum": [*schema["enum"], None]}
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [dict(schema), {"type": "null"}]} if schema else {}


def of_class(kind: type) -> dict[str, Any]:
    """The schema of an attrs class; its docstring describes the fields."""
    told = described(kind)
    hints = typing.get_type_hints(kind)
    properties = {}
    for field in attrs.fields(kind):
        schema = _of_hint(hints[field.name])
        properties[field.name] = {**schema, "description": told[field.name]} if field.name in told else schema
    return {"description": (kind.__doc__ or "").partition("\n")[0], **_object(**properties)}


def described(kind: type) -> dict[str, str]:
    """What the docstring of a class says of its attributes."""
    attributes = (kind.__doc__ or "").partition("Attributes:\n")[2]
    found = {}
    for names, text in _ATTRIBUTE.findall(attributes):
        for name in names.split(", "):
            found[name] = " ".join(text.split()).replace("``", "")
    return found


def _of_hint(hint: Any) -> dict[str, Any]:  # noqa: PLR0911 - a table of kinds
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"type": "string", "enum": [str(member.value) for member in hint]}
    if isinstance(hint, type) and attrs.has(hint):
        return ref(hint.__name__)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return {"type": "string", "enum": [*arguments]}
    if origin in (typing.Union, types.UnionType):
        (inner,) = [argument for argument in arguments if argument is not types.NoneType]
        return or_null(_of_hint(inner))
    if origin is Sequence:
        return {"type": "array", "items": _of_hint(arguments[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _of_hint(arguments[1])}
    raise TypeError(f"{hint!r} has no schema here; add one")


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


def _words(kind: type[enum.Enum]) -> dict[str, Any]:
    return {"type": "string", "enum": [str(member.value) for member in kind]}


def _item(*, whole: bool) -> dict[str, Any]:
    schema = _object(
        id=_TEXT,
        type=_TEXT,
        queue=_TEXT,
        priority=_words(Priority),
        state=_words(State),
        reason=or_null(_words(Reason)),
        payload={"type": "object", "description": 'a hidden value is {"$redacted": true}'},
        attempts={**_COUNT, "description": "the finished ones"},
        max_retries=or_null(_COUNT),
        idempotency_key=or_null(_TEXT),
        metadata={"type": "object", "additionalProperties": _TEXT},
        created_at=_TIME,
        due_at=_TIME,
        died_at=or_null(_TIME),
        expires_at=or_null(_TIME),
        replays={**_COUNT, "description": "how often it was sent back from the dead letters"},
        replayable={"type": "boolean"},
        error=or_null(_error(whole=True) if whole else ref("Error")),
    )
    if whole:
        schema["properties"]["history"] = {"type": "array", "items": ref("Failure")}
        schema["required"].append("history")
    return schema


def _error(*, whole: bool) -> dict[str, Any]:
    return _object(
        type={**_TEXT, "description": "fully qualified name of the exception's class"},
        message=_TEXT,
        **({"traceback": _TEXT} if whole else {}),
        fingerprint={**_TEXT, "description": "the same for the same cause"},
        attempt=_COUNT,
        at=_TIME,
        release=or_null(_TEXT),
    )


def _failure() -> dict[str, Any]:
    error = _error(whole=True)["properties"]
    traced = {**or_null(_TEXT), "description": "the attempt in your traces (W3C), where it was traced"}
    return _object(**error, duration=or_null({"type": "number"}), worker=or_null(_TEXT), traceparent=traced)


def _page() -> dict[str, Any]:
    schema = _object(
        items={"type": "array", "items": ref("ListedItem")},
        total={**or_null(_COUNT), "description": "how many match in all, where that is known exactly"},
        total_at_least={**_COUNT, "description": "a lower bound that is always known"},
        next_cursor={**or_null(_TEXT), "description": "for the next page; null on the last"},
    )
    schema["properties"]["searched"] = {
        **ref("Searched"),
        "description": "only where patience ended before the page was full: how far it came; next_cursor goes on there",
    }
    return schema


def _problem() -> dict[str, Any]:
    errors = {"type": "array", "items": _object(field=_TEXT, detail=_TEXT)}
    schema = _object(type=_TEXT, title=_TEXT, status={"type": "integer"}, detail=_TEXT, instance=_TEXT)
    schema["properties"]["errors"] = errors
    return {"description": "RFC 9457", **schema}
