"""What each policy does to a service that fails for a minute, by fleets of 10^2 to 10^6 clients; and AWS's contention.

    python benchmarks/backoff/storms.py [--quick] [--json FILE] [--plots FOLDER]

Spread: each client calls once a minute, evenly spread, for three minutes; in the first the service fails, and then it
serves twice the usual load. Together: each calls once, all in the first tenth of a second (a cable was pulled), which
is where jitter shows. Load is told as a multiple of the usual one; the calls of that tenth are left out of its peak.
``Budget`` is one that the whole fleet shares.

The contention repeats "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), whose article says: without
backoff, work grows as the square of the clients; at 100 clients full jitter more than halves the calls of a backoff
without jitter, which takes by far the longest; equal jitter takes longer than full and does slightly more work;
decorrelated takes about as long as full, for somewhat more work. Each of these is checked, and the run fails where one
does not hold.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from _contention import POLICIES, contend
from _fleet import Delays, Fleet, Share, Storm, constant, exponential
from report import report

OUTAGE, EVERY, HEADROOM = 60.0, 60.0, 2.0
SHOWN = 10_000
_WINDOW = 10.0  # seconds, of Budget
Policy = tuple[Delays, float | None]  # the delays, and a budget's ratio
STORMS: dict[str, Policy] = {
    "each 5 s": (constant(5), None),
    "exponential, no jitter": (exponential(), None),
    "equal jitter": (exponential(jitter="equal"), None),
    "full jitter": (exponential(jitter="full"), None),
    "decorrelated jitter": (exponential(jitter="decorrelated"), None),
    "each 5 s, Budget 0.1": (constant(5), 0.1),
    "no jitter, Budget 0.1": (exponential(), 0.1),
    "full jitter, Budget 0.1": (exponential(jitter="full"), 0.1),
}
RATIO_OF_REFILL = 0.1  # Budget(min_per_second=…), of the usual load


def storm(clients: int, policy: Policy, *, together: bool) -> Storm:
    """One fleet through one outage."""
    delays, ratio = policy
    usual = clients / EVERY
    budget = None if ratio is None else Share(ratio, RATIO_OF_REFILL * usual)
    return Fleet(
        arrivals=10 * clients if together else usual,
        duration=0.1 if together else 3 * EVERY,
        outage=OUTAGE,
        capacity=HEADROOM * usual,
        delays=delays,
        budget=budget,
        slot=0.1,
        horizon=1_200,
    ).run()


def told(clients: int, name: str, found: Storm, *, together: bool) -> dict[str, object]:
    """A line of the table."""
    usual = clients / EVERY
    busy = found.load[: 3 * int(EVERY)]
    peak = found.load[1 if together else 0 :].max()
    return {
        "calls": "together" if together else "spread",
        "clients": clients,
        "policy": name,
        "peak load, × usual": float(peak / usual),
        "mean load of 3 min, × usual": float(busy.sum() / 3 / EVERY / usual),
        "s to recover": found.time_to_recover,
        "attempts a task": found.attempts / found.tasks,
        "attempts": found.attempts,
    }


def storms(sizes: list[int], folder: Path | None) -> list[dict[str, object]]:
    """Every policy at every size; a plot of the load over time and of the peak by size."""
    rows: list[dict[str, object]] = []
    for together in (False, True):
        shown = {}
        for clients in sizes:
            for name, policy in STORMS.items():
                found = storm(clients, policy, together=together)
                rows.append(told(clients, name, found, together=together))
                if clients == SHOWN:
                    shown[name] = found.load[:240] / (clients / EVERY)
        if folder is not None:
            mine = [row for row in rows if row["calls"] == ("together" if together else "spread")]
            _plot(mine, shown, sizes, folder / f"storms-{'together' if together else 'spread'}.svg")
    _check_budget(rows)
    return rows


def _check_budget(rows: list[dict[str, object]]) -> None:
    """First calls, the budget's rate, and the burst of tokens that it had saved: more than that may not come."""
    for row in rows:
        if "Budget" in str(row["policy"]) and row["clients"] >= 1_000:  # type: ignore[operator]
            calls, firsts = (0, EVERY) if row["calls"] == "together" else (1, _WINDOW)
            bound = calls + 0.1 * firsts + RATIO_OF_REFILL * (1 + _WINDOW) + 0.1 * firsts / _WINDOW
            if row["peak load, × usual"] > bound:  # type: ignore[operator]
                raise SystemExit(f"Budget did not bound the load to {bound} × usual: {row}")


def _plot(rows: list[dict[str, object]], shown: Mapping[str, Any], sizes: list[int], path: Path) -> None:
    from _plots import curves, panels, written

    figure, (left, right) = panels(2, height=4.2)
    loads = {name: (range(len(load)), load) for name, load in shown.items()}
    curves(left, loads, "time since the service failed (s)", "load (× usual)", log="y", marks=False)
    left.axvspan(0, OUTAGE, color="#808890", alpha=0.12)
    left.axhline(HEADROOM, color="#808890", linewidth=1)
    left.text(238, HEADROOM * 1.05, "capacity", ha="right", va="bottom", fontsize=9)
    left.set(xlim=(0, 240), ylim=(0.02, None), title=f"{SHOWN:,} clients, down for {OUTAGE:.0f} s")
    peaks: Any = {
        name: (sizes, [row["peak load, × usual"] for row in rows if row["policy"] == name]) for name in STORMS
    }
    curves(
        right, peaks, "clients", "peak load within one second (× usual)", log="xy", title="Peak by size of the fleet"
    )
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    written(path, figure)


def contention(sizes: list[int], runs: int, folder: Path | None) -> list[dict[str, object]]:
    """AWS's model: calls and time by number of clients."""
    rows = []
    for clients in sizes:
        for name, policy in POLICIES.items():
            found = [contend(clients, policy, seed) for seed in range(runs)]
            rows.append(
                {
                    "clients": clients,
                    "policy": name,
                    "calls": statistics.fmean(calls for calls, _ in found),
                    "s to finish": statistics.fmean(seconds for _, seconds in found),
                }
            )
    _check_contention(rows)
    if folder is not None:
        from _plots import curves, panels, written

        figure, axes = panels(2)
        for at, (column, label) in zip(axes, (("calls", "calls"), ("s to finish", "time to finish (s)")), strict=True):
            by_name = {name: (sizes, [row[column] for row in rows if row["policy"] == name]) for name in POLICIES}
            curves(at, by_name, "contending clients", label, log="y" if column != "calls" else "")  # type: ignore[arg-type]
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        written(folder / "contention.svg", figure)
    return rows


def _check_contention(rows: list[dict[str, object]]) -> None:
    at = {(row["clients"], row["policy"]): row for row in rows}

    def calls(name: str, clients: int = 100) -> float:
        return float(at[clients, name]["calls"])  # type: ignore[arg-type]

    def seconds(name: str) -> float:
        return float(at[100, name]["s to finish"])  # type: ignore[arg-type]

    exponent = math.log2(calls("no backoff") / calls("no backoff", 50))
    said = {
        f"without backoff, calls grow as the square of the clients (here to the power {exponent:.2f})": 1.7
        < exponent
        < 2.2,
        "full jitter makes less than half the calls of no jitter": calls("full jitter")
        < calls("exponential, no jitter") / 2,
        "no jitter takes the longest": seconds("exponential, no jitter") == max(map(seconds, POLICIES)),
        "equal jitter takes longer than full": seconds("equal jitter") > seconds("full jitter"),
        "equal jitter makes about as many calls as full, or slightly more": 0.98
        < calls("equal jitter") / calls("full jitter")
        < 1.15,
        "decorrelated makes more calls than full, and takes no longer than 1.1 of it": calls("decorrelated jitter")
        > calls("full jitter")
        and seconds("decorrelated jitter") < 1.1 * seconds("full jitter"),
    }
    for claim, holds in said.items():
        print(f"{'yes' if holds else 'NO '}  {claim}")
    if not all(said.values()):
        raise SystemExit("a published result was not met")


def main() -> None:
    """Simulate and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fleets up to 10^4, fewer runs")
    parser.add_argument("--json", metavar="FILE", help="storms here, the contention beside it as …-contention")
    parser.add_argument("--plots", metavar="FOLDER", type=Path)
    given = parser.parse_args()
    rows = contention(
        [10, 20, 50, 100] if given.quick else [10, 20, 50, 100, 150, 200], 30 if given.quick else 100, given.plots
    )
    beside = given.json and str(Path(given.json).with_name(f"{Path(given.json).stem}-contention.json"))
    report("Contention for one row, as AWS measured it", rows, beside)
    sizes = [10**power for power in range(2, 5 if given.quick else 7)]
    report("A service that fails for 60 s", storms(sizes, given.plots), given.json)


if __name__ == "__main__":
    main()
