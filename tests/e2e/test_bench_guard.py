"""The guard over the hot paths' instruction counts notices a slow-down that is planted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.full
ROOT = Path(__file__).parents[2]
PATH = "policy decision"


def guard(src: Path, baseline: Path, *asked: str) -> subprocess.CompletedProcess[str]:
    """Count one path of the library that stands in ``src``."""
    command = [sys.executable, str(ROOT / "benchmarks/guard/guard.py"), "--only", PATH, "--baseline", str(baseline)]
    return subprocess.run(
        [*command, *asked], env=os.environ | {"PYTHONPATH": str(src)}, capture_output=True, text=True, check=False
    )


def test_a_planted_slow_down_fails_the_guard(tmp_path: Path) -> None:
    """The same code passes beside its own count, and fails once a decision does a little more."""
    baseline = tmp_path / "baseline.json"
    assert guard(ROOT / "src", baseline, "--write").returncode == 0
    assert json.loads(baseline.read_text())
    assert guard(ROOT / "src", baseline).returncode == 0
    copy = tmp_path / "src/deadletter"
    shutil.copytree(ROOT / "src/deadletter", copy)
    slowed = copy / "retry/exponential.py"
    before = slowed.read_text()
    after = before.replace(
        "grown = self._grown(attempt.number)", "grown = max(self._grown(attempt.number) for _ in range(3))"
    )
    assert after != before
    slowed.write_text(after)
    found = guard(copy.parent, baseline)
    assert found.returncode == 1
    assert PATH in found.stderr
