"""What share of what the machine allows the library reaches, measured side by side in one run.

    python benchmarks/limits.py [--backend redis|sqlite] [--only W1,W2] [--n 20000] [--runs 3] [--json FILE]

On Redis the library's commands are recorded, and sent once more to a fresh server by a bare hiredis loop: the same
scripts, bytes and round trips without a library. Beside it ``redis-benchmark`` (Debian: redis-tools) sends as many
SETs, or asks as many GETs, of as many bytes on one connection: what the server takes to do next to nothing. On SQLite
the limit is a bare loop of executemany and commit into the same tables and indexes.

Works are W1 (enqueue one by one, from 64 coroutines, in bulk) and W2 (drain). A figure is the median of the runs.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import logging
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import _bare_sqlite
import _work
from _figures import Found
from _replay import LIMITS, WORKS, benchmarked, library, recorded, replayed
from _stores import STORES
from report import report

_SHARE = {"one by one": 10}  # these run with n divided by it
_SQLITE: Mapping[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "W1 one by one": (_work.enqueue_one_by_one, _bare_sqlite.inserting("limit", 1)),
    "W1 64 coroutines": (_work.enqueue_by_64, _bare_sqlite.inserting("limit", 100)),
    "W1 bulk": (_work.enqueue_in_bulk, _bare_sqlite.inserting("limit", 100)),
    "W2 drain": (_work.drain, _bare_sqlite.draining("limit", 100)),
}
_BARE = "bare executemany and commit, as many rows a commit"


def _measured(backend: str, measure: Callable[..., Any], n: int) -> float:
    store = STORES[backend]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            answer = measure(store, folder, n)
            found: Found = asyncio.run(answer) if inspect.iscoroutine(answer) else answer
            return next(iter(found.values())).value
        finally:
            store.end(folder)


def _on_sqlite(work: str, n: int) -> dict[str, float]:
    ours, bare = _SQLITE[work]
    return {"library": _measured("sqlite", ours, n), _BARE: _measured("sqlite", bare, n)}


def _on_redis(work: str, n: int) -> tuple[dict[str, float], dict[str, float]]:
    """Rates, and what one task costs on the wire."""
    store = STORES["redis"]

    def fresh(measure: Callable[..., Any], *arguments: Any) -> Any:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                return measure(store, folder, work, n, *arguments)
            finally:
                store.end(folder)

    rates = {"library": fresh(library)}
    tape = fresh(recorded)
    rates[LIMITS[0]] = fresh(replayed, tape)
    rate = fresh(benchmarked, tape)
    if rate is not None:
        rates[LIMITS[1]] = rate
    return rates, tape.per_task(n)


def _works(only: str | None) -> list[str]:
    wanted = only.split(",") if only else ["W1", "W2"]
    if unknown := set(wanted) - {work[:2] for work in WORKS}:
        raise SystemExit(f"--only: {', '.join(sorted(unknown))} is none of W1, W2")
    return [work for work in WORKS if work[:2] in wanted]


def _shares(work: str, runs: list[dict[str, float]], wire: dict[str, float]) -> list[dict[str, object]]:
    """A line for each limit: the medians, and the one as a share of the other."""
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    ours = median.pop("library")
    return [
        {"work": work, "tasks/s": ours, "limit": limit, "limit, tasks/s": rate, "share": ours / rate, **wire}
        for limit, rate in median.items()
    ]


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("redis", "sqlite"), default="redis")
    parser.add_argument("--only", help="comma-separated: W1, W2")
    parser.add_argument("--n", type=int, default=20_000, help="tasks of a work; slow ones get a share of it")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    given = parser.parse_args()
    logging.disable()
    works = _works(given.only)
    found: dict[str, list[dict[str, float]]] = {work: [] for work in works}
    wire: dict[str, dict[str, float]] = {}
    for _ in range(given.runs):
        for work in random.sample(works, len(works)):
            n = max(10, given.n // _SHARE.get(work[3:], 1))
            if given.backend == "sqlite":
                found[work].append(_on_sqlite(work, n))
            else:
                rates, wire[work] = _on_redis(work, n)
                found[work].append(rates)
    rows = [row for work, runs in found.items() for row in _shares(work, runs, wire.get(work, {}))]
    report(f"deadletter's share of the limits on {given.backend}, n = {given.n:,}", rows, given.json)
    os._exit(0)  # what listens in a thread of a library's run does not hold us up


if __name__ == "__main__":
    main()
