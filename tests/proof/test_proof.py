"""The page of figures: written between its marks, and a run goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import page, run
from .__main__ import TIERS, file_of, table_of
from .parts import PARTS, Part
from .run import Done, Log, batch, wanted


def done(part: str, seed: int, failed: str | None = None) -> Done:
    return Done(part, seed, 1, 0.1, page.now(), failed)


@pytest.fixture
def two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(seed: int) -> int:
        raise ValueError(f"seed {seed} breaks")

    monkeypatch.setattr(run, "PARTS", {"a": Part("as", lambda seed: seed, 1, 2, 4), "b": Part("bs", breaks, 5, 5, 10)})


def test_a_run_goes_on_where_it_was_stopped(two_parts: None, tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    assert wanted(["a", "b"], log, long=True) == [("a", 0), ("b", 0), ("a", 1), ("a", 2), ("b", 1), ("a", 3)]
    log.enter(done("a", 0))
    log.enter(done("b", 0, "it failed"))

    again = Log(tmp_path / "log")

    assert (again.began, set(again.done)) == (log.began, {("a", 0)})  # what failed is tried again
    assert ("a", 0) not in wanted(["a", "b"], again, long=True)


def test_other_sources_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Log(tmp_path / "log").enter(done("a", 0))
    monkeypatch.setattr(page, "source", lambda: "another")
    assert Log(tmp_path / "log").done == {}


def test_a_batch_that_fails_says_how_to_run_it_again(two_parts: None) -> None:
    ended = batch("b", 7)
    assert ended.failed is not None
    assert "seed 7 breaks" in ended.failed
    assert ended.failed.endswith("python -m tests.proof --part b --seed 7  # runs it again")


def test_a_table_is_written_between_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- x -->\nold\n<!-- /x -->\nafter\n")
    page.write("x", page.table(("a", "b"), [(1, "c|d")]), path)
    page.write("x", page.table(("a", "b"), [(2, "c|d")]), path)
    assert path.read_text() == "before\n<!-- x -->\n| a | b |\n| --- | --- |\n| 2 | c\\|d |\n<!-- /x -->\nafter\n"
    with pytest.raises(LookupError, match="no place for 'y'"):
        page.write("y", [], path)


def test_the_page_shows_what_was_measured() -> None:
    """Written by ``python -m tests.proof``, never by hand."""
    found = {tier: page.load(file_of(tier)) for tier in TIERS}
    shown = "\n".join(table_of({tier: told for tier, told in found.items() if told is not None}))
    assert shown in page.PAGE.read_text("utf-8")


def test_each_part_names_its_batches() -> None:
    assert all(part.batches(long=True) >= part.batches(long=False) >= 1 for part in PARTS.values())
