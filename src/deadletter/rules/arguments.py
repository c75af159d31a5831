"""A call's arguments ↔ a payload, by the function's annotations."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Optional, ParamSpecArgs, ParamSpecKwargs, Self, Unpack, get_args, get_origin, get_type_hints

import attrs

from ..model.errors import InvalidTask, UnserializablePayload
from .codec import JsonCodec

_REPR_LENGTH = 200
_REPR_COUNT = 50
_PLAIN_COUNT = 2_000
_PLAIN_DEPTH = 8
_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_RESULT = "result"


class CallSignature:
    """What a function takes and returns, and how both are stored.

    A payload maps parameter names to values: ``*args`` is a list under its name, ``**kwargs`` an object under its own.
    Parameters without an annotation take plain JSON values only. Annotations are resolved at the first use, when the
    names that they mention exist.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func = func
        self._signature = inspect.signature(func)

    @classmethod
    def of(cls, func: Callable[..., Any]) -> Self:
        """The signature of a function (undecorated, unbound)."""
        return cls(func)

    def dump(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """A call's arguments as a payload; raises UnserializablePayload that names the argument's path."""
        from .typed_json import dump

        arguments = self._bind(args, kwargs)
        return {name: dump(value, self._types[name], name) for name, value in arguments.items()}

    def load(self, payload: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments again, each of its annotated type; raises InvalidTask that names the argument's path."""
        from .typed_json import load

        parameters = self._signature.parameters
        for name in payload:
            if name not in parameters:
                raise InvalidTask(
                    f"payload.{name}", f"{self._func.__qualname__}() takes no such argument; leave it out"
                )
        bound = inspect.BoundArguments(self._signature, OrderedDict())
        for name, parameter in parameters.items():
            if name in payload:
                bound.arguments[name] = load(payload[name], self._types[name], f"payload.{name}")
            elif parameter.default is parameter.empty and parameter.kind not in _STARRED:
                raise InvalidTask(f"payload.{name}", f"{self._func.__qualname__}() needs this argument; give it")
        bound.apply_defaults()  # what follows a gap could not be passed by position
        self._refuse_twice(bound)
        return bound.args, bound.kwargs

    def dump_result(self, value: object) -> bytes:
        """A returned value by the return annotation; raises UnserializablePayload."""
        from .typed_json import dump

        return JsonCodec().encode({_RESULT: dump(value, self._types["return"], _RESULT)})

    def load_result(self, body: bytes) -> Any:
        """The returned value again; raises InvalidTask, or Undecodable for bytes that are no stored result."""
        from .typed_json import load

        return load(JsonCodec().decode(body).get(_RESULT), self._types["return"], _RESULT)

    def _refuse_twice(self, bound: inspect.BoundArguments) -> None:
        """Refuse what ``**kwargs`` names though a parameter of its own does, which no call could pass."""
        for rest, parameter in self._signature.parameters.items():
            more = bound.arguments[rest] if parameter.kind is inspect.Parameter.VAR_KEYWORD else ()
            for name in more:
                known = self._signature.parameters.get(name)
                if known is not None and known.kind in _BY_NAME:
                    raise InvalidTask(
                        f"payload.{rest}[{name!r}]", f"is an argument of its own; give it as payload.{name}"
                    )

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            call = f"{self._func.__qualname__}{self._signature}"
            raise UnserializablePayload("arguments", f"{error}; call it as {call}") from None

    @functools.cached_property
    def _types(self) -> dict[str, Any]:
        annotations = _resolved(self._func)
        found: dict[str, Any] = {"return": annotations.get("return", Any)}
        for position, (name, parameter) in enumerate(self._signature.parameters.items()):
            annotation = annotations.get(name, Any)
            if name not in annotations and name == "self" and position == 0:
                annotation = _owner(self._func)
            if parameter.kind in _STARRED:
                annotation = _starred(annotation, parameter)
            elif parameter.default is None:
                annotation = Optional[annotation]  # noqa: UP045 - | takes no text
            found[name] = annotation
        return found


def repr_arguments(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments for people to read, where they cannot be stored.

    At most 50 arguments and 200 characters of each ``repr``, by parameter name where the call fits the signature. Never
    raises.
    """
    arguments = _named(func, args, kwargs)
    return {name: _repr(value) for name, value in itertools.islice(arguments.items(), _REPR_COUNT)}


def plain_arguments(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments as a payload would hold them, for what is hidden in them to be found; never raises.

    Attributes of objects become fields. At most 2,000 values, 8 levels deep; what is no JSON value becomes its text.
    """
    room = [_PLAIN_COUNT]
    return {str(name): _plain(value, _PLAIN_DEPTH, room) for name, value in _named(func, args, kwargs).items()}


def _named(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return inspect.signature(func).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {**{f"argument {number}": value for number, value in enumerate(args, 1)}, **kwargs}


def _plain(value: Any, depth: int, room: list[int]) -> Any:
    room[0] -= 1
    if value is None or isinstance(value, bool | int | float):
        return value
    try:
        if isinstance(value, bytes | bytearray):
            return bytes(value).decode("utf-8", "backslashreplace")
        fields = None if isinstance(value, str) or depth == 0 or room[0] < 0 else _fields(value)
        if isinstance(fields, Mapping):
            return {str(name): _plain(inner, depth - 1, room) for name, inner in fields.items() if room[0] > 0}
        if fields is not None:
            return [_plain(inner, depth - 1, room) for inner in fields if room[0] > 0]
        return str(value).encode(errors="backslashreplace").decode()
    except Exception:  # the user's classes may do anything
        return None


def _fields(value: Any) -> Mapping[Any, Any] | Iterable[Any] | None:
    """What is inside a container or an object; None where it is a plain value."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        names = getattr(type(value), "_fields", None)
        return value if names is None else dict(zip(names, value, strict=True))
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if name[:2] != "__"]
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})
    return found or None


def _repr(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # the user's __repr__ may raise anything
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    text = text if len(text) <= _REPR_LENGTH else text[: _REPR_LENGTH - 3] + "..."
    return text.encode(errors="backslashreplace").decode()


def _resolved(func: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, evaluated one by one: a name that exists for type checkers only costs no other its type."""
    closure = inspect.getclosurevars(func).nonlocals if inspect.isfunction(func) else {}
    module = getattr(func, "__globals__", {})
    resolved: dict[str, Any] = {}
    for name, annotation in getattr(func, "__annotations__", {}).items():
        holder = SimpleNamespace(__annotations__={name: annotation})
        try:
            resolved.update(get_type_hints(holder, module, dict(closure), include_extras=True))
        except Exception:  # NameError, and whatever else evaluating text may raise
            resolved[name] = Any
    return resolved


def _starred(annotation: Any, parameter: inspect.Parameter) -> Any:
    if get_origin(annotation) is Unpack:  # *args: *tuple[...], **kwargs: Unpack[TypedDict]
        return get_args(annotation)[0]
    if isinstance(annotation, ParamSpecArgs | ParamSpecKwargs):
        annotation = Any
    return list[annotation] if parameter.kind is parameter.VAR_POSITIONAL else dict[str, annotation]


def _owner(func: Callable[..., Any]) -> Any:
    """The class that a method was defined in, where it can be stored as ``self``; else Any, which refuses it."""
    owner: Any = sys.modules.get(func.__module__)
    for part in func.__qualname__.split(".")[:-1]:
        owner = getattr(owner, part, None)
    is_class = isinstance(owner, type) and (attrs.has(owner) or dataclasses.is_dataclass(owner))
    return owner if is_class else Any
