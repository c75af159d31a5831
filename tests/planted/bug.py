"""A planted bug: one line of the library that says something else, for as long as somebody looks whether it shows."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import attrs
import pytest

from deadletter.backends.redis import scripts
from deadletter.backends.sqlite import reads
from deadletter.model.row import Change, Row, Verdict
from deadletter.rules import changes, machine

Kind = Literal["fence", "op id", "guard", "effect", "order", "clock", "key TTL", "index"]
Plant = Callable[[pytest.MonkeyPatch], None]


@attrs.frozen
class Bug:
    """What is spoilt, how, and who has to notice.

    Attributes:
        name: what the library does wrong with it.
        kind: what was taken away.
        where: the language that it is planted in.
        noticed_by: the name of a search in ``notice.py``.
        rare: many seeds are needed, so that the test command leaves it to the long run.
    """

    name: str
    kind: Kind
    where: Literal["Python", "SQL", "Lua"]
    noticed_by: str
    plant: Plant
    rare: bool = False

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have it for a while."""
        with pytest.MonkeyPatch.context() as patch:
            self.plant(patch)
            yield
        scripts.load_script.cache_clear()


def fence(spoil: Callable[[Row, Change], tuple[Row, Change]]) -> Plant:
    """The machine's fence looks at something else."""
    real = machine.fence

    def spoilt(row: Row | None, change: Change, now_ms: int) -> Verdict | None:
        return real(*(spoil(row, change) if row is not None else (row, change)), now_ms)

    return lambda patch: patch.setattr(machine, "fence", spoilt)


def constructor(name: str, **fields: object) -> Plant:
    """A named change comes with other fields."""
    real = getattr(changes, name)

    def spoilt(*args: object, **options: object) -> Change:
        return attrs.evolve(real(*args, **options), **fields)

    return lambda patch: patch.setattr(changes, name, spoilt)


def line(owner: Any, name: str, text: str, instead: str) -> Plant:
    """One piece of a function's source is replaced in a copy; ``owner`` is the module or class that holds it."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        held = inspect.getattr_static(owner, name)
        function = inspect.unwrap(held.fget if isinstance(held, property) else held)
        source = _replaced(textwrap.dedent(inspect.getsource(function)), name, text, instead)
        made: dict[str, Any] = {}
        module = sys.modules[function.__module__]
        exec(f"from __future__ import annotations\n{source}", module.__dict__, made)
        patch.setattr(owner, name, made[name])

    return plant


def query(name: str, text: str, instead: str) -> Plant:
    """One piece of a named statement of SQLite is replaced."""
    return lambda patch: patch.setitem(reads.Q, name, _replaced(reads.Q[name], name, text, instead))


def lua(file: str, *pairs: tuple[str, str]) -> Plant:
    """Pieces of a Lua file are replaced where they stand first; every script that includes it is put together anew."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        read = scripts._read
        spoilt_file = read(file)
        for text, instead in pairs:
            assert text in spoilt_file, f"{file}.lua holds no {text!r}: plant the bug in what stands there now"
            spoilt_file = spoilt_file.replace(text, instead, 1)
        patch.setattr(scripts, "_read", lambda name: spoilt_file if name == file else read(name))
        scripts.load_script.cache_clear()

    return plant


def _replaced(source: str, name: str, text: str, instead: str) -> str:
    times = source.count(text)
    assert times == 1, f"{name} holds {text!r} {times} times: plant the bug in what stands there now"
    return source.replace(text, instead)
