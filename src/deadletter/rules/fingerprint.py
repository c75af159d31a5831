"""Exception → cause: letters with the same fingerprint are one group.

A cause is the task's type, the error's type, the place in the user's own code that raised it, and the message without
its values. Line numbers, numbers, ids, addresses and quoted values take no part.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable

from .error_text import plain, type_name
from .frames import Trace, trace
from .masking import Mask

_READ = 500  # characters of a message that are looked at
_KEPT = 160  # characters of a normalised message: values of any length before it shift no text across this border
_LEAVES = 20  # errors of an exception group

# Every alternative starts at a border and takes what it takes for good (possessive), so that one pass is linear.
# A quote opens only after a character that is no letter, or "can't" would be one; unclosed, it runs to the end.
_T = r"\w.:/\\@+%~-"
_VALUE = re.compile(
    rf"""
      (?<![\w\#])[bru]?'(?:[^'\\]|\\.|'(?=\w))*+(?:'|\\?$)
    | (?<![\w\#])[bru]?"(?:[^"\\]|\\.|"(?=\w))*+(?:"|\\?$)
    | `[^`]*+(?:`|$) | “[^”]*+(?:”|$) | ‘[^’]*+(?:’|$) | «[^»]*+(?:»|$)
    | (?<![{_T}]) (?:
          \w[\w+.-]{{0,19}}+://[^\s'"<>`]*+           # a URL, with its query
        | [a-fA-F]{{8,}}+(?![{_T}])                   # a hexadecimal id that happens to have no digit
        | [^\W\d][\w.+-]{{0,63}}+@[\w.-]++            # an email address
        | (?:~|\.{{1,2}}|[A-Za-z]:)?[/\\][{_T}]*+     # a path
        | (?:(?!\d)[{_T}])*+\d[{_T}]*+                # whatever has a digit: numbers, times, UUIDs, IPs, 0x7f…, ord-12
      )
    """,
    re.VERBOSE | re.DOTALL,
)
_LIST = re.compile(r"#(?:[\s,;]*+#)++")  # values in a row are one: [1, 2] and [1, 2, 3] are the same text


_DIGITS = bytes.maketrans(b"123456789", b"000000000")


def normalise(message: str) -> str:
    """Replace the values in a message by ``#``. Linear: it reads the first 500 characters and keeps at most 160."""
    # No digit survives, so which ones they are cannot matter: messages that differ in digits alone share a cache entry.
    return _normalise(message[:_READ].encode("utf-8", "backslashreplace").translate(_DIGITS))


@functools.lru_cache(maxsize=1024)
def _normalise(message: bytes) -> str:
    text = _VALUE.sub("#", " ".join(message.decode().split()))
    return _LIST.sub("#", text)[:_KEPT].rstrip()


def fingerprint(task_type: str, error: BaseException) -> str:
    """The cause of a failure: 16 hexadecimal digits."""
    return known_fingerprint(task_type, error, type_name(error), plain(error), trace(error.__traceback__))


def known_fingerprint(
    task_type: str, error: BaseException, error_type: str, message: str, frames: Trace, mask: Mask | None = None
) -> str:
    """As ``fingerprint``, for a caller that has read the exception already.

    What ``mask`` hides takes no part: a value must neither split a group nor be there for guesses to be tried on.
    """
    masked = mask.text if mask else str
    said = _leaves(error, masked) if isinstance(error, BaseExceptionGroup) else normalise(masked(message))
    return _digest(task_type, error_type, frames.place, said)


def text_fingerprint(task_type: str, error_type: str, message: str) -> str:
    """The cause of a failure that has no traceback: a lost worker, an expiry, a letter from another system."""
    return _digest(task_type, error_type, "", normalise(message))


def _leaves(group: BaseExceptionGroup[BaseException], masked: Callable[[str], str]) -> str:
    """The causes inside a group, which itself only says how many there are."""
    found: list[str] = []
    waiting: list[BaseException] = [group]
    for _ in range(5 * _LEAVES):  # groups in groups end, too
        if not waiting or len(found) == _LEAVES:
            break
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting += reversed(error.exceptions[:_LEAVES])
        else:
            found.append(f"{type_name(error)} {trace(error.__traceback__).place} {normalise(masked(plain(error)))}")
    return "\0".join(sorted(set(found)))


@functools.lru_cache(maxsize=1024)
def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()
