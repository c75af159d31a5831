"""Alerts to render and to send, plain and hostile."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from deadletter import Alert
from deadletter.alerts import drafts
from deadletter.alerts.drafts import Desk, Draft
from deadletter.alerts.grouping import NEW, OTHER, Cause, Said

AT = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
AT_MS = round(AT.timestamp() * 1000)
DESK = Desk("default", "https://dlq.example.com/ops")

HOSTILE = [
    "<script>alert(1)</script>",
    "{{7*7}} ${7*7} %s",
    "x\r\nBcc: a@b.example",
    "x\nSubject: other",
    "a\u2028b\u2029c\x85d\x0be\x1cf",
    "\x1b[31mred\x1b[0m \x00 \x7f",
    "\u202egnp.exe",
    "<!channel> <@U123> <https://evil.example|click>",
    "``` ``` <!here>",
    "\ud800 lone",
    "=?utf-8?q?x?=",
    "x" * 100_000,
    "“quotes” & 'apostrophes' \" <b>",
    "",
]


def cause(**changes: Any) -> dict[str, Any]:
    """The facts of one cause."""
    said = Said(
        changes.pop("status", NEW),
        Cause("f00d", "", "mail.send", AT_MS - 60_000, AT_MS, "0193-sample", count=10_000),
        changes.pop("new", 10_000),
    )
    facts = drafts.cause_facts(said, None)
    return {
        **facts,
        "error_type": "smtplib.SMTPServerDisconnected",
        "message": "Connection unexpectedly closed\nwhile reading <banner>",
        "release": "2026.11.3",
        "reason": "retries_exhausted",
        "worker": "web-1:4711",
        **changes,
    }


def to_alert(draft: Draft, queue: str = "default", id_: str = "0193-alert") -> Alert:
    return Alert(id=id_, kind=draft.kind, at=AT, queue=queue, title=draft.title, data=draft.data)


def one_of_each(desk: Desk = DESK) -> list[Alert]:
    """An alert of every kind, and the forms of task_dead."""
    figures = {
        "count": 812,
        "by_type": {"mail.send": 800, "charge": 12},
        "by_priority": {"high": 12, "normal": 800, "low": 0},
        "by_reason": {"retries_exhausted": 812},
        "died": 640,
        "replayed": 20,
        "recovered": 18,
        "purged": 5,
        "aged_out": 3,
        "oldest_at": drafts.at(AT_MS - 6 * 86_400_000),
        "pending": 44,
        "overdue": 2,
        "paused": ["charge"],
        "going_within_24h": 37,
        "going_by_type": {"mail.send": 37},
        "causes": [{"type": "mail.send", "error_type": "TimeoutError", "count": 700, "fingerprint": "f00d"}],
        "at_least": False,
    }
    levels = {"limits": (10, 100), "since_ms": AT_MS, "peak": 130, "by_type": {"mail.send": 12}, "by_priority": {}}
    made = [
        drafts.died(desk, [cause()]),
        drafts.died(desk, [cause(status="more", new=9_000)]),
        drafts.died(desk, [cause(status="still", new=0)]),
        drafts.died(desk, [cause(status="resolved", new=0)]),
        drafts.died(desk, [cause(status="regressed", new=1, count=1)]),
        drafts.died(desk, [cause(), cause(type="charge", new=3), cause(fingerprint=None, status="more")]),
        drafts.threshold(desk, "threshold_exceeded", letters=12, **levels),
        drafts.threshold(desk, "threshold_critical", letters=130, **levels),
        drafts.threshold(desk, "threshold_resolved", letters=3, **levels),
        drafts.overdue(desk, "new", {"charge": 2}),
        drafts.overdue(desk, "resolved", {}),
        drafts.summary(desk, date(2026, 11, 30), figures),
        drafts.purged(desk, by_type={"charge": 7}, why={"": 4, "test data": 3}, first_ms=AT_MS - 9_000, last_ms=AT_MS),
        drafts.absent(desk, since_ms=AT_MS - 3_600_000, until_ms=AT_MS),
        drafts.test_alert(desk),
    ]
    return [to_alert(draft) for draft in made]


def hostile(text: str) -> Alert:
    """An alert that has this text wherever a task's own words may stand."""
    facts = cause(type=text or "t", message=text, error_type=text or "E", release=text, reason=text, worker=text)
    draft = drafts.died(Desk(text or "default", "https://dlq.example.com"), [facts, facts])
    draft = drafts.died(Desk(text or "default", "https://dlq.example.com"), [facts]) if len(text) % 2 else draft
    return to_alert(draft, queue=text or "default")


__all__ = ["AT", "AT_MS", "DESK", "HOSTILE", "OTHER", "cause", "hostile", "one_of_each", "to_alert"]
