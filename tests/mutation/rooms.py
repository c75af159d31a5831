"""Which modules are mutated, and by whose tests their mutants must be noticed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


@attrs.frozen
class Room:
    """Modules that are tested together.

    Attributes:
        folder: below ``src/deadletter``.
        tests: what must notice; only what needs no server and no second process.
        sample: how many mutants are drawn by a seed; None is all.
        goal: the score to reach, of 1.
    """

    folder: str
    tests: Sequence[str]
    sample: int | None
    goal: float

    def modules(self) -> dict[str, Path]:
        """By name."""
        found = sorted((SOURCE / "deadletter" / self.folder).glob("*.py"))
        names = [path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".") for path in found]
        return {name.removesuffix(".__init__"): path for name, path in zip(names, found, strict=True)}


_BATCHES = ["tests/conformance/test_memory.py", "tests/unit/backends/test_sqlite_differs_nowhere.py"]

ROOMS = {
    "model": Room("model", ["tests/unit/model", "tests/unit/rules", "tests/unit/retry"], None, 0.9),
    "rules": Room("rules", ["tests/unit/rules", "tests/unit/engine/test_hidden_values.py", *_BATCHES], None, 0.9),
    "retry": Room("retry", ["tests/unit/retry"], None, 0.9),
    "engine": Room("engine", ["tests/unit/engine"], 300, 0.8),
}
