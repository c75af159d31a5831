"""Hidden values in text: found in every form that an error may show them in, and masked.

A value is masked whole, and so is any part of it of at least 16 characters, or of four where the text was cut right
there. Case makes no difference. What cannot be masked without masking half of every text is left: values of one or two
characters; those of three are masked where they stand alone as a word.
"""

from __future__ import annotations

import ast
import functools
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote, quote_plus

from .error_text import CUT, storable

MASK = "[redacted]"

_WHOLE = 4  # characters from which a value is masked wherever it stands
_WORD = 3  # characters of a value that is masked as a word of its own
_PART = 16  # characters from which a part of a value is masked
_SEED = 8  # any part of _PART characters holds one that starts at a multiple of this
_SEEDS = 4  # places of one seed that are looked at: a text that repeats itself has thousands
_FEW = 64  # so many are looked for one by one; more are first narrowed by what the text holds
_NODES = 100  # of an object or list that is masked as a whole, too
_EDGES = 20  # cuts of a text that are looked at

_CUT = re.compile(rf"{CUT}|\.\.\.|…")
_GAPS = re.compile(r"[\s-]")
_QUOTED = re.compile(r"""(['"]).*""", re.DOTALL)

_Span: TypeAlias = tuple[int, int]


class Mask:
    """Masks some values in texts. Immutable, and made once per record: its cost is that of the values' own length."""

    def __init__(self, hidden: Sequence[Any]) -> None:
        forms = {_lower(form) for form in _forms(hidden)}
        self._forms = sorted(form for form in forms if len(form) >= _WHOLE)
        self._words = [
            re.compile(rf"(?<![\w.])(?<!line ){re.escape(form)}(?!\w|\.\w)")
            for form in forms
            if len(form) == _WORD and form.isalnum()
        ]

    def __bool__(self) -> bool:
        return bool(self._forms or self._words)

    def text(self, text: str) -> str:
        """The text with ``[redacted]`` in place of what it holds of the values."""
        spans = sorted(self._spans(text)) if self and text else []
        parts: list[str] = []
        at = 0
        for start, end in spans:
            if start > at or not parts:
                parts += (text[at:start], MASK)
            at = max(at, end)
        return "".join((*parts, text[at:])) if parts else text

    def touches(self, value: object) -> bool:
        """Whether a JSON scalar shows something of the values."""
        if value is None or isinstance(value, bool) or not self:
            return False
        return any(self._spans(value if isinstance(value, str) else json.dumps(value)))

    def _spans(self, text: str) -> Iterator[_Span]:
        folded = _lower(text)
        for form in self._found(folded, self._by_head, _WHOLE):
            for whole in self._by_head[form]:
                for at in _places(folded, whole):
                    yield at, at + len(whole)
        for word in self._words:
            for found in word.finditer(folded):
                yield found.span()
        yield from self._parts(folded)
        if len(self._forms) <= _FEW * 8:
            for edge in list(_CUT.finditer(folded))[:_EDGES]:
                yield from self._at_cut(folded, edge)

    @functools.cached_property
    def _by_head(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for form in self._forms:
            found.setdefault(form[:_WHOLE], []).append(form)
        return found

    @functools.cached_property
    def _by_seed(self) -> dict[str, list[tuple[str, int]]]:
        found: dict[str, list[tuple[str, int]]] = {}
        for form in self._forms:
            if len(form) > _PART:
                for at in range(0, len(form) - _SEED + 1, _SEED):
                    places = found.setdefault(form[at : at + _SEED], [])
                    if len(places) < _SEEDS:
                        places.append((form, at))
        return found

    @staticmethod
    def _found(text: str, wanted: Mapping[str, object], size: int) -> Iterable[str]:
        if len(wanted) <= _FEW:
            return [piece for piece in wanted if piece in text]
        return wanted.keys() & {text[at : at + size] for at in range(len(text) - size + 1)}

    def _parts(self, text: str) -> Iterator[_Span]:
        covered = bytearray(len(text))
        for seed in self._found(text, self._by_seed, _SEED):
            for at in _places(text, seed):
                if covered[at] and covered[at + _SEED - 1]:
                    continue
                for form, place in self._by_seed[seed]:
                    start, end = _common(text, at, form, place)
                    if end - start >= _PART:
                        covered[start:end] = b"\1" * (end - start)
                        yield start, end

    def _at_cut(self, text: str, cut: re.Match[str]) -> Iterator[_Span]:
        """The start of a value right before a cut, and its end right after."""
        start, end = cut.span()
        while start and text[start - 1] in "'\"":
            start -= 1
        for form in self._forms:
            at = text.find(form[:_WHOLE], max(0, start - len(form)), start)
            while at >= 0:
                if form.startswith(text[at:start]):
                    yield at, start
                    break
                at = text.find(form[:_WHOLE], at + 1, start)
            at = text.find(form[-_WHOLE:], end, end + len(form))
            while at >= 0:
                if form.endswith(text[end : at + _WHOLE]):
                    yield end, at + _WHOLE
                    break
                at = text.find(form[-_WHOLE:], at + 1, end + len(form))


def may_touch_mask(text: str) -> bool:
    """Whether a text may be found across a mask: then a store, which holds the value, cannot tell what is shown."""
    folded = text.casefold()
    return "[" in folded or "]" in folded or folded in MASK


def _lower(text: str) -> str:
    """Lower case, character by character: no place in it moves."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


def _places(text: str, piece: str) -> Iterator[int]:
    at = text.find(piece)
    while at >= 0:
        yield at
        at = text.find(piece, at + 1)


def _common(text: str, at: int, form: str, place: int) -> _Span:
    """The longest run around a seed that text and form share."""
    start, end = at, at + _SEED
    left, right = place, place + _SEED
    while start and left and text[start - 1] == form[left - 1]:
        start, left = start - 1, left - 1
    while end < len(text) and right < len(form) and text[end] == form[right]:
        end, right = end + 1, right + 1
    return start, end


def _forms(hidden: Sequence[Any]) -> Iterator[str]:
    for value in _values(hidden):
        if isinstance(value, str):
            yield from _spellings(value)
        elif isinstance(value, Mapping | list | tuple):
            yield repr(value)
            yield json.dumps(value)
            yield json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        else:
            yield from (json.dumps(value), repr(value), f"{value:,}")
            if isinstance(value, float) and value.is_integer():
                yield str(int(value))


def _spellings(text: str) -> Iterator[str]:
    """As it is, and as code, JSON, URLs and HTML write it, also twice over; joined, and line by line."""
    yield text
    yield storable(text)
    quoted, escaped = repr(text)[1:-1], json.dumps(text)[1:-1]
    yield from (quoted, repr(quoted)[1:-1], text.replace("'", "\\'"), text.replace('"', '\\"'))
    yield from (escaped, json.dumps(escaped)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    raw = text.encode(errors="backslashreplace")
    yield from (repr(raw)[2:-1], quote(raw, safe=""), quote(raw), quote_plus(raw), html.escape(text))
    if any(char.isspace() or char == "-" for char in text):
        yield from (text.strip(), " ".join(text.split()))
        joined = _GAPS.sub("", text)
        if joined.isalnum() and joined.isascii() and len(joined) >= _SEED:
            yield joined  # a card number, an IBAN
        yield from (line.strip() for line in text.splitlines())
    if _QUOTED.fullmatch(text):  # the repr of an argument that could not be stored
        yield text[1:].rstrip(".").removesuffix(text[0])
        try:
            said = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return
        yield str(said)


def _values(hidden: Sequence[Any]) -> Iterator[Any]:
    """What is hidden: scalars, and objects and lists small enough to stand in a message."""
    waiting = list(hidden)
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping | list | tuple):
            waiting += _children(value)
            if value and _is_small(value):
                yield value
        elif value is not None and not isinstance(value, bool):
            yield value


def _is_small(value: Any) -> bool:
    level, count = [value], 0
    for _ in range(_NODES // 5):
        level = [child for node in level if isinstance(node, Mapping | list | tuple) for child in _children(node)]
        count += len(level)
        if not level or count > _NODES:
            break
    return not level and count <= _NODES


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value
