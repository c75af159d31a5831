"""An alert as people read it: a headline, facts, causes, what to type. Pure; each channel draws it in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from ..interfaces.alerter import Alert
from .drafts import WORDS
from .grouping import STILL
from .plain_text import block, clean, count

_LINE = 300
_BLOCK = 2_000
_LISTED = 20

_TONES = {
    "threshold_critical": "bad",
    "monitor_absent": "bad",
    "task_dead": "bad",
    "threshold_exceeded": "warn",
    "overdue": "warn",
    "threshold_resolved": "good",
}


@attrs.frozen(kw_only=True)
class Story:
    """What to show, all of it clean text.

    Attributes:
        title: one line.
        tone: bad, warn, good or calm.
        lead: a sentence or two.
        facts: label and value, each one line.
        message: the sample's error message, perhaps several lines.
        items: one line for each cause, type or reason.
        items_label: what the items are.
        commands: what it does, and the command.
        links: label and URL.
    """

    title: str
    tone: str
    lead: str
    facts: Sequence[tuple[str, str]] = ()
    message: str = ""
    items_label: str = ""
    items: Sequence[str] = ()
    commands: Sequence[tuple[str, str]] = ()
    links: Sequence[tuple[str, str]] = ()


def story(alert: Alert) -> Story:
    """What an alert says; of a kind that is not known here, its title and its plain facts."""
    data = alert.data
    tell = _BY_KIND.get(alert.kind, _plain)
    told: dict[str, Any] = {"lead": "", "facts": [], **tell(data)}
    told["facts"] = [
        (label, clean(str(value), _LINE))
        for label, value in (*told["facts"], ("queue", alert.queue), ("told at", _when(alert.at)))
        if value not in (None, "")
    ]
    good = data.get("status") == "resolved" or alert.kind == "threshold_resolved"
    return Story(
        title=clean(alert.title, _LINE),
        tone="good" if good else _TONES.get(alert.kind, "calm"),
        commands=[(clean(each["label"], 80), clean(each["command"], _LINE)) for each in data.get("commands", ())],
        links=[(clean(each["label"], 80), each["url"]) for each in data.get("links", ())],
        **told,
    )


def _died(data: Mapping[str, Any]) -> dict[str, Any]:
    causes = data.get("causes", ())
    if len(causes) != 1:
        lines = [_cause_line(cause) for cause in causes]
        if data.get("more_causes"):
            lines.append(f"and {data['more_causes']:,} causes more")
        return {
            "lead": f"{count(data['new'], 'task')} died since this was last told.",
            "items_label": "Causes",
            "items": lines,
        }
    cause = causes[0]
    new = f"{cause['new']:,} of them new" if 0 < cause["new"] < cause["count"] else None
    facts = [
        ("error", cause["error_type"]),
        ("type", cause["type"]),
        ("how many", f"{cause['count']:,} died" + (f", {new}" if new else "")),
        ("since", _when(cause["first_at"])),
        ("last", _when(cause["last_at"]) if cause["count"] > 1 else None),
        ("release", cause["release"]),
        ("reason", cause["reason"]),
        ("sample", cause["sample_id"]),
        ("worker", cause["worker"]),
        ("cause", cause["fingerprint"]),
    ]
    return {"lead": _LEADS[cause["status"]], "facts": facts, "message": block(cause["message"] or "", _BLOCK)}


_LEADS = {
    "new": "It cannot succeed by itself any more. What failed is kept as dead letters.",
    "more": "More tasks died of a cause that was told before.",
    STILL: "Letters of this cause still wait for somebody.",
    "resolved": "No letter of this cause is left: they were sent back, purged, or have aged out.",
    "regressed": "This cause was resolved, and kills again.",
}


def _cause_line(cause: Mapping[str, Any]) -> str:
    error = str(cause["error_type"] or cause["reason"] or "").rpartition(".")[2]
    grown = f"{cause['new']:,} new, " if 0 < cause["new"] < cause["count"] else ""
    said = clean(cause["message"] or "", 100)
    what = "many other causes" if cause["fingerprint"] is None else f"{cause['type']}: {error}"
    status = WORDS.get(cause["status"], cause["status"])
    line = f"{what} – {grown}{cause['count']:,} died ({status})"
    return clean(f"{line}: {said}" if said else line, _LINE)


def _threshold(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "lead": "Look which causes they have, mend those, and send the letters back.",
        "facts": [
            ("dead letters", f"{data['count']:,}"),
            ("threshold", f"{data['threshold']:,}, critical {data['critical_threshold']:,}"),
            ("since", _when(data["since"])),
            ("at most", f"{data['peak']:,}"),
            ("by priority", _joined(data["by_priority"])),
        ],
        "items_label": "By type",
        "items": _lines(data["by_type"]),
    }


def _overdue(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "lead": "They have been due for over a minute, and no live worker knows their type."
        if data["count"]
        else "Workers take all types that wait.",
        "items_label": "Waiting",
        "items": _lines(data["by_type"]),
    }


def _summary(data: Mapping[str, Any]) -> dict[str, Any]:
    going = data["going_within_24h"]
    lead = f"{count(going, 'letter')} will be purged within 24 h." if going else "Nothing will be purged within 24 h."
    causes = [
        clean(f"{cause['type']}: {cause['error_type'].rpartition('.')[2]} – {cause['count']:,}", _LINE)
        for cause in data.get("causes", ())
    ]
    return {
        "lead": lead,
        "facts": [
            ("dead letters", f"{data['count']:,}"),
            ("since the last", _joined({name: data[name] for name in ("died", "replayed", "recovered", "purged")})),
            ("aged out", f"{data['aged_out']:,}" if data["aged_out"] else None),
            ("by priority", _joined(data["by_priority"])),
            ("oldest", _when(data["oldest_at"])),
            ("pending", f"{data['pending']:,}"),
            ("overdue", f"{data['overdue']:,}" if data["overdue"] else None),
            ("going soon", _joined(data["going_by_type"])),
            ("paused", ", ".join(data["paused"])),
        ],
        "items_label": "Largest causes" if causes else "By type",
        "items": causes or _lines(data["by_type"]),
    }


def _purged(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "lead": "They are gone for good.",
        "facts": [
            ("how many", f"{data['count']:,}"),
            ("between", f"{_when(data['first_at'])} and {_when(data['last_at'])}"),
            ("by type", _joined(data["by_type"])),
        ],
        "items_label": "Why",
        "items": _lines(data["why"]),
    }


def _absent(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "lead": "Nobody was told of what died meanwhile; that is made up for now.",
        "facts": [("since", _when(data["since"])), ("until", _when(data["until"]))],
    }


def _test(_: Mapping[str, Any]) -> dict[str, Any]:
    return {"lead": "Somebody asked for this to see that alerts arrive here. Nothing is wrong."}


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"facts": [(clean(name, 40), value) for name, value in data.items() if isinstance(value, str | int | float)]}


_BY_KIND = {
    "task_dead": _died,
    "threshold_exceeded": _threshold,
    "threshold_critical": _threshold,
    "threshold_resolved": _threshold,
    "overdue": _overdue,
    "daily_summary": _summary,
    "purge_summary": _purged,
    "monitor_absent": _absent,
    "test": _test,
}


def _lines(counts: Mapping[str, int]) -> list[str]:
    return [clean(f"{name or 'no reason given'}: {n:,}", _LINE) for name, n in list(counts.items())[: _LISTED + 1]]


def _joined(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in list(counts.items())[:5] if n)


def _when(at: object) -> str:
    if at is None:
        return ""
    moment = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
