"""The tests of a room, collected once; then each mutant in a forked child that runs what reaches it, until one fails.

Nothing is run in the collecting process itself, so that it has no thread, no server and no state when it forks.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import math
import os
import pickle
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import attrs
import pytest

from ..proof import page
from .schema import SWITCH, Mutant, schema_of

SLOWEST = 20.0  # seconds of processor time of a mutant's tests; beyond that it hangs, and hanging is noticed
WAITS = 120.0  # seconds by the clock for what waits for ever: many, for the machine may be busy with others
AT_ONCE = 2


@attrs.define
class Switch:
    """Which mutant is on, and which were met."""

    on: int = -1
    met: set[int] = attrs.field(factory=set)

    def __call__(self, number: int) -> bool:
        self.met.add(number)
        return number == self.on


SWITCHED = Switch()


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports chosen modules with all of their mutants in them."""

    def __init__(self, modules: dict[str, Path], root: Path) -> None:
        self._modules = modules
        self.mutants: list[Mutant] = []
        self._code: dict[str, Any] = {}
        for name, path in modules.items():
            tree, found = schema_of(path, path.relative_to(root).as_posix(), len(self.mutants))
            self.mutants += found
            self._code[name] = compile(tree, str(path), "exec")

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Ours, where it is one of them."""
        if fullname not in self._modules:
            return None
        place = self._modules[fullname]
        within = [str(place.parent)] if place.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(fullname, place, loader=self, submodule_search_locations=within)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """As usual."""

    def exec_module(self, module: ModuleType) -> None:
        """Run it with the switches."""
        exec(self._code[module.__name__], module.__dict__)


def install(modules: dict[str, Path], root: Path) -> Finder:
    """From here on these modules are imported with their mutants, none of which is on."""
    finder = Finder(modules, root)
    setattr(builtins, SWITCH, SWITCHED)
    sys.meta_path.insert(0, finder)
    return finder


@attrs.frozen
class Verdict:
    """What became of a mutant: killed (by whom), survived, hangs, unreached."""

    mutant: Mutant
    word: str
    by: str | None
    seconds: float


class Plugin:
    """Replaces the loop that runs tests."""

    def __init__(self, mutants: Sequence[Mutant], kept: Path, tell: Callable[[Verdict], None], until: float) -> None:
        self._mutants = mutants
        self._kept = kept
        self._tell = tell
        self._until = until

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        """A mutant is killed by the first example that fails; nobody reads the smallest."""
        from hypothesis import Phase, settings  # not before pytest, which rewrites its plugin

        settings.register_profile(
            "mutation", deadline=None, database=None, derandomize=True, phases=(Phase.explicit, Phase.generate)
        )
        settings.load_profile("mutation")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Everything."""
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} modules could not be collected")
        reach = self._reach(session)
        waiting = iter(self._mutants)
        running: dict[int, tuple[Mutant, BinaryIO, float, float]] = {}
        mutant = next(waiting, None)
        while running or mutant is not None:
            if mutant is not None and len(running) < AT_ONCE and time.monotonic() < self._until:
                tests = reach.get(mutant.number, [])
                if not tests:
                    self._tell(Verdict(mutant, "unreached", None, 0.0))
                else:
                    limit = min(SLOWEST, 5 + 10 * sum(seconds for _, seconds in tests))
                    pid, pipe = _forked(session, [at for at, _ in tests], mutant.number, math.ceil(limit))
                    running[pid] = (mutant, pipe, time.monotonic(), WAITS)
                mutant = next(waiting, None)
            elif running:
                self._collect(running)
            else:
                break
        return True

    def _collect(self, running: dict[int, tuple[Mutant, BinaryIO, float, float]]) -> None:
        select.select([pipe for _, pipe, _, _ in running.values()], [], [], 0.05)
        for pid, (mutant, pipe, began, limit) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            took = time.monotonic() - began
            if not ended and took < limit:
                continue
            _end_group(pid)
            if not ended:
                os.waitpid(pid, 0)
            told = pipe.read().decode() if ended else ""
            pipe.close()
            code = os.waitstatus_to_exitcode(status) if ended else -signal.SIGXCPU
            word = {0: "survived", -signal.SIGXCPU: "hangs"}.get(code, "killed")
            self._tell(Verdict(mutant, word, told or None, round(took, 2)))
            del running[pid]

    def _reach(self, session: pytest.Session) -> dict[int, list[tuple[int, float]]]:
        """Which tests meet each mutant, the quickest first: kept for the next run, as long as the sources are the same."""
        source = page.source()
        if self._kept.exists():
            told = pickle.loads(self._kept.read_bytes())
            if told["source"] == source:
                found: dict[int, list[tuple[int, float]]] = told["reach"]
                return found
        reach = self._reached(session)
        if not source.endswith("+"):
            self._kept.parent.mkdir(exist_ok=True)
            self._kept.write_bytes(pickle.dumps({"source": source, "reach": reach}))
        return reach

    def _reached(self, session: pytest.Session) -> dict[int, list[tuple[int, float]]]:
        """Find it out; the tests must pass, or nothing would be proved."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            os.setsid()
            code = 1
            with contextlib.suppress(BaseException):
                met = _run(session, range(len(session.items)), stop=False)
                with os.fdopen(write, "wb") as pipe:
                    pickle.dump(met, pipe)
                code = 0
            os._exit(code)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            told = pipe.read()
        os.waitpid(pid, 0)
        _end_group(pid)
        runs: list[_Run] = pickle.loads(told)
        failed = [session.items[run.at].nodeid for run in runs if run.failed]
        if failed:
            raise session.Failed(f"without any mutant {len(failed)} tests fail: {failed[:3]}")
        reach: dict[int, list[tuple[int, float]]] = {}
        for run in sorted(runs, key=lambda run: run.seconds):
            for number in run.met:
                reach.setdefault(number, []).append((run.at, run.seconds))
        return reach


@attrs.frozen
class _Run:
    at: int
    failed: bool
    seconds: float
    met: frozenset[int]


def _forked(session: pytest.Session, tests: Sequence[int], number: int, seconds: int) -> tuple[int, BinaryIO]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.setsid()
        code = 1
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
            SWITCHED.on = number
            runs = _run(session, tests, stop=True)
            failed = [run.at for run in runs if run.failed]
            os.write(write, session.items[failed[0]].nodeid.encode() if failed else b"")
            code = int(bool(failed))
        os._exit(code)
    os.close(write)
    return pid, os.fdopen(read, "rb")


def _run(session: pytest.Session, tests: Sequence[int], *, stop: bool) -> list[_Run]:
    """Run tests in this process; what each met."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(devnull, descriptor)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reporter._tw._file = open(os.devnull, "w")  # noqa: SIM115 - as long as this process lives
    watch = _Watch()
    session.config.pluginmanager.register(watch)
    runs: list[_Run] = []
    for place, at in enumerate(tests):
        item = session.items[at]
        after = session.items[tests[place + 1]] if place + 1 < len(tests) else None
        SWITCHED.met, watch.failed = set(), False
        began = time.perf_counter()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        runs.append(_Run(at, watch.failed, time.perf_counter() - began, frozenset(SWITCHED.met)))
        if watch.failed and stop:
            break
    return runs


class _Watch:
    failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        self.failed = self.failed or report.failed


def _end_group(pid: int) -> None:
    """End what a child has started and left behind; the group is its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
