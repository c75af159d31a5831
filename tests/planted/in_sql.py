"""Bugs in SQLite's statements and in the step around them: each must show beside memory, in random batches."""

from __future__ import annotations

from deadletter.backends.sqlite import reads, step
from deadletter.backends.sqlite.step import Step
from deadletter.backends.sqlite.traces import Traces

from .bug import Bug, Kind, Plant, line, query


def _bug(name: str, kind: Kind, plant: Plant, *, by: str = "SQLite beside memory", rare: bool = False) -> Bug:
    return Bug(name, kind, "SQL", by, plant, rare)


KEYS = [
    _bug(
        "a remembered key that binds nothing",
        "key TTL",
        query("bound_keys", "key IN ({marks})", "key IN ({marks}) AND state <> 'succeeded'"),
        rare=True,
    ),
    _bug(
        "a key that outlives its keep",
        "key TTL",
        query("forgettable", "keep_until_ms <= ?", "keep_until_ms <= ? - 1000"),
    ),
]

CLOCKS = [
    _bug("a lease that lapses late", "clock", query("lapsed", "lease_ms <= ?", "lease_ms <= ? - 50")),
    _bug("an expiry before its time", "clock", query("expired", "expires_ms <= ?", "expires_ms <= ? + 500")),
    _bug(
        "a claim before its due time",
        "clock",
        line(step._Search, "innocents", "if due_ms > now_ms or", "if due_ms > now_ms + 400 or"),
        rare=True,
    ),
    _bug(
        "a claim of what is expired",
        "guard",
        line(step._Search, "innocents", "(expires_ms is not None and expires_ms <= now_ms) or", ""),
        rare=True,
    ),
]

FENCES = [
    _bug(
        "a claim that is not repeated",
        "op id",
        line(Step, "claim", "self.notes.claims.get(claim.op) or self._claims.get(claim.op)", "None"),
        rare=True,
    ),
    _bug(
        "a repeat that answers what another holds",
        "op id",
        line(Step, "_repeat", " and row.op == claim.op", ""),
        rare=True,
    ),
    _bug(
        "a suspect that is not hidden",
        "guard",
        line(step._Search, "innocents", "losses >= limit_losses", "False"),
        rare=True,
    ),
    _bug(
        "what another process wrote is not seen",
        "fence",
        line(Step, "begun", "if version != self._version:", "if False:"),
        by="two processes on SQLite beside memory",
    ),
]

ORDER = [
    _bug(
        "a lease that is written before it is taken",
        "order",
        line(
            Step,
            "_take",
            "    for index, row in enumerate(taken.values()):\n"
            "        machine.take(row, claim, index, now_ms, journal)\n"
            "    update_taken(self.connection, taken)\n",
            "    update_taken(self.connection, taken)\n"
            "    for index, row in enumerate(taken.values()):\n"
            "        machine.take(row, claim, index, now_ms, journal)\n",
        ),
    ),
    _bug(
        "a trace that is dropped before its text",
        "order",
        line(
            Traces,
            "flush",
            'self._connection.executemany(Q["drop_texts"], unused)\n'
            '            self._connection.executemany(Q["drop_traces"], unused)\n',
            'self._connection.executemany(Q["drop_traces"], unused)\n'
            '            self._connection.executemany(Q["drop_texts"], unused)\n',
        ),
        rare=True,
    ),
    _bug("a text that is dropped while it is used", "order", query("drop_texts", "<= 0", "<= 1"), rare=True),
    _bug(
        "a row that is deleted before its failures",
        "order",
        line(Step, "_delete", "traces.wipe(numbers)", "pass"),
        rare=True,
    ),
]

EFFECTS = [
    _bug("a tally that forgets what it was", "effect", query("add_tally", "count + excluded.count", "excluded.count")),
    _bug(
        "a counter that forgets what it was", "effect", query("add_counter", "count + excluded.count", "excluded.count")
    ),
    _bug(
        "a note of an edit that is taken for a failure",
        "effect",
        query("last_failures", "error_type <> 'deadletter.Edited'", "1"),
        rare=True,
    ),
    _bug("texts that lose one use of many", "effect", query("wiped_traces", "count(*)", "1"), rare=True),
    _bug("an event's number that is left out", "effect", query("last_event", "max(seq)", "max(seq) + 1")),
    _bug("a cursor that repeats its last", "index", line(reads, "where", "'<' if", "'<=' if")),
    _bug(
        "a history in the wrong order", "effect", query("all_failures", "ORDER BY task, seq", "ORDER BY task, seq DESC")
    ),
    _bug(
        "rows that become alike in one column, written alike in all",
        "effect",
        line(
            step,
            "update_rows",
            "alike.setdefault((changed, tuple(compress(values, differs))), [])",
            "alike.setdefault((changed, tuple(compress(values, differs))[:1]), [])",
        ),
    ),
]

IN_SQL = [*KEYS, *CLOCKS, *FENCES, *ORDER, *EFFECTS]
