"""Values with parts: lists, mappings, unions and classes. Each function answers with a type's writer and reader, or None."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable
from typing import Any, Union, get_args, get_origin

import attrs
import cattrs
import orjson
from cattrs import cols
from cattrs.errors import IterableValidationNote
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override, typeddicts

from .strict_json import short
from .typed_leaf import Hooks, Misfit, Mismatch, expected, leaf, name, read_any, refuse, write_any

_LISTS: dict[Any, Callable[[list[Any]], Any]] = {
    list: list,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Collection: list,
    abc.Iterable: list,
    collections.deque: collections.deque,
    set: set,
    abc.MutableSet: set,
    frozenset: frozenset,
    abc.Set: frozenset,
}
_SETS = (set, frozenset, abc.Set, abc.MutableSet)
_DICTS: dict[Any, Callable[[dict[Any, Any]], Any]] = {
    dict: dict,
    abc.Mapping: dict,
    abc.MutableMapping: dict,
    collections.OrderedDict: collections.OrderedDict,
}
_TAG = {"$type", "value"}  # a union's member, where its JSON alone does not tell which


def containers(converter: cattrs.Converter, annotation: Any) -> Hooks | None:
    """Lists, tuples and sets. Sets are written in the order of their JSON, so that equal ones have equal digests."""
    kind = get_origin(annotation) or annotation
    if kind is tuple:
        return _tuples(converter, annotation)
    if kind not in _LISTS:
        return None
    item_type = next(iter(get_args(annotation)), Any)
    is_set = kind in _SETS
    takes = abc.Set if is_set else (list, tuple, collections.deque)

    def write(value: Any) -> Any:
        if not isinstance(value, takes):
            return Misfit(expected(annotation, value))
        items = [converter.unstructure(item, item_type) for item in value]
        return sorted(items, key=_json) if is_set else items

    def read(raw: Any) -> Any:
        if type(raw) is not list:
            raise refuse(annotation, raw)
        return _LISTS[kind](_each(converter, raw, itertools.repeat(item_type)))

    return write, read


def _tuples(converter: cattrs.Converter, annotation: Any) -> Hooks:
    item_types = get_args(annotation)
    if get_origin(annotation) is None:
        item_types = (Any, ...)
    same = len(item_types) == 2 and item_types[1] is ...

    def types_for(items: Any) -> Iterable[Any] | None:
        if same:
            return itertools.repeat(item_types[0])
        return item_types if len(items) == len(item_types) else None

    def write(value: Any) -> Any:
        parts = types_for(value) if isinstance(value, tuple | list) else None
        if parts is None:
            return Misfit(expected(annotation, value))
        return [converter.unstructure(item, part) for item, part in zip(value, parts, strict=False)]

    def read(raw: Any) -> Any:
        parts = types_for(raw) if type(raw) is list else None
        if parts is None:
            raise refuse(annotation, raw)
        return tuple(_each(converter, raw, parts))

    return write, read


def mappings(converter: cattrs.Converter, annotation: Any) -> Hooks | None:
    """Mappings; a key that is no text is written as its JSON."""
    kind = get_origin(annotation) or annotation
    if kind not in _DICTS:
        return None
    key_type, value_type = get_args(annotation) or (Any, Any)

    def read_key(text: str) -> Any:
        try:
            return converter.structure(text, key_type)
        except Exception:  # then it is the JSON of what is no text
            try:
                return converter.structure(orjson.loads(text), key_type)
            except Exception:
                raise Mismatch(f"the key {short(text)} is no {name(key_type)}") from None

    def write(value: Any) -> Any:
        if not isinstance(value, abc.Mapping):
            return Misfit(expected(annotation, value))
        document = {}
        for key, item in value.items():
            text = converter.unstructure(key, key_type)
            if isinstance(text, Misfit):
                return Misfit(f"the key {short(key)} {text.problem}")
            text = text if type(text) is str else _json(text).decode()
            if text in document or read_key(text) != key:
                return Misfit(f"the key {short(key)} does not come back as it was; annotate its type")
            document[text] = converter.unstructure(item, value_type)
        return document

    def read(raw: Any) -> Any:
        if type(raw) is not dict:
            raise refuse(annotation, raw)
        values = _each(converter, raw.values(), itertools.repeat(value_type), raw)
        return _DICTS[kind](dict(zip(map(read_key, raw), values, strict=True)))

    return write, read


def unions(converter: cattrs.Converter, annotation: Any) -> Hooks | None:
    """Unions; a value is tagged with its member's name where another member's JSON looks the same."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return None
    members = get_args(annotation)
    some = [member for member in members if member is not type(None)]
    if len(some) == 1:
        return _optional(converter, some[0])
    labels = {name(member): member for member in members}
    if len(labels) < len(members):
        labels = {f"{member.__module__}.{name(member)}": member for member in members}

    def guess(raw: Any) -> Any:
        # by the outermost level only: trying whole values would take 2^depth steps for nested unions
        fits = [member for member in members if _fits(converter, member, raw)]
        exact = [member for member in fits if member is type(raw)]
        return (exact or fits)[0] if len(exact or fits) == 1 else None

    def write(value: Any) -> Any:
        for label, member in sorted(labels.items(), key=lambda pair: _kind(pair[1]) is not type(value)):
            document = converter.unstructure(value, member)
            try:
                converter.structure(document, member)
            except Exception:  # another member may take it
                continue
            plain = guess(document) is member and not (type(document) is dict and document.keys() == _TAG)
            return document if plain else {"$type": label, "value": document}
        return Misfit(expected(annotation, value))

    def read(raw: Any) -> Any:
        if type(raw) is dict and raw.keys() == _TAG and raw["$type"] in list(labels):
            return converter.structure(raw["value"], labels[raw["$type"]])
        member = guess(raw)
        if member is None:
            if isinstance(raw, Misfit):
                raise refuse(annotation, raw)
            raise Mismatch(
                f"{short(raw)} fits none or several of {', '.join(labels)};"
                ' say which by {"$type": one of them, "value": ...}'
            )
        return converter.structure(raw, member)

    return write, read


def _optional(converter: cattrs.Converter, member: Any) -> Hooks:
    def write(value: Any) -> Any:
        return None if value is None else converter.unstructure(value, member)

    def read(raw: Any) -> Any:
        return None if raw is None else converter.structure(raw, member)

    return write, read


def _fits(converter: cattrs.Converter, member: Any, raw: Any) -> bool:
    """Whether the outermost level of the JSON could be this type's."""
    if leaf(member) is not None:
        try:
            converter.structure(raw, member)
        except Exception:
            return False
        return True
    kind = _kind(member)
    if kind is tuple or kind in _LISTS:
        return type(raw) is list
    if kind in _DICTS:
        return type(raw) is dict
    names = _names(kind)
    if names is None:
        return member is Any
    required, known = names
    return type(raw) is dict and required <= raw.keys() <= known


def _kind(member: Any) -> Any:
    return get_origin(member) or member


def classes(converter: cattrs.Converter, annotation: Any) -> Hooks | None:
    """Classes of attrs, dataclasses, NamedTuples and TypedDicts, by their fields."""
    kind = _kind(annotation)
    if _names(kind) is None:
        return None
    write_fields: Callable[[Any], Any]
    read_fields: Callable[[Any, Any], Any]
    if typing.is_typeddict(kind):
        write_fields = typeddicts.make_dict_unstructure_fn(annotation, converter)
        read_fields = typeddicts.make_dict_structure_fn(annotation, converter, _cattrs_forbid_extra_keys=True)
        kind = dict
    elif cols.is_namedtuple(kind):
        write_fields = cols.namedtuple_dict_unstructure_factory(annotation, converter)
        read_fields = cols.namedtuple_dict_structure_factory(annotation, converter, "from_converter", True)
    else:
        plain = override(unstruct_hook=write_any, struct_hook=lambda raw, _: read_any(raw))
        untyped = {field.name: plain for field in _fields(kind) if field.type is None}
        settable = not _is_frozen(kind)
        write_fields = make_dict_unstructure_fn(
            annotation, converter, _cattrs_include_init_false=settable, **untyped
        )
        read_fields = make_dict_structure_fn(
            annotation, converter, True, _cattrs_include_init_false=settable, **untyped
        )

    def write(value: Any) -> Any:
        # a subclass would come back as this class, without what it adds
        return write_fields(value) if type(value) is kind else Misfit(expected(annotation, value))

    def read(raw: Any) -> Any:
        if type(raw) is not dict:
            raise refuse(annotation, raw)
        return read_fields(raw, annotation)

    return write, read


def _names(kind: Any) -> tuple[abc.Set[str], abc.Set[str]] | None:
    """A class's required fields and all of them; None where it is no class with fields."""
    if not isinstance(kind, type):
        return None
    if typing.is_typeddict(kind):
        return kind.__required_keys__, kind.__annotations__.keys()  # type: ignore[attr-defined]
    if cols.is_namedtuple(kind):
        return set(kind._fields) - kind._field_defaults.keys(), set(kind._fields)  # type: ignore[attr-defined]
    if not attrs.has(kind) and not dataclasses.is_dataclass(kind):
        return None
    fields = _fields(kind)
    optional = {field.name for field in fields if not field.init or field.default is not attrs.NOTHING}
    known = {field.name for field in fields}
    return known - optional, known


def _fields(kind: Any) -> list[attrs.Attribute[Any]]:
    fields: list[attrs.Attribute[Any]] = cattrs._compat.adapted_fields(kind)
    return fields


def _is_frozen(kind: Any) -> bool:
    if attrs.has(kind):
        return attrs.inspect(kind).is_frozen
    return bool(kind.__dataclass_params__.frozen)


def _each(converter: cattrs.Converter, items: Iterable[Any], item_types: Iterable[Any], names: Any = None) -> list[Any]:
    """The items read; an error tells the name (or the number) of its item."""
    converted = []
    for place, item, item_type in zip(names or itertools.count(), items, item_types, strict=False):
        try:
            converted.append(converter.structure(item, item_type))
        except Exception as error:
            error.add_note(IterableValidationNote("", place, item_type))  # type: ignore[no-untyped-call]
            raise
    return converted


def _json(document: Any) -> bytes:
    return orjson.dumps(document, default=str, option=orjson.OPT_SORT_KEYS)
