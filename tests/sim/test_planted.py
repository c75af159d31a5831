"""A test of the tests: take away one fence, one op id, one guard, and some seed must notice."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from deadletter.engine.keeper import Keeper
from deadletter.model.row import Change, Row, Verdict
from deadletter.rules import changes, machine

from .play import play

SEEDS = 500  # the rarest of them shows in one of some 150; the search ends at the first
Plant = Callable[[pytest.MonkeyPatch], None]


def _fence(spoil: Callable[[Row, Change], tuple[Row, Change]]) -> Plant:
    real = machine.fence

    def spoilt(row: Row | None, change: Change, now_ms: int) -> Verdict | None:
        return real(*(spoil(row, change) if row is not None else (row, change)), now_ms)

    return lambda patch: patch.setattr(machine, "fence", spoilt)


def _constructor(name: str, **fields: object) -> Plant:
    real = getattr(changes, name)

    def spoilt(*args: object, **options: object) -> Change:
        return attrs.evolve(real(*args, **options), **fields)

    return lambda patch: patch.setattr(changes, name, spoilt)


PLANTED: dict[str, Plant] = {
    "no token in the fence": _fence(lambda row, change: (row, attrs.evolve(change, token=None))),
    "no state in the fence": _fence(lambda row, change: (row, attrs.evolve(change, was=row.state))),
    "no repeat by op": _fence(lambda row, change: (attrs.evolve(row, op=None), change)),
    "no lapsed check": _fence(lambda row, change: (row, attrs.evolve(change, lapsed=False))),
    "no late settle": _fence(lambda row, change: (row, attrs.evolve(change, late=False))),
    "release without token": _constructor("release", token=None),
    "a lapse that counts an attempt": _constructor("lapse", attempts=1),
    "a discard that keeps its key": _constructor("discard", free_key=False),
    "a death that is not counted": _constructor("die", count=()),
    "starts under a lease that is over": lambda patch: patch.setattr(Keeper, "too_late", lambda *_: False),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[bug](monkeypatch)
    assert any(play(f"memory:{seed}").wrong for seed in range(SEEDS)), f"{SEEDS} seeds, and none noticed: {bug}"


def test_a_seed_tells_the_same_story_twice() -> None:
    assert play("memory:3") == play("memory:3")
    assert play("sqlite:3").digest == play("sqlite:3").digest
