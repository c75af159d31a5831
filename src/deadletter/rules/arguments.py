"""A call's arguments ↔ a payload, by the function's annotations."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Self, Unpack, get_args, get_origin, get_type_hints

import attrs

from ..model.errors import InvalidTask, UnserializablePayload
from .codec import JsonCodec

_REPR_LENGTH = 200
_REPR_COUNT = 50
_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_RESULT = "result"


class CallSignature:
    """What a function takes and returns, and how both are stored.

    A payload maps parameter names to values: ``*args`` is a list under its name, ``**kwargs`` an object under its own.
    Parameters without an annotation take plain JSON values only. Annotations are resolved at the first use, when the names
    that they mention exist.
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
        from .typed_json import dump  # noqa: PLC0415 - cattrs takes 50 ms to import

        arguments = self._bind(args, kwargs)
        return {name: dump(value, self._types[name], name) for name, value in arguments.items()}

    def load(self, payload: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments again, each of its annotated type; raises InvalidTask that names the argument's path."""
        from .typed_json import load  # noqa: PLC0415 - as above

        parameters = self._signature.parameters
        for name in payload:
            if name not in parameters:
                raise InvalidTask(f"payload.{name}", f"{self._func.__qualname__}() takes no such argument; leave it out")
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        skipped = ""  # the first positional parameter that was left to its default
        for name, parameter in parameters.items():
            if name not in payload:
                if parameter.default is parameter.empty and parameter.kind not in _STARRED:
                    raise InvalidTask(f"payload.{name}", f"{self._func.__qualname__}() needs this argument; give it")
                skipped = skipped or name
                continue
            value = load(payload[name], self._types[name], f"payload.{name}")
            _place(parameter, value, args, kwargs, skipped)
        return tuple(args), kwargs

    def dump_result(self, value: object) -> bytes:
        """A returned value by the return annotation; raises UnserializablePayload."""
        from .typed_json import dump  # noqa: PLC0415 - as above

        return JsonCodec().encode({_RESULT: dump(value, self._types["return"], _RESULT)})

    def load_result(self, body: bytes) -> Any:
        """The returned value again; raises InvalidTask, or Undecodable for bytes that are no stored result."""
        from .typed_json import load  # noqa: PLC0415 - as above

        return load(JsonCodec().decode(body).get(_RESULT), self._types["return"], _RESULT)

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise UnserializablePayload("arguments", f"{error}; call it as {self._func.__qualname__}{self._signature}") from None

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
                annotation = annotation | None
            found[name] = annotation
        return found
