"""Values without parts: numbers, text, enums, literals, and what ``typed_text`` writes as text.

A writer never raises on a misfit. It leaves a ``Misfit`` in the document, which no reader accepts, so that one reader,
which knows paths, reports what is wrong in both directions.
"""

from __future__ import annotations

import enum
import functools
import re
import types
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

import attrs

from ..model.errors import UnserializablePayload
from .strict_json import LARGEST, SMALLEST, check_json, short
from .typed_text import FORMS

Hook: TypeAlias = Callable[[Any], Any]
Hooks: TypeAlias = "tuple[Hook, Hook]"  # writer, reader

_FLOATS = ("inf", "-inf", "nan")
_BIG = re.compile(r"-?[1-9]\d{18,4299}")  # an integer that JSON numbers do not hold


@attrs.frozen
class Misfit:
    """A value that is not of the type that was annotated, in its place."""

    problem: str


class Mismatch(ValueError):
    """What is wrong with a value."""


def expected(annotation: Any, value: object) -> str:
    """What is wrong with a value of another type."""
    return f"{'null' if value is None else type(value).__name__} was given where {name(annotation)} is annotated"


def refuse(annotation: Any, raw: object) -> Mismatch:
    """What a reader raises for JSON that is not of its type."""
    return Mismatch(raw.problem if isinstance(raw, Misfit) else expected(annotation, raw))


def write_any(value: object) -> Any:
    """Write a value without a type: only what is plain JSON already."""
    try:
        check_json(value, "")
    except UnserializablePayload as error:
        where = f" (at {error.field})" if error.field else ""
        return Misfit(f"{error.problem}, or annotate its type{where}")
    return value


def read_any(raw: Any) -> Any:
    """Read a value without a type."""
    if isinstance(raw, Misfit):
        raise Mismatch(raw.problem)
    return raw


def _write_number(kind: Any, value: Any) -> Any:
    if kind is float and type(value) is int:
        return value  # as PEP 484 has it; and it comes back as the integer it was
    if not isinstance(value, kind) or isinstance(value, bool):
        return Misfit(expected(kind, value))
    value = kind(value)
    exact = SMALLEST <= value <= LARGEST if kind is int else str(value) not in _FLOATS
    return value if exact else str(value)


def _read_int(_: Any, raw: Any) -> int:
    if type(raw) is str and _BIG.fullmatch(raw) and not SMALLEST <= int(raw) <= LARGEST:
        return int(raw)
    if type(raw) is not int:
        raise refuse(int, raw)
    return raw


def _read_float(_: Any, raw: Any) -> float:
    if type(raw) is str and raw in _FLOATS:
        return float(raw)
    if type(raw) is not float and type(raw) is not int:
        raise refuse(float, raw)
    return raw


def _write_plain(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        return Misfit(expected(kind, value))
    return str.__str__(value) if kind is str else value


def _read_plain(kind: type, raw: Any) -> Any:
    if type(raw) is not kind:
        raise refuse(kind, raw)
    return raw


def _write_text(kind: type, value: Any) -> Any:
    form = FORMS[kind]
    if not isinstance(value, kind):
        return Misfit(expected(kind, value))
    try:
        text = form.write(value)
        again = form.read(text)
        same = again == value or value != value  # noqa: PLR0124 - NaN is never equal
    except Exception as error:  # a datetime given for a date, a zone without a name
        return Misfit(f"this {type(value).__name__} does not come back as {name(kind)}: {error}")
    return text if same else Misfit(f"this {type(value).__name__} does not come back as it was")


def _read_text(kind: type, raw: Any) -> Any:
    if type(raw) is not str:
        raise refuse(kind, raw)
    try:
        return FORMS[kind].read(raw)
    except Exception as error:  # ValueError, ArithmeticError, KeyError: each type has its own
        raise Mismatch(f"{short(raw)} is no {name(kind)}") from error


def leaf(kind: Any) -> Hooks | None:
    """Writer and reader of a type without parts; None for any other."""
    for accepts, make in _LEAVES:
        if accepts(kind):
            return make(kind)
    return None


def _enum_form(member: enum.Enum) -> Any:
    return member.value if type(member.value) in (str, int, float, bool) else member.name


def _literal_form(member: Any) -> Any:
    if isinstance(member, enum.Enum):
        return _enum_form(member)
    return _write_text(bytes, member) if type(member) is bytes else member


def _choice(kind: Any, members: list[tuple[Any, Any]]) -> Hooks:
    def write(value: Any) -> Any:
        for form, member in members:
            if type(member) is type(value) and member == value:
                return form
        flag = isinstance(value, enum.Flag) and type(value) is kind
        return value.value if flag else Misfit(expected(kind, value))

    def read(raw: Any) -> Any:
        for form, member in members:
            if type(form) is type(raw) and form == raw:
                return member
        if isinstance(kind, type) and issubclass(kind, enum.Flag) and type(raw) is int:
            return kind(raw)
        problem = f"{short(raw)} is not one of {', '.join(short(form) for form, _ in members)}"
        raise refuse(kind, raw) if isinstance(raw, Misfit) else Mismatch(problem)

    return write, read


def _pair(write: Callable[[Any, Any], Any], read: Callable[[Any, Any], Any]) -> Callable[[Any], Hooks]:
    return lambda kind: (functools.partial(write, kind), functools.partial(read, kind))


_LEAVES: tuple[tuple[Callable[[Any], bool], Callable[[Any], Hooks]], ...] = (
    (lambda kind: kind is None or kind is type(None), lambda _: _pair(_write_plain, _read_plain)(type(None))),
    (lambda kind: kind is str or kind is bool, _pair(_write_plain, _read_plain)),
    (lambda kind: kind is int, _pair(_write_number, _read_int)),
    (lambda kind: kind is float, _pair(_write_number, _read_float)),
    (lambda kind: isinstance(kind, type) and kind in FORMS, _pair(_write_text, _read_text)),
    (
        lambda kind: isinstance(kind, enum.EnumMeta),
        lambda kind: _choice(kind, [(_enum_form(member), member) for member in kind.__members__.values()]),
    ),
    (
        lambda kind: get_origin(kind) is Literal,
        lambda kind: _choice(kind, [(_literal_form(member), member) for member in get_args(kind)]),
    ),
)


def origin(annotation: Any) -> Any:
    """The class of a generic type, or the type itself."""
    return get_origin(annotation) or annotation


def name(annotation: Any) -> str:
    """A type as users write it."""
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(map(name, get_args(annotation)))
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return "None" if annotation is type(None) else annotation.__qualname__.rpartition("<locals>.")[2]
    return str(annotation).replace("typing.", "")
