"""How much slower is a claim when a great many rows of a type that nobody here knows lie in front?

    python benchmarks/claim_behind.py [--n 1000000] [--claims 300] [--json FILE]

The median of claims (one row each, at synchronous=FULL) on a file without those rows and on one with them, in turns.
Exit 1 where the ratio is over 1.5.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import anyio
from report import report

from deadletter.backends.sqlite import SQLiteBackend
from deadletter.model.row import BATCH, Claim, NewRow

QUEUE = "default"
MOST = 1.5


async def fill(backend: SQLiteBackend, type_: str, n: int) -> None:
    """Insert n rows, a thousand in a commit."""
    for start in range(0, n, 10 * BATCH):
        async with anyio.create_task_group() as group:
            for at in range(start, min(n, start + 10 * BATCH), BATCH):
                rows = [NewRow(id=f"{type_}-{i}", type=type_, body=b"{}") for i in range(at, min(n, at + BATCH))]
                group.start_soon(backend.insert, QUEUE, rows)


async def claim(backend: SQLiteBackend, number: int) -> float:
    """Milliseconds of one claim."""
    began = time.perf_counter()
    claimed = await backend.claim(QUEUE, Claim(op=f"op{number}", types=["known"], owner="bench"))
    took = time.perf_counter() - began
    if [row.type for row in claimed.rows] != ["known"]:
        raise SystemExit(f"claim {number} got {claimed.rows}")
    return took * 1000


async def measure(folder: str, n: int, claims: int) -> dict[int, list[float]]:
    """Claim times by the number of rows in front."""
    backends = {ahead: SQLiteBackend(Path(folder) / f"{ahead}.db") for ahead in (0, n)}
    for ahead, backend in backends.items():
        await fill(backend, "unknown", ahead)
        await fill(backend, "known", claims)
    times: dict[int, list[float]] = {ahead: [] for ahead in backends}
    for number in range(claims):
        for ahead, backend in backends.items():
            times[ahead].append(await claim(backend, number))
    for backend in backends.values():
        await backend.aclose()
    return times


def main() -> None:
    """Fill, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--claims", type=int, default=300)
    parser.add_argument("--json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = anyio.run(measure, folder, given.n, given.claims)
    alone = statistics.median(times[0])
    rows = [
        {
            "rows in front": ahead,
            "median ms": statistics.median(taken),
            "p90 ms": statistics.quantiles(taken, n=10)[-1],
            "ratio": statistics.median(taken) / alone,
        }
        for ahead, taken in times.items()
    ]
    report("A claim behind rows of an unknown type, SQLite FULL", rows, given.json)
    if rows[-1]["ratio"] > MOST:
        raise SystemExit(f"{rows[-1]['ratio']:.2f} × is more than {MOST} ×")


if __name__ == "__main__":
    main()
