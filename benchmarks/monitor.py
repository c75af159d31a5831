"""Does a monitor slow workers down? Tasks drained, some of which die, with a monitor beside them and without.

    python benchmarks/monitor.py [--n 20000] [--dying 0.05] [--runs 5] [--url URL] [--json FILE]

The monitor is a process of its own, as in production. Runs alternate; each figure is the median, in tasks a second.
``--url`` names another store than a new SQLite file; what the benchmark's queues hold there is left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import anyio
from report import report

from deadletter import DeadLetterQueue, PermanentError, Task
from deadletter.alerts import LogAlerter, Monitor, delivered


async def watch(url: str, name: str) -> None:
    async with DeadLetterQueue(url, name=name) as dlq:
        monitor = Monitor(dlq, [LogAlerter()], group_wait=1, group_interval=5)
        async with monitor:
            while not monitor.elected:
                await anyio.sleep(0.01)
            print("watches", flush=True)
            await anyio.sleep_forever()


@contextlib.contextmanager
def watched(url: str, name: str, *, on: bool) -> Iterator[None]:
    if not on:
        yield
        return
    command = [sys.executable, __file__, "--url", url, "--watch", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "watches\n"
            yield
        finally:
            process.kill()


async def drain(url: str, name: str, n: int, dying: float, *, on: bool) -> float:
    async with DeadLetterQueue(url, name=name) as dlq:
        every = round(1 / dying) if dying else n + 1

        @dlq.processor("noop")
        async def run(task: Task) -> None:
            if task.payload["n"] % every == 0:
                raise PermanentError("cannot be")

        await dlq.enqueue_many([Task(type="noop", payload={"n": at}) for at in range(1, n + 1)])
        with watched(url, name, on=on):
            began = time.perf_counter()
            await dlq.worker().run_until_idle()
            taken = time.perf_counter() - began
            if on and dying:
                with anyio.fail_after(30):
                    while not await delivered(dlq):  # it did watch
                        await anyio.sleep(0.05)
    return n / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--dying", type=float, default=0.05, help="the share that dies")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--url")
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    parser.add_argument("--json")
    options = parser.parse_args()
    if options.watch:
        anyio.run(watch, options.url, options.watch)
        return
    figures: dict[bool, list[float]] = {False: [], True: []}
    for number in range(options.runs):
        for on in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                url = options.url or f"sqlite:///{folder}/bench.db"
                name = f"bench-{time.time_ns()}-{number}"
                run = lambda: drain(url, name, options.n, options.dying, on=on)  # noqa: B023, E731 - run at once
                figures[on].append(anyio.run(run))
    medians = {on: statistics.median(values) for on, values in figures.items()}
    rows = [
        {
            "monitor": "on" if on else "off",
            "tasks a second": medians[on],
            "least": min(values),
            "most": max(values),
            "ratio to off": medians[on] / medians[False],
        }
        for on, values in figures.items()
    ]
    report(f"{options.n:,} tasks drained, {options.dying:.0%} of them die", rows, options.json)


if __name__ == "__main__":
    main()
