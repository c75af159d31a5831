"""What an exception says of itself, as text that any store takes."""

from __future__ import annotations

MESSAGE_LIMIT = 2_000
CUT = r"\n\[\.\.\. \d+ characters or more left out \.\.\.\]\n"  # what cut() leaves, as a pattern
_NAME_LIMIT = 300


def storable(text: str) -> str:
    """Escape what stores refuse: lone surrogates (no Unicode text) and NUL (PostgreSQL)."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00") if "\0" in text else text


def cut(text: str, limit: int) -> str:
    """Keep both ends of a text that is longer than ``limit`` characters, and say how much went."""
    if len(text) <= limit:
        return text
    mark = f"\n[... {len(text) - limit} characters or more left out ...]\n"
    kept = limit - len(mark)
    head = kept - kept // 2
    return text[:head] + mark + text[len(text) - kept // 2 :]


def plain(value: object, limit: int = MESSAGE_LIMIT) -> str:
    """The ``str()`` of anything: storable, at most ``limit`` characters, whatever its ``__str__`` does."""
    try:
        # A subclass of str could override what is called on it below.
        text = str.__str__(str(value))
    except BaseException:  # as Python's own traceback module does
        return "<exception str() failed>"
    # Cut before escaping, so that 10 MB cost nothing, and again since escapes are longer.
    return cut(storable(cut(text, limit)), limit)


def type_name(error: BaseException) -> str:
    """The full name of an exception's class: ``httpx.ConnectError``, ``__main__.Boom``; a builtin's stands alone."""
    try:
        module, name = type(error).__module__, type(error).__qualname__
    except Exception:  # a metaclass may compute them
        return "<nameless exception>"
    # A class body may assign anything to __module__, and a metaclass to both.
    full = f"{name}" if module == "builtins" or not isinstance(module, str) else f"{module}.{name}"
    return full if full.isascii() and len(full) <= _NAME_LIMIT and full.isprintable() else plain(full, _NAME_LIMIT)
