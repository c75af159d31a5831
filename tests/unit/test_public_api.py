"""A name, an argument or a class that users have cannot go away unnoticed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.full  # griffe comes with the group

SOURCE = Path(__file__).parents[2] / "src"


def loaded(source: Path):
    from .. import public_api  # where griffe is not installed this file is read, too

    return public_api.loaded(source)


def breaks(old, new) -> list[str]:
    from .. import public_api

    return list(public_api.breaks(old, new))


@pytest.fixture(scope="module")
def today():
    return loaded(SOURCE)


@pytest.fixture
def spoiled(tmp_path: Path):
    """The source with one pattern replaced, or a file of it gone."""
    shutil.copytree(SOURCE / "deadletter", tmp_path / "deadletter", ignore=shutil.ignore_patterns("__pycache__"))

    def spoil(file: str, pattern: str, by: str):
        path = tmp_path / "deadletter" / file
        text, n = re.subn(pattern, by, path.read_text(), count=1)
        assert n == 1, "the pattern is there"
        path.write_text(text)
        return loaded(tmp_path)

    return spoil


def test_nothing_breaks_where_nothing_changed(today) -> None:
    assert breaks(today, loaded(SOURCE)) == []


@pytest.mark.parametrize(
    ("file", "pattern", "by", "told"),
    [
        ("engine/queue.py", r"async def resume\(", "async def go_on(", "DeadLetterQueue.resume"),
        ("engine/queue.py", r"(async def pause\(self, types: [^,]*, \*, )why", r"\1because", "DeadLetterQueue.pause"),
        ("retry/__init__.py", r"(from \.never import) Never", r"\1 Never as NeverAgain", "Never"),
        ("model/outcome.py", r"class Postpone\(", "class PutOff(", "Postpone"),
    ],
)
def test_what_users_have_written_is_missed(spoiled, today, file: str, pattern: str, by: str, told: str) -> None:
    assert any(told in line for line in breaks(today, spoiled(file, pattern, by)))


def test_what_nobody_can_name_is_ours_to_change(spoiled, today) -> None:
    new = spoiled("engine/feeder.py", r"async def feed\(", "async def nourish(")
    assert breaks(today, new) == []
