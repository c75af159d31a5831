"""The benchmarks run at their smallest size, so that they cannot rot; what is measured there says nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def figures(benchmark: str, asked: list[str], folder: Path) -> tuple[list[dict[str, Any]], str]:
    """What one run of a benchmark found, and what it printed."""
    found = folder / "figures.json"
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(ROOT / f"benchmarks/{benchmark}.py"), *asked, "--runs", "1", "--json", str(found)],
        check=False,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(found.read_text())["rows"], done.stdout


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("memory", EVERYWHERE),
        pytest.param("sqlite", EVERYWHERE | LIMITS, marks=pytest.mark.full),
        pytest.param("redis", ON_REDIS, marks=pytest.mark.full),
    ],
)
def test_every_figure_is_measured(backend: str, expected: set[str], tmp_path: Path) -> None:
    asked = ["--backend", backend, "--here", "--only", "W1,W2,W3,W4,W5,W6,memory,letters", "--letters", "200"]
    found, printed = figures("throughput", [*asked, "--n", "200"], tmp_path)
    rows = {row["figure"]: row for row in found}
    assert expected <= set(rows)
    assert all(f"| {figure} |" in printed for figure in rows)
    if backend == "sqlite":
        one, bare = rows["W1 one by one"], rows["W1 bare, 1 a commit"]
        assert one["ratio"] == pytest.approx(one["value"] / bare["value"])
        assert rows["W6 lost"]["value"] == 0


@pytest.mark.parametrize("backend", ["redis", pytest.param("sqlite", marks=pytest.mark.full)])
def test_a_share_of_each_limit_is_told(backend: str, tmp_path: Path) -> None:
    """By a bare hiredis loop of the same commands; by redis-benchmark, too, where that is installed."""
    rows, printed = figures("limits", ["--backend", backend, "--n", "100"], tmp_path)
    assert {row["work"] for row in rows} == {"W1 one by one", "W1 64 coroutines", "W1 bulk", "W2 drain"}
    for row in rows:
        assert row["share"] == pytest.approx(row["tasks/s"] / row["limit, tasks/s"])
        assert f"| {row['work']} |" in printed
    if backend == "redis":
        assert all(row["bytes a task"] > 200 for row in rows)


@pytest.mark.full
def test_a_monitor_is_measured_beside_a_worker(tmp_path: Path) -> None:
    found, _ = figures("monitor", ["--n", "400"], tmp_path)
    assert [row["monitor"] for row in found] == ["off", "on"]
    assert all(row["tasks a second"] > 0 for row in found)
