"""A test of the tests: spoil one line of the library, and somebody must notice."""

from __future__ import annotations

import pytest

from ..proof import page
from ..sim.play import play
from .__main__ import FILE, table_of
from .bug import Bug
from .every import BUGS
from .notice import SEARCHES, search


def _param(bug: Bug) -> object:
    return pytest.param(bug, id=f"{bug.where}: {bug.name}", marks=pytest.mark.full if bug.rare else ())


@pytest.mark.parametrize("bug", [_param(bug) for bug in BUGS])
def test_a_planted_bug_is_noticed(bug: Bug) -> None:
    assert search(bug) is not None, f"{SEARCHES[bug.noticed_by].seeds} seeds, and none noticed: {bug.name}"


@pytest.mark.parametrize("name", ["a worker that is cut off", "an operator that stands still", "a day without a fault"])
def test_a_story_is_well_where_nothing_is_planted(name: str) -> None:
    assert not any(SEARCHES[name].shows(seed) for seed in range(5))


def test_there_is_a_bug_of_every_kind_in_every_language() -> None:
    assert len({(bug.where, bug.name) for bug in BUGS}) == len(BUGS) >= 80
    for where in ("Python", "SQL", "Lua"):
        kinds = {bug.kind for bug in BUGS if bug.where == where}
        assert kinds >= {"fence", "op id", "guard", "effect", "order", "clock", "key TTL"}, where


def test_the_page_shows_what_was_measured_and_every_bug_was() -> None:
    """Written by ``python -m tests.planted``, never by hand."""
    document = page.load(FILE)
    assert {(entry["where"], entry["bug"]) for entry in document["bugs"]} == {(bug.where, bug.name) for bug in BUGS}
    assert "\n".join(table_of(document)) in page.PAGE.read_text("utf-8")


def test_a_seed_tells_the_same_story_twice() -> None:
    assert play("memory:3") == play("memory:3")
    assert play("sqlite:3").digest == play("sqlite:3").digest
