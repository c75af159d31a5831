"""Runs batches in processes of their own, writes down each that is done, and goes on there when it is started again."""

from __future__ import annotations

import json
import logging
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import attrs

from . import page
from .parts import PARTS

AT_ONCE = 2


@attrs.frozen
class Done:
    """A batch that ended."""

    part: str
    seed: int
    count: int
    seconds: float
    ended: str
    failed: str | None


def line(part: str, seed: int) -> str:
    """What runs a batch again, alone."""
    return f"python -m tests.proof --part {part} --seed {seed}"


def batch(part: str, seed: int) -> Done:
    """Run one here."""
    logging.disable(logging.WARNING)
    began = time.monotonic()
    count, failed = 0, None
    try:
        count = PARTS[part].batch(seed)
    except BaseException:
        failed = f"{traceback.format_exc()}\n{line(part, seed)}  # runs it again"
    return Done(part, seed, count, round(time.monotonic() - began, 2), page.now(), failed)


class Log:
    """What is done of one state of the sources, a line a batch, so that a run that is cut off loses none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done: dict[tuple[str, int], Done] = {}
        self.began, self.commit = page.now(), page.commit()
        source = page.source()
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        head = json.loads(lines[0]) if lines else {}
        if head.get("source") == source:
            self.began, self.commit = head["began"], head["commit"]
            for told in map(json.loads, lines[1:]):
                done = Done(**told)
                if done.failed is None:
                    self.done[done.part, done.seed] = done
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"source": source, "commit": self.commit, "began": self.began}) + "\n", "utf-8")

    def enter(self, done: Done) -> None:
        """Write one down."""
        self.done[done.part, done.seed] = done
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(attrs.asdict(done)) + "\n")


def wanted(parts: list[str], log: Log, *, long: bool) -> list[tuple[str, int]]:
    """The batches that are not done yet, all parts alike far on at any time: one of each comes first."""
    total = {name: PARTS[name].batches(long=long) for name in parts}
    every = [(seed / total[name], name, seed) for name in parts for seed in range(total[name])]
    return [(name, seed) for _, name, seed in sorted(every) if (name, seed) not in log.done]


def run(todo: list[tuple[str, int]], log: Log, *, minutes: float, tell: Callable[[Done], None]) -> None:
    """Do them, two at a time, as long as there is time."""
    until = time.monotonic() + minutes * 60
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn"), max_tasks_per_child=None) as pool:
        for done in _each(pool, iter(todo), until):
            log.enter(done)
            tell(done)


def _each(pool: ProcessPoolExecutor, todo: Iterator[tuple[str, int]], until: float) -> Iterator[Done]:
    running: set[Future[Done]] = set()
    more = True
    while True:
        while more and len(running) < AT_ONCE:
            chosen = next(todo, None) if time.monotonic() < until else None
            more = chosen is not None
            if chosen is not None:
                running.add(pool.submit(batch, *chosen))
        if not running:
            return
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            yield future.result()


def figures(log: Log, *, long: bool) -> dict[str, Any]:
    """What the page shows."""
    told: dict[str, Any] = {}
    for name, part in PARTS.items():
        mine = [done for (which, _), done in log.done.items() if which == name]
        good = [done for done in mine if done.failed is None]
        told[name] = {
            "measure": part.measure,
            "wanted": part.long if long else part.short,
            "count": sum(done.count for done in good),
            "seeds": [min(done.seed for done in good), max(done.seed for done in good)] if good else None,
            "seconds": round(sum(done.seconds for done in mine), 1),
            "failed": [line(done.part, done.seed) for done in mine if done.failed is not None],
        }
    ends = [done.ended for done in log.done.values()]
    return {
        "commit": log.commit,
        "machine": page.machine(),
        "began": log.began,
        "ended": max(ends, default=log.began),
        "parts": told,
    }
