"""Values with parts: lists, mappings and unions.

Each public function answers with the writer and the reader of a type, or None where the type is not its own.
"""

from __future__ import annotations

import collections
import itertools
import types
from collections import abc
from collections.abc import Callable, Iterable
from typing import Any, Union, get_args, get_origin

import cattrs
import orjson
from cattrs.errors import IterableValidationNote

from .strict_json import short
from .typed_fields import fields
from .typed_leaf import Hooks, Misfit, Mismatch, expected, leaf, name, origin, refuse

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


def containers(converter: cattrs.Converter, annotation: Any) -> Hooks | None:
    """Lists, tuples and sets. Sets are written in the order of their JSON, so that equal ones have equal digests."""
    kind = origin(annotation)
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
    kind = origin(annotation)
    if kind not in _DICTS:
        return None
    key_type, value_type = get_args(annotation) or (Any, Any)

    def write(value: Any) -> Any:
        if not isinstance(value, abc.Mapping):
            return Misfit(expected(annotation, value))
        document: dict[str, Any] = {}
        for key, item in value.items():
            text = _write_key(converter, key, key_type)
            if isinstance(text, Misfit):
                return text
            if text in document:
                return Misfit(f"two keys would both be {short(text)}; annotate the type of its keys")
            document[text] = converter.unstructure(item, value_type)
        return document

    def read(raw: Any) -> Any:
        if type(raw) is not dict:
            raise refuse(annotation, raw)
        keys = [_read_key(converter, text, key_type) for text in raw]
        values = _each(converter, raw.values(), itertools.repeat(value_type), raw)
        return _DICTS[kind](dict(zip(keys, values, strict=True)))

    return write, read


def _write_key(converter: cattrs.Converter, key: object, key_type: Any) -> str | Misfit:
    document = converter.unstructure(key, key_type)
    if isinstance(document, Misfit):
        return Misfit(f"the key {short(key)}: {document.problem}")
    text = document if type(document) is str else _json(document).decode()
    try:
        same = _read_key(converter, text, key_type) == key
    except Mismatch:
        same = False
    return text if same else Misfit(f"the key {short(key)} does not come back as it was; annotate the type of its keys")


def _read_key(converter: cattrs.Converter, text: str, key_type: Any) -> Any:
    try:
        return converter.structure(text, key_type)
    except Exception:  # then it is the JSON of what is no text
        try:
            return converter.structure(orjson.loads(text), key_type)
        except Exception:
            raise Mismatch(f"the key {short(text)} is no {name(key_type)}") from None


def unions(converter: cattrs.Converter, annotation: Any) -> Hooks | None:
    """Unions; a value is tagged with its member's name where another member's JSON looks the same."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return None
    some = [member for member in get_args(annotation) if member is not type(None)]
    if len(some) == 1:
        return _optional(converter, some[0])
    union = _Union(converter, annotation)
    return union.write, union.read


class _Union:
    def __init__(self, converter: cattrs.Converter, annotation: Any) -> None:
        members = get_args(annotation)
        labels = {name(member): member for member in members}
        if len(labels) < len(members):  # two classes of one name
            labels = {f"{member.__module__}.{name(member)}": member for member in members}
        self._converter = converter
        self._annotation = annotation
        self._labels = labels

    def write(self, value: object) -> Any:
        own_first = sorted(self._labels.items(), key=lambda pair: origin(pair[1]) is not type(value))
        for label, member in own_first:
            document = self._converter.unstructure(value, member)
            try:
                self._converter.structure(document, member)
            except Exception:  # noqa: S112 - another member may take it
                continue
            plain = self._guess(document) is member and not self._tagged(document)
            return document if plain else {"$type": label, "value": document}
        return Misfit(expected(self._annotation, value))

    def read(self, raw: Any) -> Any:
        if self._tagged(raw):
            return self._converter.structure(raw["value"], self._labels[raw["$type"]])
        member = self._guess(raw)
        if member is not None:
            return self._converter.structure(raw, member)
        if isinstance(raw, Misfit):
            raise refuse(self._annotation, raw)
        raise Mismatch(
            f"{short(raw)} fits none or several of {', '.join(self._labels)};"
            ' say which by {"$type": one of them, "value": ...}'
        )

    def _tagged(self, raw: Any) -> bool:
        return type(raw) is dict and raw.keys() == {"$type", "value"} and raw["$type"] in list(self._labels)

    def _guess(self, raw: Any) -> Any:
        # by the outermost level only: trying whole values would take 2^depth steps where unions are nested
        fits = [member for member in self._labels.values() if _fits(self._converter, member, raw)]
        exact = [member for member in fits if member is type(raw)]
        return (exact or fits)[0] if len(exact or fits) == 1 else None


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
    kind = origin(member)
    if kind is tuple or kind in _LISTS:
        return type(raw) is list
    if kind in _DICTS:
        return type(raw) is dict
    names = fields(kind)
    if names is None:
        return member is Any
    needed = {field for field, required in names.items() if required}
    return type(raw) is dict and needed <= raw.keys() <= names.keys()


def _each(converter: cattrs.Converter, items: Iterable[Any], item_types: Iterable[Any], names: Any = None) -> list[Any]:
    """The items read; an error tells the name (or the number) of its item."""
    converted = []
    for place, item, item_type in zip(names or itertools.count(), items, item_types, strict=False):
        try:
            converted.append(converter.structure(item, item_type))
        except Exception as error:
            error.add_note(IterableValidationNote("", place, item_type))
            raise
    return converted


def _json(document: Any) -> bytes:
    return orjson.dumps(document, default=str, option=orjson.OPT_SORT_KEYS)
