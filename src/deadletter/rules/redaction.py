"""Hidden payload values: what a view shows in their place, and how an edit gives them back.

A path names keys from the top (``customer.card.number``); ``*`` stands for any levels in between, none included, so
that ``*.password`` hides a ``password`` at every depth; a trailing ``*`` hides all that lies below. Lists are no level
of their own: ``items.card`` (or ``items[*].card``) hides it in each element. Case and ``-`` or ``_`` in names make no
difference.

Every walk is a loop over a stack: a payload's depth is the caller's.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from ..model.errors import InvalidTask
from ..model.record import Failure, TaskRecord
from .masking import MASK, Mask

DEFAULT_PATHS = ("*.password", "*.passwd", "*.secret", "*.token", "*.api_key", "*.authorization", "*.cookie")

_DEFAULTS = "$defaults"  # in a row's mark: the default paths, without writing them into every row

_LONGEST = 200  # characters of a path, and so of any name in it that can match
_KEY = 1_000  # characters of an idempotency key: a mask may be longer than what it hides
_UNREADABLE = "deadletter.Undecodable"  # our own word on a body that cannot be read; it quotes none of it
_INDEX = re.compile(r"\[(?:\*|\d+)?\]")

_Tail: TypeAlias = tuple[str, ...]  # what is left of a path
_Step: TypeAlias = Callable[["_Node", "str | int", Any], tuple[bool, Any]]


def path_mark(paths: Sequence[str], *, defaults: bool) -> str:
    """The paths as they are stored with a row."""
    return "\n".join((*((_DEFAULTS,) if defaults else ()), *paths))


@functools.lru_cache(maxsize=256)
def marked_paths(mark: str) -> tuple[str, ...]:
    """The paths that stand with a row."""
    paths: list[str] = []
    for line in mark.split("\n") if mark else ():
        paths.extend(DEFAULT_PATHS if line == _DEFAULTS else (line,))
    return tuple(paths)


def check_paths(paths: Iterable[object]) -> None:
    """Raise InvalidTask for what cannot be stored as the hidden paths of a row."""
    if isinstance(paths, str) or any(isinstance(path, str) and path.startswith("$") for path in paths):
        raise InvalidTask("redact", f'{paths!r} is no list of paths such as ("card_number", "*.email")')
    for path in paths:
        _parse(path)


def hidden_place() -> dict[str, bool]:
    """What stands in a view where a value is hidden."""
    return {"$redacted": True}


def is_hidden_place(value: object) -> bool:
    """Whether a value stands for a hidden one."""
    return isinstance(value, Mapping) and len(value) == 1 and value.get("$redacted") is True


class Redactor:
    """Hides what lies at some paths. Immutable; ``redactor()`` keeps one per tuple of paths.

    Raises InvalidTask for a path that is no path.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = tuple(paths)
        self._start = _closure(_parse(path) for path in self.paths)

    def payload(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace hidden values by ``{"$redacted": true}``: the payload itself where nothing is hidden, else a copy."""
        return self._hide(payload, [])

    def mask(self, *payloads: Mapping[str, Any]) -> Mask:
        """What masks these payloads' hidden values in texts."""
        found: list[Any] = []
        for payload in payloads:
            self._hide(payload, found)
        return Mask(found)

    def record(self, record: TaskRecord) -> TaskRecord:
        """Hide values in a record's payload, and wherever else in it they are repeated."""
        if not self._start:
            return record
        if not record.readable:
            return attrs.evolve(record, history=[_blank(failure) for failure in record.history])
        task = record.task
        found: list[Any] = []
        payload = self._hide(task.payload, found)
        for earlier in record.earlier:  # a failure of before an edit tells what the payload held then
            self._hide(earlier, found)
        if not found:
            return attrs.evolve(record, earlier=()) if record.earlier else record
        mask = Mask(found)
        key, origin = task.idempotency_key, task.origin
        hidden = attrs.evolve(
            task,
            payload=_without(payload, mask),
            idempotency_key=key and mask.text(key)[:_KEY],
            metadata={name: mask.text(text) for name, text in task.metadata.items()},
            # The raw message holds the same payload in a form that nobody here can read.
            origin=origin and attrs.evolve(origin, raw=None),
        )
        history = [_masked(failure, mask) for failure in record.history]
        return attrs.evolve(record, task=hidden, history=history, earlier=())

    def _hide(self, payload: Mapping[str, Any], found: list[Any]) -> Mapping[str, Any]:
        if not self._start:
            return payload

        def step(node: _Node, key: str | int, child: Any) -> tuple[bool, Any]:
            if is_hidden_place(child):
                return False, frozenset()  # hidden already, and nothing below it is a value
            hidden, tails = _below(node.state, key) if isinstance(key, int) else _advance(node.state, key[:_LONGEST])
            if not hidden:
                return False, tails
            found.append(child)
            return True, hidden_place()

        return _rewrite(payload, self._start, step)


def hiding(paths: Iterable[str]) -> Redactor:
    """The Redactor of paths that stand with a row.

    One that is no path came from another version, or a broken row: what it was meant to hide nobody knows, so that
    everything is hidden.
    """
    try:
        return redactor(tuple(dict.fromkeys(paths)))
    except InvalidTask:
        return redactor(("*",))


def _masked(failure: Failure, mask: Mask) -> Failure:
    return attrs.evolve(failure, message=mask.text(failure.message), traceback=mask.text(failure.traceback))


def _blank(failure: Failure) -> Failure:
    """Where the payload cannot be read nobody can tell what of a message is hidden."""
    if failure.error_type == _UNREADABLE:
        return failure
    return attrs.evolve(failure, message=MASK, traceback=MASK if failure.traceback else "")


def _without(payload: Mapping[str, Any], mask: Mask) -> Mapping[str, Any]:
    """A payload without what repeats a hidden value: an edit that gives it back keeps all of it."""

    def step(_: _Node, __: str | int, child: Any) -> tuple[bool, Any]:
        if isinstance(child, Mapping | list | tuple):
            return False, None
        return mask.touches(child), hidden_place()

    return _rewrite(payload, None, step)


@functools.lru_cache(maxsize=256)
def redactor(paths: tuple[str, ...]) -> Redactor:
    """The Redactor of these paths."""
    return Redactor(paths)


def merge_edit(stored: Mapping[str, Any], edited: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give an edited payload its hidden values back, each from the same place of the stored one.

    Both are checked JSON. Raises InvalidTask where the stored payload has nothing at such a place.
    """

    def step(node: _Node, key: str | int, child: Any) -> tuple[bool, Any]:
        known = _child(node.state, key)
        if is_hidden_place(child):
            if known is _NOTHING or is_hidden_place(known):  # the latter came by an import without its values
                raise InvalidTask("payload", f"{node.path(key)} keeps a hidden value, but none is stored there")
            return True, known
        return False, known

    if is_hidden_place(edited):
        raise InvalidTask("payload", "it is itself the place of a hidden value; give a JSON object")
    return _rewrite(edited, stored, step)


def refuse_redacted(payload: Mapping[str, Any]) -> None:
    """Raise InvalidTask where a checked JSON payload holds the place of a hidden value: it came from a view."""

    def step(node: _Node, key: str | int, child: Any) -> tuple[bool, Any]:
        if is_hidden_place(child):
            raise InvalidTask(
                "payload", f"{node.path(key)} is the place of a hidden value, not the value; give the real one"
            )
        return False, None

    if is_hidden_place(payload):
        raise InvalidTask("payload", "it is the place of a hidden value, not the value; give the real one")
    _rewrite(payload, None, step)


class _Node:
    """A container on the walk; copied once something in it changes."""

    __slots__ = ("copy", "key", "parent", "state", "value")

    def __init__(self, value: Any, state: Any, parent: _Node | None, key: str | int) -> None:
        self.value, self.state, self.parent, self.key = value, state, parent, key
        self.copy: Any = None

    def path(self, key: str | int) -> str:
        keys, node = [str(key)], self
        while node.parent is not None:
            keys.append(str(node.key))
            node = node.parent
        text = ".".join(reversed(keys))
        return text if len(text) <= 200 else text[:197] + "..."

    def put(self, key: str | int, value: Any) -> None:
        node: _Node | None = self
        while node is not None:
            known = node.copy is not None
            if not known:
                copy: Any = dict(node.value) if isinstance(node.value, Mapping) else list(node.value)
                node.copy = copy
            node.copy[key] = value
            if known:
                return
            key, value, node = node.key, node.copy, node.parent


def _rewrite(payload: Mapping[str, Any], state: Any, step: _Step) -> Mapping[str, Any]:
    """Walk a payload; ``step`` answers (True, what to put there) or (False, the state for what lies below)."""
    top = _Node(payload, state, None, "")
    waiting = [top]
    while waiting:
        node = waiting.pop()
        for key, child in _items(node.value):
            replaced, answer = step(node, key, child)
            if replaced:
                node.put(key, answer)
            elif isinstance(child, Mapping | list | tuple):
                waiting.append(_Node(child, answer, node, key))
    return payload if top.copy is None else top.copy


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else enumerate(value)


_NOTHING = object()


def _child(value: Any, key: str | int) -> Any:
    if isinstance(key, str):
        return value.get(key, _NOTHING) if isinstance(value, Mapping) else _NOTHING
    return value[key] if isinstance(value, list | tuple) and key < len(value) else _NOTHING


def _parse(path: object) -> _Tail:
    if not isinstance(path, str) or not 1 <= len(path) < _LONGEST or not path.isprintable():
        raise InvalidTask("redact", "each path is 1-199 printable characters, such as card_number or *.email")
    parts = tuple(_fold(part) for part in _INDEX.sub("", path).split("."))
    if "" in parts:
        raise InvalidTask("redact", f"{path!r} has an empty name in it; write names joined by single dots")
    return parts


def _fold(name: str) -> str:
    return name.casefold().replace("-", "_")


def _closure(tails: Iterable[_Tail]) -> frozenset[_Tail]:
    """With each ``*`` that something follows also the path without it: it may stand for no level."""
    found = set(tails)
    for tail in tuple(found):
        stars = next((at for at, name in enumerate(tail) if name != "*"), len(tail) - 1)
        found |= {tail[at:] for at in range(1, stars + 1)}
    return frozenset(found)


@functools.lru_cache(maxsize=4096)
def _advance(tails: frozenset[_Tail], key: str) -> tuple[bool, frozenset[_Tail]]:
    """One level down: whether the value is hidden, and what is left of the paths for what lies below it."""
    name = _fold(key)
    hidden = ("*",) in tails or (name,) in tails
    return hidden, _closure(tail if tail[0] == "*" else tail[1:] for tail in tails if _goes_on(tail, name))


def _goes_on(tail: _Tail, name: str) -> bool:
    return tail[0] == "*" or (tail[0] == name and len(tail) > 1)


def _below(tails: frozenset[_Tail], index: int) -> tuple[bool, frozenset[_Tail]]:
    """Into a list, which is no level; but a path may name one element by its index."""
    name = str(index)
    if ("*",) in tails or (name,) in tails:
        return True, frozenset()
    named = [tail[1:] for tail in tails if tail[0] == name]
    return False, tails | _closure(named) if named else tails
