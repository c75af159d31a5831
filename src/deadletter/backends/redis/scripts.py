"""The Lua files: read once, put together from what they include, named by their hash."""

from __future__ import annotations

import functools
import hashlib
import re
from importlib.resources import files

import attrs

NAMES = ("insert", "claim", "apply", "sweep", "load", "scan", "groups", "counts")
_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)


@attrs.frozen
class Script:
    """One script as a server takes it.

    Attributes:
        name: the file's.
        text: what EVAL sends.
        sha: what EVALSHA calls it by.
    """

    name: str
    text: str
    sha: str

    @property
    def plain(self) -> Script:
        """Without the ``#!lua`` line and its flags: for stand-ins of Redis that do not know it."""
        return _script(self.name, self.text.partition("\n")[2])


def _script(name: str, text: str) -> Script:
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@functools.cache
def load_script(name: str) -> Script:
    """Read ``lua/<name>.lua``: its ``#!lua`` line, the files that it includes, its body."""
    shebang, _, body = _read(name).partition("\n")
    included = _INCLUDE.search(body)
    parts = [_read(part) for part in included[1].split()] if included else []
    return _script(name, "\n".join([shebang, *parts, body]))


def load_scripts() -> None:
    """Read them all now: who imports while another thread forks leaves the child an import that never ends."""
    for name in NAMES:
        load_script(name)


def _read(name: str) -> str:
    return files(__package__ or "").joinpath("lua", f"{name}.lua").read_text("utf-8")
