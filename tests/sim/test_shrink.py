"""A failure tells one line that plays it again, and another that plays a smaller world."""

from __future__ import annotations

import re

import attrs
import pytest

from deadletter.rules import changes

from . import play as playing
from .play import Story, play
from .seed import FAULTS, Seed
from .shrink import shrunk


def test_a_seed_reads_as_it_is_written() -> None:
    for text in ("memory:7", "redis:0/tasks=2/operators=0", "sqlite:3/workers=1/without=kill+slow"):
        assert str(Seed.of(text)) == text


@pytest.mark.parametrize("text", ["memory:x", "memory:1/people=2", "memory:1/without=rain"])
def test_what_is_no_seed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="seed|invalid literal"):
        Seed.of(text)


def test_what_is_not_needed_is_taken_away() -> None:
    """Of a world that goes wrong wherever somebody is killed, that is left, and a task."""

    def wrong(seed: Seed) -> list[str]:
        return ["I1: lost"] if "kill" not in seed.without and dict(seed.most).get("tasks", 9) > 0 else []

    small = shrunk(Seed("memory", 7), wrong, tries=1000)
    assert dict(small.most) == {"tasks": 1, "producers": 1, "workers": 1, "operators": 0}
    assert set(small.without) == set(FAULTS) - {"kill"}


def test_another_kind_of_failure_is_not_followed() -> None:
    def wrong(seed: Seed) -> list[str]:
        return ["I1: lost"] if seed == Seed("memory", 7) else ["I2: made up"]

    assert shrunk(Seed("memory", 7), wrong, tries=1000) == Seed("memory", 7)


def test_a_failure_tells_what_plays_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def story(seed: str) -> Story:
        wrong = ["I1: it is lost"] if "tasks=2" in seed or seed == "memory:7" else []
        return Story(seed, wrong, digest="", steps=0, seconds=0)

    monkeypatch.setattr(playing, "play", story)
    with pytest.raises(AssertionError) as told:
        story("memory:7").check()
    again, smaller = re.findall(r"SIM_SEED=(\S+) python -m pytest tests/sim -k seed", str(told.value))
    assert again == "memory:7"
    assert smaller.startswith("memory:7/tasks=2/")


@pytest.mark.full
def test_a_smaller_world_fails_as_the_first_did(monkeypatch: pytest.MonkeyPatch) -> None:
    real = changes.lapse
    monkeypatch.setattr(
        changes, "lapse", lambda *given, **options: attrs.evolve(real(*given, **options), attempts=1, failure=None)
    )
    monkeypatch.setattr(playing, "SHRINKING", 12)
    story = next(story for story in map(play, (f"memory:{n}" for n in range(50))) if story.wrong)
    with pytest.raises(AssertionError) as told:
        story.check()
    again, smaller = re.findall(r"SIM_SEED=(\S+) python -m pytest tests/sim -k seed", str(told.value))
    assert again == story.seed
    assert len(smaller) > len(again)
    assert play(smaller).wrong
