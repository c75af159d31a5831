"""The real engine under a few hundred seeds.

``SIM_SEED=memory:7`` plays one of them, ``SIM_SEEDS=10000`` more of them.
"""

from __future__ import annotations

import os

import pytest

from .play import play
from .world import STORES

COUNTS = {"memory": 200, "sqlite": 100}


def _seeds() -> list[str]:
    one = os.environ.get("SIM_SEED")
    if one:
        return [one]
    count = os.environ.get("SIM_SEEDS")
    return [f"{store}:{n}" for store in STORES for n in range(int(count) if count else COUNTS[store])]


@pytest.mark.parametrize("seed", _seeds())
def test_what_must_hold_holds_under_this_seed(seed: str) -> None:
    play(seed).check()
