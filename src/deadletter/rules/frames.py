"""Rendered tracebacks, once per place and not once per failure.

``traceback.format_exception`` takes about 90 µs, and in a storm nearly every failure comes through the same frames. The
cache keys on (code object, instruction, line) of every frame. It holds code objects, so that their ids stay theirs, and
never frames, which would keep the user's local variables alive.
"""

from __future__ import annotations

import itertools
import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, TracebackType

import attrs

from .error_text import cut, storable

TEXT_LIMIT = 16_000
_CACHED = 512  # traces
_CACHED_DEPTH = 200  # frames; deeper ones are recursion, whose depth varies
_SHOWN = 3  # of equal frames in a row, as Python does

_OWN = str(Path(__file__).absolute().parent.parent) + os.sep
_LIBRARY = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_FOREIGN = re.compile(r"[\\/](?:site|dist)-packages[\\/]|^<(?:frozen |attrs generated |string>)")
_INLINED = re.compile(r"\.<locals>\.<(?:list|dict|set)comp>")  # no frame of their own since Python 3.12


@attrs.frozen
class Trace:
    """The frames of one traceback.

    Attributes:
        text: as Python prints them, without frames of this package where others are left.
        place: module and function that raised, in the user's own code where there is any; no line numbers.
        codes: kept alive, since their ids are the cache's key.
    """

    text: str
    place: str
    codes: tuple[CodeType, ...]


_NOTHING = Trace("", "", ())
_cache: dict[tuple[int, ...], Trace] = {}


def trace(tb: TracebackType | None) -> Trace:
    """Render the frames of ``tb``, or answer with the text of an equal traceback. Takes ~1 µs for a known one."""
    if tb is None:
        return _NOTHING
    parts: list[int] = []
    link: TracebackType | None = tb
    while link is not None:
        parts += (id(link.tb_frame.f_code), link.tb_lasti, link.tb_lineno)
        link = link.tb_next
    key = tuple(parts)
    known = _cache.get(key)
    if known is None:
        known = _render(tb)
        if len(key) <= 3 * _CACHED_DEPTH:
            # No lock: each step on a dict is atomic, and a lost entry is only rendered again.
            if len(_cache) >= _CACHED:
                _cache.clear()
            _cache[key] = known
    return known


def _render(tb: TracebackType) -> Trace:
    links = list(_links(tb))
    shown = [link for link in links if not _code(link).co_filename.startswith(_OWN)] or links
    texts: dict[tuple[int, int, int], str] = {}
    parts: list[str] = []
    for _, run in itertools.groupby(shown, lambda link: (id(_code(link)), link.tb_lineno)):
        equal = list(run)
        for link in equal[:_SHOWN]:
            key = (id(_code(link)), link.tb_lasti, link.tb_lineno)
            if key not in texts:
                texts[key] = _frame_text(link)
            parts.append(texts[key])
        more = len(equal) - _SHOWN
        if more > 0:
            parts.append(f"  [Previous line repeated {more} more time{'s' if more > 1 else ''}]\n")
    codes = tuple(_code(link) for link in links)
    return Trace(cut(storable("".join(parts)), TEXT_LIMIT), storable(_place(codes)), codes)


def _links(tb: TracebackType) -> Iterator[TracebackType]:
    link: TracebackType | None = tb
    while link is not None:
        yield link
        link = link.tb_next


def _code(link: TracebackType) -> CodeType:
    return link.tb_frame.f_code


def _frame_text(link: TracebackType) -> str:
    try:
        return "".join(traceback.TracebackException(Exception, Exception(), link, limit=1).stack.format())
    except Exception:  # source lines come from the module's own loader
        return f'  File "{_code(link).co_filename}", line {link.tb_lineno}, in {_code(link).co_name}\n'


def _place(codes: tuple[CodeType, ...]) -> str:
    code = next((code for code in reversed(codes) if _is_users(code.co_filename)), codes[-1])
    # The file's name and not its path or module: a deploy moves directories, and a script is __main__ where it runs.
    path = Path(code.co_filename)
    stem = f"{path.parent.name}.{path.stem}" if path.stem in ("__init__", "__main__") else path.stem
    return f"{stem}:{_INLINED.sub('', code.co_qualname)}"


def _is_users(filename: str) -> bool:
    return not (filename.startswith((_OWN, *_LIBRARY)) or _FOREIGN.search(filename))
