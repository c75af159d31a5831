"""The benchmark runs at its smallest size, so that it cannot rot; what it measures there says nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EVERYWHERE = {
    "W1 one by one",
    "W1 64 coroutines",
    "W1 bulk",
    "W2 drain",
    "W3 fail to dead",
    "W4 wake-up in the same process, p99",
    "W5 retry lateness, p99",
    "memory, a dead letter",
    "letters: page of 50 @ 200",
    "letters: purge of all @ 200",
}
LIMITS = {"W1 bare, 1 a commit", "W2 bare, 100 a commit", "letters: bare page of 50 @ 200", "W6 lost", "W4 idle CPU"}


ON_REDIS = EVERYWHERE | {"W1 bare EVALSHA", "W1 bare EVALSHA, 100 a pipeline", "W6 lost", "W4 idle CPU"}


@pytest.mark.parametrize(
    ("backend", "expected"), [("memory", EVERYWHERE), ("sqlite", EVERYWHERE | LIMITS), ("redis", ON_REDIS)]
)
def test_every_figure_is_measured(backend: str, expected: set[str], tmp_path: Path) -> None:
    found = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "benchmarks/throughput.py"), "--backend", backend, "--here"]
    command += ["--only", "W1,W2,W3,W4,W5,W6,memory,letters", "--n", "200", "--runs", "1", "--letters", "200"]
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [*command, "--json", str(found)],
        check=False,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = {row["figure"]: row for row in json.loads(found.read_text())["rows"]}
    assert expected <= set(rows)
    assert all(f"| {figure} |" in done.stdout for figure in rows)
    if backend == "sqlite":
        one, bare = rows["W1 one by one"], rows["W1 bare, 1 a commit"]
        assert one["ratio"] == pytest.approx(one["value"] / bare["value"])
        assert rows["W6 lost"]["value"] == 0
