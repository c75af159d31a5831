"""No input of a stranger breaks us: what was ever found, what Hypothesis thinks of, and very many that are made by seed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from . import run
from .corpus import kept
from .mutator import Mutator
from .run import free_seed, mutated, one
from .strategies import inputs_of
from .targets import TARGETS

FULL = 5_000  # inputs over all targets
SEED = int(os.environ.get("FUZZ_SEED", "0")) or free_seed()

every_target = pytest.mark.parametrize("target", TARGETS)


def unbroken(target: str, data: bytes) -> None:
    """Fail, with a line that plays it again, where the target does."""
    told = one(target, data)
    if told is not None:
        pytest.fail(f"{told}\npython -m tests.fuzz {target} --hex {data.hex()}  # plays it again")


@pytest.mark.parametrize(
    ("target", "path"),
    [pytest.param(target, path, id=f"{target}-{path.name}") for target in TARGETS for path in kept(target)],
)
def test_what_is_kept_is_borne(target: str, path: Path) -> None:
    unbroken(target, path.read_bytes())


@every_target
def test_some_inputs_are_borne(target: str) -> None:
    _, broken = mutated(target, 1, range(20 if target == "url" else 100))
    assert broken is None, f"{broken.told}\n{broken.line}  # plays it again"


@pytest.mark.full
@every_target
def test_what_hypothesis_thinks_of_is_borne(target: str) -> None:
    @given(data=inputs_of(target))
    @settings(max_examples=FULL // len(TARGETS), suppress_health_check=list(HealthCheck))
    def bears(data: bytes) -> None:
        unbroken(target, data)

    bears()


@pytest.mark.full
@every_target
def test_many_inputs_are_borne(target: str) -> None:
    _, broken = mutated(target, SEED, range(FULL // len(TARGETS)))
    assert broken is None, f"{broken.told}\n{broken.line}  # plays it again"


@every_target
def test_a_number_makes_the_same_input_each_time(target: str) -> None:
    corpus = [path.read_bytes() for path in kept(target)]
    made = [Mutator(corpus, 7).make(number) for number in range(30)]
    assert made == [Mutator(corpus, 7).make(number) for number in range(30)]
    assert len(set(made)) > 15


def test_an_endless_loop_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that never barks would prove nothing."""

    def forever(_: bytes) -> None:
        while True:
            pass

    monkeypatch.setitem(TARGETS, "forever", forever)
    monkeypatch.setattr(run, "LONGEST", 0.05)
    told = one("forever", b"")
    assert told is not None
    assert "takes more than" in told
