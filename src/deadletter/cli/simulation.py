"""The command ``simulate``: what a retry policy does to a service that was down."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Literal

from ..interfaces import RetryPolicy
from ..retry import Exponential, Schedule, Simulation
from ..retry import simulate as run
from ..settings import queue_options
from .exits import DONE, BadUse
from .flags import Switch, length
from .output import emit, on_terminal, pairs, span

_BARS = 60
_JITTERS: dict[str, Literal["full", "equal", "decorrelated"] | None] = {
    "full": "full",
    "equal": "equal",
    "decorrelated": "decorrelated",
    "none": None,
}
_GUIDE = (5.0, 30.0, 120.0, 300.0)


def simulate(
    *,
    outage: str = "10m",
    arrivals: float = 1.0,
    delays: str | None = None,
    base: str | None = None,
    factor: float = 2.0,
    cap: str = "5m",
    jitter: Literal["full", "equal", "decorrelated", "none"] = "full",
    max_retries: int | None = None,
    capacity: float | None = None,
    seed: int = 0,
    json: Switch = False,
) -> int:
    """Let a service be down for a while and see what retries do to it, without touching anything.

    Example: deadletter simulate --outage 10m --arrivals 5 --delays 5,30,120,300

    Args:
        outage: How long every attempt fails.
        arrivals: New tasks per second.
        delays: The delays of a schedule (default: $DEADLETTER_RETRY_DELAYS, else 5,30,120,300).
        base: Exponential delays that begin with this one, instead of a schedule.
        factor: By which exponential delays grow.
        cap: The longest exponential delay.
        jitter: Of exponential delays.
        max_retries: Retries of a task, where the policy's own end is not meant.
        capacity: Attempts per second that the service stands when it is up again.
        seed: Of the jitter.
        json: Answer in one JSON object.
    """
    try:
        policy = _policy(delays, base, factor, cap, jitter)
        found = run(
            policy,
            outage=length("--outage", outage) or 0,
            arrivals=arrivals,
            seed=seed,
            max_retries=max_retries,
            capacity=capacity,
        )
    except ValueError as error:
        raise BadUse(f"--{error}") from None
    recovery = None if math.isinf(found.time_to_recover) else round(found.time_to_recover, 1)
    document = {
        "tasks": found.tasks,
        "attempts": found.attempts,
        "deaths": found.deaths,
        "unfinished": found.unfinished,
        "peak_load": found.peak_load,
        "time_to_recover": recovery,
    }
    if json:
        emit({**document, "load": list(found.load)})
        return DONE
    told = {**document, "time_to_recover": "never" if recovery is None else f"{recovery:g} s"}
    pairs([("policy", str(policy)), *((name.replace("_", " "), str(value)) for name, value in told.items())])
    _plot(found)
    return DONE


def _policy(delays: str | None, base: str | None, factor: float, cap: str, jitter: str) -> RetryPolicy:
    if base is not None:
        if delays is not None:
            raise BadUse("--delays and --base are two policies; give one of them")
        return Exponential(
            base=length("--base", base) or 0, factor=factor, cap=length("--cap", cap) or 0, jitter=_JITTERS[jitter]
        )
    if delays is not None:
        return Schedule([length("--delays", part) or 0 for part in delays.split(",")])
    return Schedule(queue_options(os.environ).get("retry_delays", _GUIDE))


def _plot(found: Simulation) -> None:
    """Attempts per second over time, the highest of each stretch, as one line a stretch."""
    step = max(1, math.ceil(len(found.load) / 24))
    peaks: Sequence[int] = [max(found.load[at : at + step]) for at in range(0, len(found.load), step)]
    highest = max(peaks, default=0)
    if not highest:
        return
    print(f"\nattempts a second (the highest of each {span(step)})")
    bar = "█" if on_terminal() else "#"
    for at, peak in enumerate(peaks):
        print(f"{at * step:>6}s {peak:>7} {bar * round(_BARS * peak / highest)}".rstrip())
