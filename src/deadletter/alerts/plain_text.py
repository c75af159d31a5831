"""Text that comes from tasks and errors, made fit for a header, a line, or a block. Pure, linear in what is kept."""

from __future__ import annotations

import unicodedata


def clean(text: str, most: int) -> str:
    """One line of at most ``most`` characters: no line break of any kind, control, bidi mark or lone surrogate."""
    shown = "".join(_shown(char) for char in text[: 4 * most])
    line = " ".join(shown.split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1].rstrip() + "…"


def block(text: str, most: int) -> str:
    """Several lines, with nothing else that is not printable."""
    kept = text if len(text) <= most else text[: most - 1] + "…"
    lines = kept.replace("\r\n", "\n").split("\n")
    return "\n".join("".join(_shown(char) for char in line).rstrip() for line in lines)


def count(n: int, noun: str) -> str:
    """``1 task``, ``10,000 tasks``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    category = unicodedata.category(char)
    if category == "Cs":
        return "\ufffd"
    return " " if char.isspace() or category in ("Zl", "Zp", "Cc") else ""
