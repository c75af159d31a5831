"""Small worlds whole: whatever happens next at each moment, everything that must hold holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import attrs
import pytest

from deadletter.model.row import Change
from deadletter.rules import changes, machine

from .play import undisturbed
from .scope import Scope, explore

PENDING = ("worker", "killer", "sweeper")  # the second one's processor fails for good
OPERATORS = ("cancel", "again")
LETTER = ("worker", "killer", "sweeper")
ON_LETTERS = (("retry", "purge"), ("edit", "retry"), ("purge", "again"))


def search(scope: Scope, at_least: int) -> None:
    """Go all ways; ``at_least`` so many schedules, so that nothing is searched in vain."""
    with undisturbed():
        found = explore(scope)
    assert found.wrong == []
    assert found.whole
    assert found.schedules >= at_least, found
    if scope.faults:  # pytest shows it with -s or -rP
        print(f"{scope}: {found.schedules} schedules, {found.states} states, {found.runs} runs")  # noqa: T201


@pytest.mark.parametrize(
    ("scope", "at_least"),
    [
        (Scope(PENDING), 300),
        (Scope(("worker", "sweeper"), faults=1), 100),
        (Scope(("killer", "retry", "purge"), dead=True), 100),
        pytest.param(Scope((*PENDING, "cancel")), 5_000, marks=pytest.mark.full),
    ],
    ids=str,
)
def test_a_small_world_holds_whatever_happens(scope: Scope, at_least: int) -> None:
    search(scope, at_least)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("actors", [("worker", "sweeper", "cancel"), PENDING, ("worker", "killer", "cancel")], ids=str)
def test_with_a_fault_at_any_place(actors: tuple[str, ...]) -> None:
    search(Scope(actors, faults=1), 1_000)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operators", ON_LETTERS, ids=str)
def test_a_letter_with_a_fault_at_any_place(operators: tuple[str, ...]) -> None:
    search(Scope(("killer", *operators), dead=True, faults=1), 200)  # a purge met by itself has 216


@pytest.mark.soak
@pytest.mark.parametrize(("operator", "faults"), [*itertools.product(OPERATORS, (1, 2))])
def test_two_workers_a_sweeper_and_an_operator(operator: str, faults: int) -> None:
    search(Scope((*PENDING, operator), faults=faults), 10_000)


@pytest.mark.soak
@pytest.mark.parametrize(("operators", "faults"), [*itertools.product(ON_LETTERS, (1, 2))])
def test_a_letter_two_workers_a_sweeper_and_operators(operators: tuple[str, ...], faults: int) -> None:
    search(Scope((*LETTER, *operators), dead=True, faults=faults), 10_000)


@pytest.mark.parametrize(
    ("name", "without", "scope"),
    [
        ("purge", {"generation": None}, Scope(("killer", "retry", "purge"), dead=True)),
        ("replay", {"generation": None}, Scope(("killer", "killer", "retry", "retry"), dead=True)),
        ("succeed", {"token": None}, Scope(("worker", "killer", "sweeper"))),
    ],
    ids=str,
)
def test_a_fence_that_was_forgotten_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, without: dict[str, object], scope: Scope
) -> None:
    real: Callable[..., Change] = getattr(changes, name)
    monkeypatch.setattr(changes, name, lambda *given, **options: attrs.evolve(real(*given, **options), **without))
    with undisturbed():
        found = explore(scope)
    assert found.wrong


def test_a_late_settle_that_the_store_refuses_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = machine.fence
    monkeypatch.setattr(
        machine, "fence", lambda row, change, now_ms: real(row, attrs.evolve(change, late=False), now_ms)
    )
    with undisturbed():
        found = explore(Scope(("worker", "killer")))
    assert found.wrong
