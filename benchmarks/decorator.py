"""What ``@dead_lettered`` adds to a call that succeeds, and what importing deadletter costs beside asyncio.

The bare and the decorated function take turns within one run, so that a busy machine slows both. Goals: at most 0.5 µs
over the bare call, and an import that takes at most twice as long as asyncio's.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from _figures import Found, Measured
from _stores import Store
from report import Row, report

from deadletter import DeadLetterQueue, dead_lettered

CALLS = 1_000  # few, so that some runs fit between what else the machine does


def add(left: int, right: int = 1) -> int:
    return left + right


async def add_async(left: int, right: int = 1) -> int:
    return left + right


def time_sync(function: Callable[..., Any]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        function(1, 2)
    return (time.perf_counter() - began) / CALLS * 1e6


def time_async(function: Callable[..., Any]) -> float:
    async def call() -> float:
        began = time.perf_counter()
        for _ in range(CALLS):
            await function(1, 2)
        return (time.perf_counter() - began) / CALLS * 1e6

    return asyncio.run(call())


def time_import(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return (time.perf_counter() - began) * 1e3


def compare(what: str, unit: str, runs: int, base: Callable[[], float], ours: Callable[[], float]) -> Row:
    """The best of several runs of each, one after the other: whatever else runs here only ever adds."""
    pairs = [(base(), ours()) for _ in range(runs)]
    bare, taken = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    return {"what": what, "unit": unit, "base": bare, "ours": taken, "added": taken - bare, "ratio": taken / bare}


def cases(store: Store, folder: str, n: int) -> Found:
    """The same for ``throughput.py``."""
    del store, folder
    runs = max(1, min(300, n // 100))
    dlq = DeadLetterQueue("memory://")
    ours, ours_async = dead_lettered(dlq, name="add")(add), dead_lettered(dlq, name="add_async")(add_async)
    sync = compare("", "µs", runs, lambda: time_sync(add), lambda: time_sync(ours))
    of_async = compare("", "µs", runs, lambda: time_async(add_async), lambda: time_async(ours_async))
    found = {
        "decorator, sync call": Measured(sync["added"]),
        "decorator, async call": Measured(of_async["added"]),
    }
    statements = {
        "import asyncio": "import asyncio",
        "import DeadLetterQueue, Task": "from deadletter import DeadLetterQueue, Task",
        "import dead_lettered": "from deadletter import dead_lettered",
    }
    taken: dict[str, list[float]] = {figure: [] for figure in statements}
    for _ in range(max(1, runs // 20)):
        for figure, statement in statements.items():
            taken[figure].append(time_import(statement))
    return found | {figure: Measured(min(times)) for figure, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    dlq = DeadLetterQueue("memory://")
    ours, ours_async = dead_lettered(dlq, name="add")(add), dead_lettered(dlq, name="add_async")(add_async)
    imports = "from deadletter import DeadLetterQueue, Task", "from deadletter import dead_lettered"
    time_import("import asyncio")
    rows = [
        compare("sync call", "µs", options.runs, lambda: time_sync(add), lambda: time_sync(ours)),
        compare("async call", "µs", options.runs, lambda: time_async(add_async), lambda: time_async(ours_async)),
    ]
    rows += [
        compare(
            statement,
            "ms",
            max(1, options.runs // 20),
            functools.partial(time_import, "import asyncio"),
            functools.partial(time_import, statement),
        )
        for statement in imports
    ]
    report("The success path of @dead_lettered over the bare call; imports over asyncio's", rows, options.json)


if __name__ == "__main__":
    main()
