"""The mutator itself: off it changes nothing, on it changes one thing, and a mutant keeps its name."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from .rooms import ROOMS, ROOT
from .schema import SWITCH, schema_of

SOURCE = '''
"""A module."""

LIMIT = 3


class Box:
    """A box."""

    size = 0

    def fill(self, n: int, *, most: int = 5) -> int | None:
        """Fill it."""
        if n > most:
            raise ValueError(f"{n} is more than {most}")
        self.size += n
        seen = []
        while self.size and not seen:
            seen.append(min(n, LIMIT))
        return self.size if n != 2 else None
'''


class On:
    """Stands for the switch."""

    def __init__(self) -> None:
        self.number = -1

    def __call__(self, number: int) -> bool:
        return number == self.number


def made(tmp_path: Path, source: str = SOURCE) -> tuple[SimpleNamespace, On, list[Any]]:
    path = tmp_path / "module.py"
    path.write_text(source)
    tree, mutants = schema_of(path, "module.py", 0)
    on = On()
    space: dict[str, Any] = {SWITCH: on}
    exec(compile(tree, str(path), "exec"), space)
    return SimpleNamespace(**space), on, mutants


def outcome(module: SimpleNamespace, n: int) -> object:
    box = module.Box()
    try:
        return box.fill(n), box.size
    except ValueError as error:
        return str(error)


def test_with_no_mutant_on_nothing_changes(tmp_path: Path) -> None:
    module, _, _ = made(tmp_path)
    assert [outcome(module, n) for n in (1, 2, 6)] == [(1, 1), (None, 2), "6 is more than 5"]


def test_each_mutant_is_what_it_says(tmp_path: Path) -> None:
    module, on, mutants = made(tmp_path)
    told = {(mutant.was, mutant.becomes): mutant for mutant in mutants if mutant.late}

    on.number = told["n > most", "n >= most"].number
    assert outcome(module, 5) == "5 is more than 5"
    on.number = told["n != 2", "n == 2"].number
    assert outcome(module, 1) == (None, 1)
    on.number = told["self.size += n", "self.size -= n"].number
    assert outcome(module, 1) == (-1, -1)
    raised = next(mutant for (was, _), mutant in told.items() if was.startswith("raise"))
    on.number = raised.number
    assert outcome(module, 6) == (6, 6)


def test_what_runs_at_import_is_told_apart(tmp_path: Path) -> None:
    _, _, mutants = made(tmp_path)
    early = {mutant.was for mutant in mutants if not mutant.late}
    assert early == {"3", "0", "5"}


def test_no_message_is_a_mutant(tmp_path: Path) -> None:
    _, _, mutants = made(tmp_path)
    assert not [mutant for mutant in mutants if "more than" in mutant.was and mutant.what == "text"]


def test_a_mutant_keeps_its_name_when_its_line_moves(tmp_path: Path) -> None:
    keys = [mutant.key for mutant in made(tmp_path)[2]]
    moved = [mutant.key for mutant in made(tmp_path, SOURCE.replace("class Box", "OTHER = None\n\n\nclass Box"))[2]]
    assert keys == moved
    assert len(set(keys)) == len(keys)


@pytest.mark.full
@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
def test_every_module_of_a_room_can_be_spoilt(room: Any) -> None:
    for path in room.modules().values():
        tree, mutants = schema_of(path, path.relative_to(ROOT).as_posix(), 0)
        compile(tree, str(path), "exec")
        assert ast.parse(path.read_text())
        assert [mutant.number for mutant in mutants] == list(range(len(mutants)))
