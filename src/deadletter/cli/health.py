"""Commands that judge: check, doctor."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ..__about__ import __version__
from ..model.errors import BackendUnavailable
from ..model.query import glob_match
from ..model.record import Stats
from .exits import DONE, FAILED, BadUse
from .flags import Flags, length
from .output import harmless, moment, pairs, say, span
from .session import session, user_queues

_SKEW = 1000  # ms between this machine's clock and the store's that are worth a word


async def check(
    *,
    max_items: int | None = None,
    max_age: str | None = None,
    max_overdue: int = 0,
    flags: Flags | None = None,
) -> int:
    """Exit 1 when the queue is unhealthy: for deployment pipelines and container health checks.

    Example: deadletter check --max-items 0 --max-age 1h

    Paused types are told. They do not make it unhealthy, and their tasks are not overdue but held back. A monitor that
    ran lately and is gone makes it unhealthy: nobody is told of dead letters.

    Args:
        max_items: Unhealthy with more dead letters than this.
        max_age: Unhealthy when the oldest dead letter is older than this.
        max_overdue: Unhealthy when more tasks than this are due for over 60 s.
    """
    if min(max_items or 0, max_overdue) < 0:
        raise BadUse("--max-items, --max-overdue: give 0 or more")
    oldest = length("--max-age", max_age)
    async with session(flags, server=True) as desk:
        stats = await desk.queue.stats()
        overdue = _overdue(stats)
        problems = list(_problems(stats, overdue, max_items, oldest, max_overdue))
        monitor = await desk.monitor()
        if monitor is not None and monitor.absent:
            problems.append(f"monitor_absent: monitor {monitor.name} was last seen at {moment(monitor.last_seen)}")
        document = {"healthy": not problems, "problems": problems, "dead": stats.by_state["dead"]}
        document |= {"oldest_dead": stats.oldest_dead, "overdue": sum(overdue.values()), "paused": stats.paused}
        told = [*(problems or ["healthy"]), *(f"paused: {glob} ({why})" for glob, why in stats.paused.items())]
        desk.answer(document, lambda: print("\n".join(map(harmless, told))))
        await desk.remark_if_unknown()
    return FAILED if problems else DONE


def _overdue(stats: Stats) -> dict[str, int]:
    """What no worker took though one should have, by type."""
    return {type_: n for type_, n in stats.overdue.items() if not any(glob_match(glob, type_) for glob in stats.paused)}


def _problems(
    stats: Stats, overdue: Mapping[str, int], max_items: int | None, max_age: float | None, max_overdue: int
) -> Iterable[str]:
    dead, late = stats.by_state["dead"], sum(overdue.values())
    if max_items is not None and dead > max_items:
        yield f"{dead} dead letters, more than {max_items}"
    if max_age is not None and stats.oldest_dead is not None and stats.oldest_dead > max_age:
        yield f"the oldest dead letter is {span(stats.oldest_dead)} old, more than {span(max_age)}"
    if late > max_overdue:
        types = ", ".join(sorted(overdue))
        yield f"overdue tasks: {late}, more than {max_overdue}; does a worker run for {types}?"


async def doctor(*, flags: Flags | None = None) -> int:
    """Connect and say what an operator should know: versions, clocks, settings that can lose data.

    Example: deadletter doctor --url sqlite:///shop.db
    """
    async with session(flags, connect=False) as desk:
        # Before it connects: what waits in the spool is told, whether the store is there or not.
        spooled = await desk.queue.spooler.findings() if desk.queue.spooler is not None else []
        before = time.time()
        try:
            await desk.queue.backend.open()
            found = await desk.queue.backend.inspect()
        except BackendUnavailable:
            for finding in spooled:
                say(finding.text)
            raise
        skew = round(found.now_ms - (before + time.time()) * 500)
        findings: list[dict[str, Any]] = [attrs.asdict(finding) for finding in (*found.findings, *spooled)]
        if abs(skew) > _SKEW:
            text = f"this machine's clock and the store's differ by {abs(skew) / 1000:.1f} s"
            findings.append({"level": "warning", "text": text})
        document = {
            "deadletter": __version__,
            "python": platform.python_version(),
            "url": desk.queue.backend.url,
            "backend": found.backend,
            "version": found.version,
            "durability": found.durability,
            "clock_skew_ms": skew,
            "queues": user_queues(found),
            "findings": findings,
        }
        desk.answer(document, lambda: pairs(_told(document)))
    return FAILED if any(finding["level"] == "error" for finding in findings) else DONE


def _told(document: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in document.items():
        if name != "findings":
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            yield name.replace("_", " "), shown or "none"
    for finding in document["findings"]:
        yield str(finding["level"]), "; ".join(str(value) for name, value in finding.items() if name != "level")
    if not document["findings"]:
        yield "findings", "none"
