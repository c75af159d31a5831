"""What an alert says: its title and its facts, from what was seen. Pure.

Titles are one clean line. The facts are JSON-like: numbers, short texts, RFC 3339 times, and at most ``SHOWN`` of a kind.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any
from urllib.parse import quote, urlencode

import attrs

from ..model.record import TaskRecord
from ..model.task import from_ms
from ..rules.error_text import cut
from .grouping import MORE, NEW, OTHER, REGRESSED, RESOLVED, STILL, Said
from .plain_text import clean, count

SHOWN = 20
_MESSAGE = 1_000
_TITLE = 200


@attrs.frozen(kw_only=True)
class Draft:
    """An alert before it has an id.

    Attributes:
        route: whom it goes to; "" means by its kind.
    """

    kind: str
    title: str
    data: Mapping[str, Any]
    route: str = ""


@attrs.frozen
class Desk:
    """What commands and links need to know.

    Attributes:
        queue: the queue's name.
        dashboard: where the dashboard is, None where there is none.
    """

    queue: str
    dashboard: str | None = None

    def command(self, label: str, *words: str) -> dict[str, str]:
        """A command to act, for a shell."""
        where = [] if self.queue == "default" else ["--queue", self.queue]
        return {"label": label, "command": shlex.join(["deadletter", *words, *where])}

    def links(self, label: str, path: str = "", **query: str) -> list[dict[str, str]]:
        """A link into the dashboard, where there is one."""
        if self.dashboard is None:
            return []
        url = f"{self.dashboard.rstrip('/')}/{quote(path)}"
        return [{"label": label, "url": f"{url}?{urlencode(query)}" if query else url}]


def at(ms: int | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if ms is None else from_ms(ms).isoformat().replace("+00:00", "Z")


def cause_facts(said: Said, sample: TaskRecord | None) -> dict[str, Any]:
    """One cause as data. ``sample`` is redacted, and None where the letter is gone by now."""
    cause, failure = said.cause, sample.failure if sample is not None else None
    return {
        "status": said.status,
        "type": cause.type,
        "fingerprint": None if cause.key == OTHER else cause.key,
        "count": cause.count,
        "new": said.fresh,
        "first_at": at(cause.first_ms),
        "last_at": at(cause.last_ms),
        "sample_id": cause.sample_id,
        "priority": str(sample.task.priority) if sample is not None else None,
        "reason": str(sample.reason) if sample is not None and sample.reason is not None else None,
        "error_type": failure.error_type if failure is not None else cause.error_type,
        "message": cut(failure.message, _MESSAGE) if failure is not None else None,
        "release": failure.release if failure is not None else None,
        "worker": failure.worker if failure is not None else None,
        "attempts": sample.attempts if sample is not None else None,
    }


def died(desk: Desk, causes: Sequence[dict[str, Any]], route: str = "") -> Draft:
    """``task_dead``: what became of one cause, or of several at once (the largest first)."""
    causes = sorted(causes, key=lambda cause: (-cause["new"], -cause["count"]))
    total, fresh = (sum(cause[name] for cause in causes) for name in ("count", "new"))
    data: dict[str, Any] = {"count": total, "new": fresh, "causes": causes[:SHOWN]}
    if len(causes) > SHOWN:
        data["more_causes"] = len(causes) - SHOWN
    first = causes[0]
    if len(causes) == 1:
        data |= {name: value for name, value in first.items() if name not in ("count", "new")}
        title = _of_one(first)
        commands, links = _for_one(desk, first)
    else:
        statuses = [cause["status"] for cause in causes]
        data["status"] = statuses[0] if len(set(statuses)) == 1 else "several"
        words = [f"{statuses.count(word)} {WORDS[word]}" for word in WORDS if word in statuses]
        tail = f"; {count(fresh, 'task')} died" if fresh else ""
        title = f"{len(causes)} causes: {', '.join(words)}{tail}"
        commands = [desk.command("every cause", "groups"), desk.command("all letters", "ls")]
        links = desk.links("dashboard")
    return Draft(
        kind="task_dead",
        title=clean(title, _TITLE),
        data={**data, "commands": commands, "links": links},
        route=route,
    )


WORDS = {NEW: "new", REGRESSED: "back again", MORE: "growing", STILL: "still there", RESOLVED: "resolved"}


def _of_one(cause: Mapping[str, Any]) -> str:
    error = str(cause["error_type"] or cause["reason"] or "a cause that is gone").rpartition(".")[2]
    type_, n, fresh = cause["type"], cause["count"], cause["new"]
    if cause["fingerprint"] is None:
        return f"{count(fresh or n, 'task')} died of many other causes"
    return {
        NEW: f"{count(n, 'task')} of {type_} died: {error}",
        MORE: f"{fresh:,} more of {type_} died: {error} ({n:,} in all)",
        STILL: f"still there: letters of {type_}, {error} ({n:,} died)",
        RESOLVED: f"resolved: no letter of {type_} is left, {error}",
        REGRESSED: f"back again: {count(n, 'task')} of {type_} died: {error}",
    }[cause["status"]]


def _for_one(desk: Desk, cause: Mapping[str, Any]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    fingerprint = cause["fingerprint"]
    commands = [desk.command("the queue at a glance", "stats")] if cause["status"] == RESOLVED else []
    links: list[dict[str, str]] = []
    if cause["status"] != RESOLVED and not cause["sample_id"].startswith("-"):  # an id is its sender's choice
        commands.append(desk.command("this letter, with its traceback", "show", cause["sample_id"]))
    sample = [] if cause["status"] == RESOLVED else desk.links("this letter", f"letters/{cause['sample_id']}")
    if fingerprint is not None:
        links = desk.links("this cause", "letters", fingerprint=fingerprint)
        if cause["status"] != RESOLVED:
            commands += [
                desk.command("all of this cause", "ls", "--fingerprint", fingerprint),
                desk.command("send them back, once it is mended", "retry-all", "--fingerprint", fingerprint),
            ]
    return commands, links + sample


def threshold(
    desk: Desk,
    kind: str,
    *,
    letters: int,
    limits: tuple[int, int],
    since_ms: int,
    peak: int,
    by_type: Mapping[str, int],
    by_priority: Mapping[str, int],
) -> Draft:
    """``threshold_exceeded``, ``threshold_critical``, ``threshold_resolved``."""
    low, high = limits
    title = {
        "threshold_exceeded": f"{count(letters, 'dead letter')}: more than {low:,}",
        "threshold_critical": f"critical: {count(letters, 'dead letter')}, more than {high:,}",
        "threshold_resolved": f"resolved: {count(letters, 'dead letter')}, no more than {low:,}",
    }[kind]
    data = {
        "count": letters,
        "threshold": low,
        "critical_threshold": high,
        "since": at(since_ms),
        "peak": peak,
        "by_type": largest(by_type),
        "by_priority": dict(by_priority),
        "commands": [desk.command("by cause", "groups"), desk.command("the newest", "ls")],
        "links": desk.links("dashboard"),
    }
    return Draft(kind=kind, title=title, data=data)


def overdue(desk: Desk, status: str, types: Mapping[str, int]) -> Draft:
    """``overdue``: due tasks that no live worker knows."""
    total = sum(types.values())
    if status == RESOLVED:
        title = "resolved: no task waits for a worker any more"
    else:
        what = next(iter(types)) if len(types) == 1 else f"{len(types)} types"
        title = f"{count(total, 'task')} of {what} {'is' if total == 1 else 'are'} due, and no worker takes them"
    data = {
        "status": status,
        "count": total,
        "by_type": largest(types),
        "commands": [desk.command("workers, and what waits", "stats")],
        "links": desk.links("dashboard"),
    }
    return Draft(kind="overdue", title=clean(title, _TITLE), data=data)


def summary(desk: Desk, day: date, facts: Mapping[str, Any]) -> Draft:
    """``daily_summary``; see ``reckoning``."""
    letters, going = facts["count"], facts["going_within_24h"]
    title = f"{day:%A, %d %B}: {count(letters, 'dead letter')}, {facts['died']:,} died since the last summary"
    if going:
        title += f", {going:,} will be purged within 24 h"
    commands = [desk.command("by cause", "groups"), desk.command("the newest", "ls")]
    if going:
        commands.append(desk.command("keep a copy of what goes", "export", "-o", "letters.ndjson"))
    data = {"day": day.isoformat(), **facts, "commands": commands, "links": desk.links("dashboard")}
    return Draft(kind="daily_summary", title=title, data=data)


def purged(desk: Desk, *, by_type: Mapping[str, int], why: Mapping[str, int], first_ms: int, last_ms: int) -> Draft:
    """``purge_summary``: what was deleted, and why."""
    total = sum(by_type.values())
    data = {
        "count": total,
        "by_type": largest(by_type),
        "why": largest(why),
        "first_at": at(first_ms),
        "last_at": at(last_ms),
        "commands": [desk.command("what is left", "stats")],
        "links": desk.links("dashboard"),
    }
    return Draft(kind="purge_summary", title=f"{count(total, 'dead letter')} purged", data=data)


def absent(desk: Desk, *, since_ms: int, until_ms: int) -> Draft:
    """``monitor_absent``, told by the monitor that took over."""
    minutes = max(1, (until_ms - since_ms) // 60_000)
    data = {
        "since": at(since_ms),
        "until": at(until_ms),
        "commands": [desk.command("what died meanwhile", "groups")],
        "links": desk.links("dashboard"),
    }
    return Draft(kind="monitor_absent", title=f"no monitor ran for {minutes:,} min; one does again", data=data)


def test_alert(desk: Desk) -> Draft:
    """``test``: shows that a channel works."""
    data = {"commands": [desk.command("the queue at a glance", "stats")], "links": desk.links("dashboard")}
    return Draft(kind="test", title="test alert: this channel works", data=data)


def largest(counts: Mapping[str, int]) -> dict[str, int]:
    """The largest counts, and what the rest comes to."""
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    shown = dict(ordered[:SHOWN])
    rest = sum(n for _, n in ordered[SHOWN:])
    return {**shown, "…": rest} if rest else shown
