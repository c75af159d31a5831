"""Classes with fields: of attrs, dataclasses, NamedTuples and TypedDicts."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Any, NotRequired, Required, get_origin, get_type_hints

import attrs
import cattrs
from cattrs import cols
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from .typed_leaf import Hooks, Misfit, Mismatch, expected, origin, read_any, refuse, write_any


def classes(converter: cattrs.Converter, annotation: Any) -> Hooks | None:
    """The writer and the reader of a class with fields; None for any other type."""
    kind = origin(annotation)
    if fields(kind) is None:
        return None
    make = _typed_dict if typing.is_typeddict(kind) else _named_tuple if cols.is_namedtuple(kind) else _attributes
    # made at the first value: cattrs cannot make the functions of a class while it makes them for its fields
    functions = functools.cache(lambda: make(converter, annotation))
    instance = dict if typing.is_typeddict(kind) else kind

    def write(value: Any) -> Any:
        # a subclass would come back as this class, without what it adds
        return functions()[0](value) if type(value) is instance else Misfit(expected(annotation, value))

    def read(raw: Any) -> Any:
        if type(raw) is not dict:
            raise refuse(annotation, raw)
        return functions()[1](raw, annotation)

    return write, read


def fields(kind: Any) -> dict[str, bool] | None:
    """The names of a class's fields and whether they are required; None where it is no class with fields."""
    if typing.is_typeddict(kind):
        return {field: required for field, (_, required) in _entries(kind).items()}
    if cols.is_namedtuple(kind):
        return {field: field not in kind._field_defaults for field in kind._fields}
    if isinstance(kind, type) and attrs.has(kind):
        return {field.name: field.init and field.default is attrs.NOTHING for field in attrs.fields(kind)}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        missing = dataclasses.MISSING
        return {
            field.name: field.init and field.default is missing and field.default_factory is missing
            for field in dataclasses.fields(kind)
        }
    return None


_Functions = tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]


def _attributes(converter: cattrs.Converter, annotation: Any) -> _Functions:
    kind = origin(annotation)
    plain = override(unstruct_hook=write_any, struct_hook=lambda raw, _: read_any(raw))
    untyped = [field.name for field in attrs.fields(kind) if field.type is None] if attrs.has(kind) else []
    options: dict[str, Any] = dict.fromkeys(untyped, plain)
    # the state of a mutable class counts; a frozen one works out the rest from what it is given
    options["_cattrs_include_init_false"] = not _is_frozen(kind)
    return (
        make_dict_unstructure_fn(annotation, converter, **options),
        make_dict_structure_fn(annotation, converter, _cattrs_forbid_extra_keys=True, **options),
    )


def _is_frozen(kind: Any) -> bool:
    if attrs.has(kind):
        return attrs.inspect(kind).is_frozen
    return bool(kind.__dataclass_params__.frozen)


def _named_tuple(converter: cattrs.Converter, annotation: Any) -> _Functions:
    return (
        cols.namedtuple_dict_unstructure_factory(annotation, converter),
        cols.namedtuple_dict_structure_factory(annotation, converter, "from_converter", True),
    )


def _typed_dict(converter: cattrs.Converter, annotation: Any) -> _Functions:
    entries = _entries(origin(annotation))

    def write(value: dict[str, Any]) -> Any:
        # what is not annotated is kept, for the reader to refuse
        known = {
            field: converter.unstructure(value[field], kind) for field, (kind, _) in entries.items() if field in value
        }
        return {**value, **known}

    def read(raw: dict[str, Any], _: Any) -> Any:
        extra = raw.keys() - entries.keys()
        if extra:
            raise ForbiddenExtraKeysError("", annotation, extra)
        restored = {}
        for field, (kind, required) in entries.items():
            if field in raw:
                try:
                    restored[field] = converter.structure(raw[field], kind)
                except Exception as error:
                    error.add_note(AttributeValidationNote("", field, kind))
                    raise
            elif required:
                raise Mismatch(f"the field {field!r} is missing; give it")
        return restored

    return write, read


def _entries(kind: Any) -> dict[str, tuple[Any, bool]]:
    """The fields of a TypedDict: type, and whether it is required.

    cattrs trusts ``__required_keys__``, which misses ``NotRequired`` where annotations are text.
    """
    entries = {}
    for field, hint in get_type_hints(kind, include_extras=True).items():
        said = get_origin(hint)
        entries[field] = hint, said is Required or (said is not NotRequired and field in kind.__required_keys__)
    return entries
