"""A test of the tests: take away one fence, one op id, one guard, and some seed must notice."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from types import ModuleType

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


def _line(module: ModuleType, name: str, line: str, instead: str) -> Plant:
    """Patch one line of a copy of a function."""
    source = textwrap.dedent(inspect.getsource(getattr(module, name)))
    assert source.count(line) == 1, f"{name} holds {line!r} {source.count(line)} times"

    def plant(patch: pytest.MonkeyPatch) -> None:
        made: dict[str, object] = {}
        exec(f"from __future__ import annotations\n{source.replace(line, instead)}", module.__dict__, made)
        patch.setattr(module, name, made[name])

    return plant


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
    "a lapse that asks no clock": _constructor("lapse", lapsed=False),
    "an extension without token": _constructor("extend", token=None),
    "a success without token": _constructor("succeed", token=None),
    "a tombstone that is only stale": _line(machine, "fence", "if row.state == GONE:", "if False:"),
    "a claim that keeps the old token": _line(machine, "take", 'f"{claim.op}', 'row.token or f"{claim.op}'),
    "a lease twice as long": _line(machine, "take", "now_ms + claim.lease_ms", "now_ms + 2 * claim.lease_ms"),
    "a lease that is over at once": _line(machine, "take", "now_ms + claim.lease_ms", "now_ms"),
    "an attempt that is not counted": _line(machine, "_count", "row.attempts += change.attempts", "pass"),
    "a reset that is forgotten": _line(machine, "_count", "if change.reset:", "if False:"),
    "a replay of the same generation": _line(machine, "_count", "row.generation += 1", "pass"),
    "a retry that is due at once": _line(
        machine, "_move", "row.due_ms = now_ms + change.due_ms", "row.due_ms = now_ms"
    ),
    "a lapse that forgets its token": _line(machine, "_move", "if not change.lapsed:", "if True:"),
    "an extension that is not kept": _line(machine, "_move", "row.lease_ms = now_ms + change.lease_ms", "pass"),
    "a tally that is never left": _line(machine, "apply", "journal.enter(row, -1)", "pass"),
    "a change that tells no event": _line(machine, "apply", "if change.event is not None:", "if False:"),
    "an op that is not remembered": _line(machine, "apply", "row.op = change.op", "pass"),
    "a key that binds nothing": _line(machine, "admit", "keys.get(new.key) if new.key is not None else None", "None"),
    "a duplicate that is not counted": _line(machine, "admit", "draft.count(", "(lambda *_: None)("),
    "starts under a lease that is over": lambda patch: patch.setattr(Keeper, "too_late", lambda *_: False),
}


LATE = ("no lapsed check", "a lapse that asks no clock")  # which some 60 and 90 seeds show


@pytest.mark.parametrize(
    "bug", [pytest.param(bug, marks=pytest.mark.full) if bug in LATE else pytest.param(bug) for bug in PLANTED]
)
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[bug](monkeypatch)
    assert any(play(f"memory:{seed}").wrong for seed in range(SEEDS)), f"{SEEDS} seeds, and none noticed: {bug}"


def test_a_seed_tells_the_same_story_twice() -> None:
    assert play("memory:3") == play("memory:3")
    assert play("sqlite:3").digest == play("sqlite:3").digest
