"""What the library costs and how late it is, beside what the machine allows and the fastest peer.

    python benchmarks/throughput.py --backend memory|sqlite|redis [--only W1,W2] [--n 20000] [--runs 3] [--json FILE]

W1 enqueue, W2 drain, W3 fail to dead with full tracebacks, W4 idle wake-up, W5 retry lateness, W6 kill -9 midway,
``memory``, ``import``, and ``letters``: looking at and purging as many dead letters as ``--letters`` says.

Each measurement has a process and a store of its own, and their order is shuffled; a figure is the median of the runs.
Compare ratios and CPU times: wall clocks follow whatever else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import attrs
from _figures import Figure, Found, Measured, table
from _stores import STORES
from report import report


@attrs.frozen
class Case:
    """Something to run; ``module`` is imported only where it runs.

    Attributes:
        only: by what ``--only`` names it.
        measure: gets the store, an empty folder and n; makes figures.
        share: it runs with n divided by this.
        most: it runs with no more than this.
        backends: where it means anything.
        needs: a module that may be missing; then it is left out.
    """

    only: str
    measure: Callable[[], Callable[..., Any]]
    share: int = 1
    most: int = 1_000_000
    backends: tuple[str, ...] = ("memory", "sqlite", "redis")
    needs: str | None = None


def _of(module: str, name: str, *arguments: Any, **options: Any) -> Callable[[], Callable[..., Any]]:
    def load() -> Callable[..., Any]:
        found = getattr(__import__(module), name)
        return found(*arguments, **options) if arguments else found  # type: ignore[no-any-return]

    return load


SQLITE, REDIS, SHARED = ("sqlite",), ("redis",), ("sqlite", "redis")
CASES: Mapping[str, Case] = {
    "one by one": Case("W1", _of("_work", "enqueue_one_by_one"), share=10),
    "64 coroutines": Case("W1", _of("_work", "enqueue_by_64")),
    "bulk": Case("W1", _of("_work", "enqueue_in_bulk")),
    "bare one": Case("W1", _of("_bare_sqlite", "inserting", "W1 bare, 1 a commit", 1), share=10, backends=SQLITE),
    "bare 100": Case("W1", _of("_bare_sqlite", "inserting", "W1 bare, 100 a commit", 100), backends=SQLITE),
    "bare EVALSHA": Case("W1", _of("_bare_redis", "one_by_one"), share=4, backends=REDIS),
    "bare EVALSHAs": Case("W1", _of("_bare_redis", "in_pipelines"), backends=REDIS),
    "dramatiq enqueues": Case("W1", _of("_dramatiq", "enqueue"), 4, backends=REDIS, needs="dramatiq"),
    "dramatiq drains": Case("W2", _of("_dramatiq", "measure", "W2 dramatiq"), 2, backends=REDIS, needs="dramatiq"),
    "dramatiq fails": Case(
        "W3", _of("_dramatiq", "measure", "W3 dramatiq", fails=True), 10, backends=REDIS, needs="dramatiq"
    ),
    "huey enqueues": Case("W1", _of("_huey", "enqueue"), 4, backends=REDIS, needs="huey"),
    "drain": Case("W2", _of("_work", "drain")),
    "huey on Redis": Case("W2", _of("_huey", "measure", "W2 huey on Redis"), 2, backends=REDIS, needs="huey"),
    "bare drain": Case("W2", _of("_bare_sqlite", "draining", "W2 bare, 100 a commit", 100), backends=SQLITE),
    "huey drain": Case("W2", _of("_huey", "measure", "W2 huey FULL", fsync=True), 8, backends=SQLITE, needs="huey"),
    "huey off": Case("W2", _of("_huey", "measure", "W2 huey OFF", fsync=False), backends=SQLITE, needs="huey"),
    "fail": Case("W3", _of("_work", "fail_to_dead"), share=4),
    "huey fails": Case(
        "W3", _of("_huey", "measure", "W3 huey FULL", fsync=True, fails=True), 40, backends=SQLITE, needs="huey"
    ),
    "huey fails on Redis": Case(
        "W3", _of("_huey", "measure", "W3 huey on Redis", fails=True), 10, backends=REDIS, needs="huey"
    ),
    "wake same": Case("W4", _of("_other", "wake_same"), share=100, most=500),
    "wake other": Case("W4", _of("_other", "wake_other"), share=100, most=500, backends=SHARED),
    "retry": Case("W5", _of("_work", "retry_lateness"), share=100, most=500),
    "kill": Case("W6", _of("_other", "kill"), most=1_000, backends=SHARED),
    "memory": Case("memory", _of("_work", "memory")),
    "import": Case("import", _of("decorator", "cases")),
    "letters": Case("letters", _of("_letters", "letters")),
}

_PAGE = Figure("ms", goals={"sqlite": "value <= 5"})
_FILTERED = Figure("ms", goals={"sqlite": "value <= 10"})
_SEARCH = Figure("letters/s", goals={"sqlite": "value >= 100000"})
FIGURES: Mapping[str, Figure] = {
    "W1 one by one": Figure(
        "tasks/s",
        ("W1 bare, 1 a commit", "W1 bare EVALSHA"),
        {"sqlite": "ratio >= 0.7", "memory": "value >= 100000", "redis": "ratio >= 0.9"},
    ),
    "W1 64 coroutines": Figure(
        "tasks/s",
        ("W1 bare, 1 a commit",),
        {"sqlite": "ratio >= 10", "redis": "ratio >= 3"},
        peers=("W1 dramatiq", "W1 huey on Redis"),
    ),
    "W1 bulk": Figure(
        "tasks/s",
        ("W1 bare, 100 a commit",),
        {"sqlite": "ratio >= 0.4", "redis": "ratio >= 3"},
        peers=("W1 dramatiq", "W1 huey on Redis"),
    ),
    "W1 bare EVALSHA": Figure("tasks/s"),
    "W1 bare EVALSHA, 100 a pipeline": Figure("tasks/s"),
    "W1 huey on Redis": Figure("tasks/s"),
    "W1 dramatiq": Figure("tasks/s"),
    "W2 dramatiq": Figure("tasks/s"),
    "W3 dramatiq": Figure("tasks/s"),
    "W1 bare, 1 a commit": Figure("tasks/s"),
    "W1 bare, 100 a commit": Figure("tasks/s"),
    "W2 drain": Figure(
        "tasks/s",
        ("W2 huey FULL",),
        {"sqlite": "ratio >= 6", "memory": "value >= 100000", "redis": "ratio >= 6"},
        peers=("W2 dramatiq", "W2 huey on Redis"),
    ),
    "W2 huey on Redis": Figure("tasks/s"),
    "W2 bare, 100 a commit": Figure("tasks/s"),
    "W2 huey FULL": Figure("tasks/s"),
    "W2 huey OFF": Figure("tasks/s", ("W2 drain",), {"sqlite": "ratio <= 1"}),
    "W3 fail to dead": Figure(
        "tasks/s",
        ("W3 huey FULL",),
        {"sqlite": "ratio >= 5", "redis": "ratio >= 5"},
        peers=("W3 dramatiq", "W3 huey on Redis"),
    ),
    "W3 huey on Redis": Figure("tasks/s"),
    "W3 huey FULL": Figure("tasks/s"),
    "W4 wake-up in the same process, p50": Figure("ms"),
    "W4 wake-up in the same process, p99": Figure("ms", goals={"sqlite": "value <= 1", "memory": "value <= 1"}),
    "W4 wake-up in the same process, most": Figure("ms"),
    "W4 wake-up in another process, p50": Figure("ms", goals={"redis": "value <= 0.5"}),
    "W4 wake-up in another process, p99": Figure("ms", goals={"sqlite": "value <= 20", "redis": "value <= 2"}),
    "W4 wake-up in another process, most": Figure("ms"),
    "W4 idle CPU": Figure("% of a core", goals={"sqlite": "value <= 0.5", "redis": "value <= 0.2"}),
    "W5 retry lateness, p50": Figure("ms", goals={"redis": "value <= 1.5"}),
    "W5 retry lateness, p99": Figure(
        "ms", goals={"sqlite": "value <= 20", "memory": "value <= 20", "redis": "value <= 5"}
    ),
    "W5 retry lateness, most": Figure("ms"),
    "W5 retry lateness, least": Figure(
        "ms", goals={"sqlite": "value >= -1", "memory": "value >= -1", "redis": "value >= -1"}
    ),
    "W6 lost": Figure("tasks", goals={"sqlite": "value <= 0", "redis": "value <= 0"}),
    "W6 all back": Figure("s after kill and lease", goals={"sqlite": "value <= 1", "redis": "value <= 1"}),
    "W6 run twice": Figure("tasks"),
    "memory, a pending task": Figure("B", goals={"redis": "value <= 700"}),
    "memory, a dead letter": Figure("B", goals={"redis": "value <= 1500"}),
    "decorator, sync call": Figure("µs added", goals={"sqlite": "value <= 0.5", "memory": "value <= 0.5"}),
    "decorator, async call": Figure("µs added", goals={"sqlite": "value <= 0.5", "memory": "value <= 0.5"}),
    "import asyncio": Figure("ms"),
    "import DeadLetterQueue, Task": Figure("ms", ("import asyncio",), {"sqlite": "ratio <= 2", "memory": "ratio <= 2"}),
    "import dead_lettered": Figure("ms", ("import asyncio",)),
    "letters stored": Figure("letters/s"),
    "letters: bare page of 50": Figure("ms"),
    "letters: page of 50": _PAGE,
    "letters: next page of 50": _PAGE,
    "letters: page by type": _FILTERED,
    "letters: page by priority": _FILTERED,
    "letters: page by fingerprint": _FILTERED,
    "letters: page by time": _FILTERED,
    "letters: page by type and priority": Figure("ms"),
    "letters: search of error text": _SEARCH,
    "letters: search of a payload path": _SEARCH,
    "letters: page of text that is nowhere": _SEARCH,
    "letters: groups by fingerprint": _SEARCH,
    "letters: groups by type": _SEARCH,
    "letters: purge of all": Figure("letters/s"),
    "letters: purge of all, memory": Figure("MB grown", goals={"sqlite": "value <= 50"}),
}


def here(backend: str, case: str, n: int) -> Found:
    """Measure a case in this process."""
    logging.disable()
    measure = CASES[case].measure()
    store = STORES[backend]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            answer = measure(store, folder, n)
            return asyncio.run(answer) if inspect.iscoroutine(answer) else answer
        finally:
            store.end(folder)


def apart(backend: str, case: str, n: int) -> Found:
    """Measure a case in a process of its own."""
    command = [sys.executable, __file__, "--backend", backend, "--one", case, "--n", str(n)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {name: Measured(*values) for name, values in json.loads(done.stdout.splitlines()[-1]).items()}


def asked(given: argparse.Namespace) -> list[tuple[str, int]]:
    """The cases of one run, each with its n."""
    only = given.only.split(",") if given.only else list({case.only: None for case in CASES.values()})
    unknown = set(only) - {case.only for case in CASES.values()}
    if unknown:
        raise SystemExit(
            f"--only: {', '.join(sorted(unknown))} is none of {', '.join({c.only for c in CASES.values()})}"
        )
    found: list[tuple[str, int]] = []
    for name, case in CASES.items():
        if case.only not in only or given.backend not in case.backends or (case.needs and not find_spec(case.needs)):
            continue
        if name == "letters":
            found += [(name, int(size)) for size in given.letters.split(",")]
        else:
            found.append((name, max(10, min(case.most, given.n // case.share))))
    return found


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=STORES, default="sqlite")
    parser.add_argument("--only", help="comma-separated: W1 to W6, memory, import, letters")
    parser.add_argument("--n", type=int, default=20_000, help="tasks of a measurement; slow ones get a share of it")
    parser.add_argument("--letters", default="1000,100000", help="comma-separated numbers of dead letters")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--here", action="store_true", help="in this process: quicker, less clean")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(__import__("_other").work(*given.work))
    elif given.one:
        found = here(given.backend, given.one, given.n)
        print(json.dumps({name: attrs.astuple(measured) for name, measured in found.items()}), flush=True)
        os._exit(0)  # a peer's threads do not end by themselves
    else:
        measure = here if given.here else apart
        runs: list[Found] = []
        for _ in range(given.runs):
            cases = asked(given)
            random.shuffle(cases)
            runs.append({})
            for case, n in cases:
                runs[-1] |= measure(given.backend, case, n)
        report(f"deadletter on {given.backend}, n = {given.n:,}", table(runs, FIGURES, given.backend), given.json)


if __name__ == "__main__":
    main()
