"""Values ↔ JSON by their annotated type: cattrs, made strict.

cattrs coerces (``bool("False")`` is True, ``int(1.9)`` is 1); here a value of another type is an error that names its
path. Types come from annotations only: data can choose among the members of an annotated union, and never name a class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Final,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    get_args,
    get_origin,
)

import cattrs
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote

from ..model.errors import InvalidTask, UnserializablePayload
from .strict_json import check_json, child, short
from .typed_fields import classes
from .typed_leaf import Hooks, Mismatch, leaf, name, read_any, write_any
from .typed_parts import containers, mappings, unions


def dump(value: object, annotation: Any, path: str) -> Any:
    """A value as JSON of its annotated type.

    Args:
        value: what to store.
        annotation: its type; ``Any`` takes plain JSON values only.
        path: what the value is called in errors.

    Raises:
        UnserializablePayload: it is of another type, or has no form that comes back equal.
    """
    converter, annotation = _converter(), _bare(annotation)
    try:
        document = converter.unstructure(value, annotation)
        converter.structure(document, annotation)
    except Exception as error:  # also whatever the user's own classes raise
        where, problem = _first(error, path)
        raise UnserializablePayload(where, problem) from error
    check_json(document, path)
    return document


def load(document: Any, annotation: Any, path: str) -> Any:
    """The value again; raises InvalidTask that names the path of what does not fit the annotation."""
    try:
        return _converter().structure(document, _bare(annotation))
    except Exception as error:  # also whatever the user's own classes raise
        where, problem = _first(error, path)
        raise InvalidTask(where, problem) from error


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter()

    @functools.cache
    def hooks(annotation: Any) -> Hooks:
        return _hooks(converter, annotation)

    def always(_: Any) -> bool:
        return True

    def writer(annotation: Any) -> Callable[[Any], Any]:
        return hooks(annotation)[0]

    def reader(annotation: Any) -> Callable[[Any, Any], Any]:
        read = hooks(annotation)[1]
        return lambda raw, _: read(raw)

    converter.register_unstructure_hook_factory(always, writer)
    converter.register_structure_hook_factory(always, reader)
    # cattrs looks these up by class and base classes before anything else, and would take an enum of str for a str
    for kind in (str, bytes, int, float, Path):
        converter.register_structure_hook(kind, lambda raw, annotation: hooks(annotation)[1](raw))
    for kind in (str, bytes, Path):
        converter.register_unstructure_hook(kind, hooks(kind)[0])
    return converter


def _hooks(converter: cattrs.Converter, annotation: Any) -> Hooks:
    bare = _bare(annotation)
    if bare is Any:
        return write_any, read_any
    found = leaf(bare)
    if found is not None:
        return found
    for make in (containers, mappings, unions, classes):
        found = make(converter, bare)
        if found is not None:
            return found
    return _unsupported(bare)


def _bare(annotation: Any) -> Any:
    """The type itself, without NewType, Annotated, Final and the like; Any where there is none to check by."""
    while True:
        if isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif get_origin(annotation) in (Annotated, Final, Required, NotRequired):
            annotation = get_args(annotation)[0]
        elif type(annotation).__name__ == "TypeAliasType":  # of Python 3.12
            annotation = annotation.__value__
        else:
            break
    if annotation in (object, Final) or isinstance(annotation, TypeVar):
        return Any
    return annotation


def _unsupported(annotation: Any) -> Hooks:
    problem = (
        f"a {name(annotation)} cannot be stored; annotate an attrs class, a dataclass, an enum or a type of the"
        " standard library that holds a value, or pass an id instead"
    )

    def read(_: Any) -> Any:
        raise Mismatch(problem)

    return lambda _: None, read


def _first(error: BaseException, path: str) -> tuple[str, str]:
    """The path of the first value that is wrong, and what is wrong with it."""
    whole = path
    while True:
        for note in reversed(getattr(error, "__notes__", ())):  # the innermost was added first
            if isinstance(note, AttributeValidationNote):
                path = child(path, note.name)
            elif isinstance(note, IterableValidationNote):
                path += f"[{note.index!r}]"
        if not isinstance(error, BaseExceptionGroup):
            break
        error = error.exceptions[0]
    if isinstance(error, RecursionError):
        return whole, "nested too deep, or it holds itself; flatten it"
    return path, _problem(error)


def _problem(error: BaseException) -> str:
    if isinstance(error, Mismatch):
        return str(error)
    if isinstance(error, ForbiddenExtraKeysError):
        return f"has no field {', '.join(sorted(map(short, error.extra_fields)))}; leave it out"
    if isinstance(error, KeyError):
        return f"the field {error} is missing; give it"
    return f"{type(error).__name__}: {error}"
