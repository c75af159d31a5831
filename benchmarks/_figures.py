"""What a benchmark measured, and how it is told: one figure a line, beside its limit or peer, with its goal."""

from __future__ import annotations

import operator
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import attrs

_SIGNS: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@attrs.frozen
class Measured:
    """A value; ``cpu_us`` is the CPU time per task in µs, of all threads of the process, where it is a rate."""

    value: float
    cpu_us: float | None = None


Found = dict[str, Measured]  # by figure


class Stopwatch:
    """Wall and CPU seconds of a ``with`` block."""

    wall = cpu = 0.0

    def __enter__(self) -> Self:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.wall = time.perf_counter() - self._began[0]
        self.cpu = time.process_time() - self._began[1]

    def rate(self, n: int) -> Measured:
        """So many a second."""
        return Measured(n / self.wall, self.cpu / n * 1e6)

    @property
    def ms(self) -> Measured:
        """Milliseconds, and microseconds of CPU."""
        return Measured(self.wall * 1e3, self.cpu * 1e6)


@attrs.frozen
class Figure:
    """How a figure is told.

    Attributes:
        unit: of its value.
        beside: the figure that it is divided by: the first of these that was measured.
        goals: backend → ``"value <= 20"`` or ``"ratio >= 0.7"``.
        peers: where none of those was measured, the fastest of these.
    """

    unit: str
    beside: tuple[str, ...] = ()
    goals: Mapping[str, str] = {}
    peers: tuple[str, ...] = ()


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many are at or below."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def lateness(name: str, seconds: Sequence[float]) -> Found:
    """p50, p99 and most of delays, in ms."""
    return {
        f"{name}, p50": Measured(percentile(seconds, 0.5) * 1e3),
        f"{name}, p99": Measured(percentile(seconds, 0.99) * 1e3),
        f"{name}, most": Measured(max(seconds) * 1e3),
    }


def resident(field: str = "VmRSS") -> float:
    """Bytes of this process in memory; ``VmHWM`` is the most there ever were."""
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123
            found = next(line for line in status if line.startswith(field))
        return float(found.split()[1]) * 1024
    except OSError:  # no Linux: only the most is told
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def table(runs: Sequence[Found], figures: Mapping[str, Figure], backend: str) -> list[dict[str, object]]:
    """A line per figure: the median over the runs, least, most, CPU, the ratio to what it stands beside, its goal."""
    names = dict.fromkeys(name for run in runs for name in run)
    value = {name: statistics.median(run[name].value for run in runs if name in run) for name in names}
    cpu = {
        name: statistics.median(taken)
        for name in names
        if (taken := [us for run in runs if name in run and (us := run[name].cpu_us) is not None])
    }
    rows: list[dict[str, object]] = []
    for name in sorted(names, key=lambda name: (*name.partition(" ")[:1], list(names).index(name))):
        figure = figures.get(name) or figures[name.partition(" @ ")[0]]
        fastest = sorted((other for other in figure.peers if other in value), key=value.__getitem__, reverse=True)
        beside = next((other for other in (*figure.beside, *fastest) if other in value), None)
        ratio = value[name] / value[beside] if beside is not None else None
        rows.append(
            {
                "figure": name,
                "unit": figure.unit,
                "value": value[name],
                "least": min(run[name].value for run in runs if name in run),
                "most": max(run[name].value for run in runs if name in run),
                "CPU µs": cpu.get(name),
                "beside": beside,
                "ratio": ratio,
                "CPU ratio": cpu[beside] / cpu[name] if beside in cpu and cpu.get(name) else None,
                "goal": figure.goals.get(backend),
                "met": _met(figure.goals.get(backend), value[name], ratio),
            }
        )
    return rows


def _met(goal: str | None, value: float, ratio: float | None) -> str | None:
    if goal is None:
        return None
    what, sign, bound = goal.split()
    have = ratio if what == "ratio" else value
    return None if have is None else "yes" if _SIGNS[sign](have, float(bound)) else "no"
