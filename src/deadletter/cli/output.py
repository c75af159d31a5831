"""What commands print: JSON lines, tables and plain text; nothing in it can steer a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

_NOT_ASCII = re.compile("[^ -~]")
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def on_terminal() -> bool:
    """Whether stdout is a terminal that can show more than plain text."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def styled() -> bool:
    """Whether what is shown on a terminal may have bold text and colours (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")


def harmless(text: str, *, lines: bool = False) -> str:
    """The text with everything that is not printable spelled out as an escape; ``lines`` keeps line ends and tabs."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or (lines and char in "\n\t") else _spelled(char) for char in text)


def _spelled(char: str) -> str:
    code = ord(char)
    if char in _NAMED:
        return _NAMED[char]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def emit(document: Mapping[str, Any]) -> None:
    """One JSON object on a line of stdout."""
    text = orjson.dumps(document, option=orjson.OPT_UTC_Z).decode()
    print(text if text.isprintable() else _NOT_ASCII.sub(_escaped, text))


def _escaped(found: re.Match[str]) -> str:
    """Spell what JSON leaves as it is and a terminal does not: C1 and DEL, bidi marks, what is invisible."""
    char = found[0]
    if char.isprintable():
        return char
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def say(text: str) -> None:
    """One line on stderr: progress and remarks, never an answer."""
    print(text, file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal, else tab-separated lines without a head. The first column is never cut."""
    shown = [[harmless(cell) for cell in row] for row in rows]
    if not on_terminal():
        for row in shown:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, header_style="bold" if styled() else "", pad_edge=False)
    for at, column in enumerate(columns):
        drawn.add_column(column, no_wrap=at == 0, overflow="fold", justify="right" if column in _NUMBERS else "left")
    for row in shown:
        drawn.add_row(*map(Text, row))
    Console(highlight=False, color_system="auto" if styled() else None).print(drawn)


_NUMBERS = {"COUNT", "TRIES"}


def pairs(labelled: Iterable[tuple[str, str]]) -> None:
    """Labels and their values, one a line; further lines of a value are indented."""
    shown = [(label, harmless(value, lines=True)) for label, value in labelled]
    width = max((len(label) for label, _ in shown), default=0) + 2
    bold, plain = ("\x1b[1m", "\x1b[0m") if on_terminal() and styled() else ("", "")
    for label, value in shown:
        first, *rest = value.split("\n")
        print(f"{bold}{label}{plain}{' ' * (width - len(label))}{first}".rstrip())
        for line in rest:
            print(f"{' ' * width}{line}".rstrip())


def when(at: datetime | None) -> str:
    """A time as a list shows it: how long ago on a terminal, else in full."""
    if at is None:
        return ""
    if not on_terminal():
        return moment(at)
    past = (datetime.now(UTC) - at).total_seconds()
    return f"{span(past)} ago" if past >= 0 else f"in {span(-past)}"


def moment(at: datetime | None) -> str:
    """A time in full, to the second."""
    return "" if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def span(seconds: float) -> str:
    """A length of time in its largest unit, rounded down."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"
