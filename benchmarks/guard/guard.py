"""Count the instructions of the hot paths under valgrind, and fail where one has grown by more than the tolerance.

    python benchmarks/guard/guard.py [--write] [--only PATH …] [--tolerance 0.05] [--baseline FILE] [--json FILE]

Instructions, unlike time, hardly depend on what else the machine does. They do on the interpreter: the baseline names its
Python and machine, and another one is told that it has to write its own (``--write``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from report import report

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.05


def built() -> str:
    """What the counts hold for."""
    return f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}"


def counted(only: list[str]) -> dict[str, float]:
    """Instructions for one repetition of each path."""
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is missing: install Debian's package valgrind")
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={folder}/%p", "-q"]
        command += [sys.executable, str(Path(__file__).with_name("_paths.py")), *only]
        fixed = {"PYTHONHASHSEED": "0", "PYTHONMALLOC": "malloc"}
        done = subprocess.run(command, env=os.environ | fixed, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"a path failed: {done.returncode}")
        told: dict[str, list[tuple[int, int]]] = {}
        for line in done.stdout.splitlines():
            name, n, pid = line.split("\t")
            told.setdefault(name, []).append((int(n), _total(Path(folder, pid))))
    return {name: (many[1] - few[1]) / (many[0] - few[0]) for name, (few, many) in told.items()}


def _total(path: Path) -> int:
    found = re.search(r"^summary: (\d+)", path.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"valgrind wrote no count into {path}")
    return int(found[1])


def compared(now: dict[str, float], before: dict[str, float], tolerance: float) -> list[dict[str, object]]:
    """A line per path; ``verdict`` is ``slower`` where it has grown by more than the tolerance."""
    return [
        {
            "path": name,
            "instructions": count,
            "baseline": before.get(name),
            "ratio": (ratio := count / before[name] if name in before else None),
            "verdict": "new" if ratio is None else "slower" if ratio > 1 + tolerance else "ok",
        }
        for name, count in now.items()
    ]


def main() -> None:
    """Count, compare, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make what is counted the baseline")
    parser.add_argument("--only", nargs="+", default=[], metavar="PATH")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    kept = json.loads(given.baseline.read_text()) if given.baseline.exists() else {}
    now = counted(given.only)
    if given.write:
        kept[built()] = kept.get(built(), {}) | {name: round(count) for name, count in now.items()}
        given.baseline.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    elif built() not in kept:
        raise SystemExit(f"{given.baseline} knows {', '.join(kept) or 'nothing'}, not {built()}: write it with --write")
    rows = compared(now, kept[built()], given.tolerance)
    report("Instructions of the hot paths", rows, given.json)
    slower = [row["path"] for row in rows if row["verdict"] == "slower"]
    if slower:
        raise SystemExit(f"more than {given.tolerance:.0%} over the baseline: {', '.join(map(str, slower))}")


if __name__ == "__main__":
    main()
