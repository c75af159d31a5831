"""deadletter on each backend beside other libraries: the same works, in the same run, each in a process of its own.

    python benchmarks/peers/run.py [--quick] [--minutes 20] [--runs 3] [--json FILE] [--docs docs/explanation/performance.md]

W1 enqueue one by one (and in bulk, deadletter), W2 drain, W3 three failing attempts, W5 how late retries start that fall
due together: 1, 100 and 10,000 of them. Redis works get an own server without persistence each, SQLite ones a file at
``synchronous=FULL``. Their order is shuffled in each round; a figure is the median of the rounds, its spread is told
beside it. Each process checks that every task started exactly as often as it had to, or gives no figure. After
``--minutes`` no further measurement starts. Libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import attrs
from _stores import STORES
from report import machine, report

PEERS: Mapping[str, tuple[str, ...]] = {  # library → where it keeps its tasks
    "deadletter": ("memory", "sqlite", "redis"),
    "arq": ("redis",),
    "saq": ("redis",),
    "taskiq": ("redis",),
    "dramatiq": ("redis",),
    "rq": ("redis",),
    "celery": ("redis",),
    "huey": ("sqlite", "redis"),
}
SLOW = {"rq": 10, "celery": 4, "arq": 2, "saq": 2}  # these get fewer tasks, so that a round ends
SIZES = {"W1": 5_000, "W1 bulk": 20_000, "W2": 10_000, "W3": 2_000}
LATE = (1, 100, 10_000)
# Not measured: rq gives up its delayed retries to a scheduler process, taskiq to a schedule source.
NO_LATENESS = {"rq", "taskiq"}
MOST_LATE = {"celery": 1_000, "dramatiq": 1_000, "saq": 1_000, "arq": 1_000}
PYTHONS: dict[str, str] = {}  # library → the interpreter of its own environment, where its needs clash
START, END = "<!-- peers: begin -->", "<!-- peers: end -->"


@attrs.frozen
class Case:
    """One measurement: a library on a store, at a work of n tasks."""

    library: str
    store: str
    work: str
    n: int

    @property
    def who(self) -> str:
        """Library and store."""
        return f"{self.library} on {self.store}"

    def measure(self) -> dict[str, float] | str:
        """Its figures from a process of its own, or why there are none."""
        store = STORES[self.store]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                command = [
                    PYTHONS.get(self.library, sys.executable),
                    str(Path(__file__).with_name("_one.py")),
                    self.library,
                    self.work,
                ]
                command += [store.url(folder), str(self.n)]
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
            except subprocess.TimeoutExpired:
                return "not done within 90 s"
            finally:
                store.end(folder)
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def cases(*, quick: bool) -> list[Case]:
    """What is measured in each round."""
    found = []
    for library, stores in PEERS.items():
        if library not in PYTHONS and find_spec(library) is None:
            print(f"{library} is not installed: left out", file=sys.stderr)
            continue
        for store in stores:
            for work, n in SIZES.items():
                if work != "W1 bulk" or library == "deadletter":
                    size = n // SLOW.get(library, 1) // (10 if quick else 1)
                    found.append(Case(library, store, work, max(100, size)))
            most = MOST_LATE.get(library, LATE[-1]) if not quick else 100
            sizes = () if library in NO_LATENESS else [n for n in LATE if n <= most]
            found += [Case(library, store, "W5", n) for n in sizes]
    return found


def rounds(runs: int, minutes: float, *, quick: bool) -> tuple[dict[Case, list[dict[str, float]]], dict[Case, str]]:
    """Measure in shuffled order until all rounds are done or the time is up."""
    until = time.monotonic() + minutes * 60
    found: dict[Case, list[dict[str, float]]] = {}
    failed: dict[Case, str] = {}
    for _ in range(runs):
        for case in random.sample(todo := cases(quick=quick), len(todo)):
            if time.monotonic() > until or case in failed:
                continue
            answer = case.measure()
            if isinstance(answer, str):
                failed[case] = answer
                print(f"{case.who}, {case.work}, n = {case.n}: {answer}", file=sys.stderr)
            else:
                found.setdefault(case, []).append(answer)
    return found, failed


def throughput(found: Mapping[Case, list[dict[str, float]]]) -> list[dict[str, object]]:
    """A line per work and library; the ratio is to the fastest other library at the same work, on any store."""
    rates = {case: [answer["per s"] for answer in answers] for case, answers in found.items() if case.work != "W5"}
    middle = {case: statistics.median(values) for case, values in rates.items()}
    rows: list[dict[str, object]] = []
    for case in sorted(rates, key=lambda case: (case.work, -middle[case])):
        work = "W1" if case.work == "W1 bulk" else case.work
        others = [other for other in middle if other.work == work and other.library != "deadletter"]
        same = [other for other in others if other.store == case.store] or others
        best = max(same, key=middle.__getitem__, default=None)
        values = rates[case]
        rows.append(
            {
                "work": case.work,
                "library": case.who,
                "n": case.n,
                "tasks/s": middle[case],
                "least": min(values),
                "most": max(values),
                "best peer there": best.who if best and case.library == "deadletter" else None,
                "ratio": middle[case] / middle[best] if best and case.library == "deadletter" else None,
                "ratio, least": min(values) / max(rates[best]) if best and case.library == "deadletter" else None,
                "ratio, most": max(values) / min(rates[best]) if best and case.library == "deadletter" else None,
            }
        )
    return rows


def lateness(found: Mapping[Case, list[dict[str, float]]]) -> list[dict[str, object]]:
    """A line per library and number of retries that fall due together, in ms; ``early`` where one came before its time."""
    rows: list[dict[str, object]] = []
    for case in sorted((case for case in found if case.work == "W5"), key=lambda case: (case.n, case.who)):
        middle = {
            name: statistics.median(answer[name] for answer in found[case]) for name in ("p50", "p99", "max", "min")
        }
        early = -middle["min"] if middle["min"] < -1 else None
        rows.append(
            {
                "due together": case.n,
                "library": case.who,
                **{f"{name} ms": middle[name] for name in ("p50", "p99", "max")},
                "early by ms": early,
            }
        )
    return rows


def plot(rates: list[dict[str, object]], folder: Path) -> None:
    """Bars of the throughput, a panel per work."""
    from _plots import COLOURS, panels, written

    figure, axes = panels(3, height=4)
    for axis, (work, title) in zip(axes, (("W1", "enqueue"), ("W2", "drain"), ("W3", "fail three times")), strict=True):
        mine = [row for row in rates if row["work"] == work][::-1]
        colours = [COLOURS[1] if str(row["library"]).startswith("deadletter") else COLOURS[0] for row in mine]
        axis.barh([str(row["library"]) for row in mine], [float(row["tasks/s"]) for row in mine], color=colours)  # type: ignore[arg-type]
        axis.set(xscale="log", xlabel="tasks per second", title=f"{work}: {title}")
    written(folder / "peers.svg", figure)


def into(page: Path, text: str) -> None:
    """Put the text between the markers of the page; its prose stays."""
    whole = page.read_text()
    if START not in whole or END not in whole:
        raise SystemExit(f"{page} lacks the lines {START} and {END}")
    page.write_text(re.sub(f"{START}.*{END}", lambda _: f"{START}\n{text}\n{END}", whole, flags=re.DOTALL))


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the tasks, one round, at most 3 minutes")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--docs", metavar="PAGE", type=Path, help="write tables and plot between the page's markers")
    parser.add_argument("--python", action="append", default=[], metavar="LIBRARY=PATH", help="its own environment")
    given = parser.parse_args()
    PYTHONS.update(pair.split("=", 1) for pair in given.python)
    runs, minutes = (1, min(3, given.minutes)) if given.quick else (given.runs, given.minutes)
    found, failed = rounds(runs, minutes, quick=given.quick)
    rates, late = throughput(found), lateness(found)
    here = machine()
    rows: list[dict[str, object]] = [*rates, *late]
    report(f"deadletter beside its peers, medians of up to {runs} rounds", rates, None)
    report("Lateness of retries", late, None)
    if given.json:
        told = {f"{case.who}, {case.work}, n = {case.n}": why for case, why in failed.items()}
        document = {"machine": here, "rows": rows, "failed": told}
        Path(given.json).write_text(json.dumps(document, indent=2) + "\n")
    if given.docs:
        from report import markdown

        plot(rates, given.docs.parent / "plots")
        said = f"Measured {here['at']}: Python {here['python']}, {here['cores']} cores, load {here['load']:.1f}."
        why = [f"- {case.who}, {case.work}, n = {case.n}: no figure ({reason})" for case, reason in failed.items()]
        picture = "![Tasks per second by library](plots/peers.svg)"
        into(given.docs, "\n\n".join([said, markdown(rates), picture, markdown(late), "\n".join(why)]).strip())


if __name__ == "__main__":
    main()
