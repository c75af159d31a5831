"""A backend as a plain dict: what the state machine holds a real one against.

Written apart from ``deadletter.rules.machine``: where the two differ, one of them is wrong.
"""

from __future__ import annotations

from collections import Counter

import attrs

from ..model.row import Row


@attrs.define
class Known:
    """What the model knows of one id."""

    state: str
    type: str
    priority: int
    digest: str
    body: bytes | None
    key: str | None
    due_ms: int
    expires_ms: int | None
    keep_until_ms: int | None = None
    keep_ms: int | None = None
    token: str | None = None
    owner: str | None = None
    lease_ms: int | None = None
    started: bool = False
    generation: int = 0
    attempts: int = 0
    lease_losses: int = 0
    postpones: int = 0
    replays: int = 0
    reason: str | None = None
    failures: list[str] = attrs.field(factory=list)

    def pend(self, due_ms: int | None = None) -> None:
        """Back in line."""
        self.state, self.token, self.owner, self.lease_ms, self.started = "pending", None, None, None, False
        if due_ms is not None:
            self.due_ms = due_ms

    def end(self, state: str, keep_until_ms: int) -> None:
        """Over; only a letter keeps what it was about."""
        self.pend()
        self.state, self.keep_until_ms, self.expires_ms = state, keep_until_ms, None
        if state != "dead":
            self.body, self.reason, self.failures = None, None, []
        if state == "gone":
            self.key = None


def view(row: Row) -> Known:
    """A stored row as the model sees it."""
    fields = {field.name: getattr(row, field.name) for field in attrs.fields(Known) if field.name != "failures"}
    known = Known(**fields, failures=[failure.message for failure in row.history])
    known.state = str(row.state)
    known.reason = str(row.reason) if row.reason is not None else None
    if known.state != "running":
        known.token = None  # kept after a lapse, for a late settle alone
    return known


class Model:
    """All ids of one queue, in a dict; ``lapsed`` remembers which token a late settle may still come with."""

    def __init__(self) -> None:
        self.rows: dict[str, Known] = {}
        self.lapsed: dict[str, str] = {}
        self.events: Counter[str] = Counter()

    def forget(self, now_ms: int, *, key: str | None = None, id_: str | None = None) -> None:
        """Drop what is past its keep: everything, or what holds a key or an id."""
        for name, known in list(self.rows.items()):
            asked = (key is None and id_ is None) or name == id_ or (key is not None and known.key == key)
            if asked and known.keep_until_ms is not None and known.keep_until_ms <= now_ms:
                del self.rows[name]

    def insert(self, id_: str, known: Known, now_ms: int) -> tuple[str, str]:
        """The verdict, and the id that it is about."""
        before = dict(self.rows)
        self.forget(now_ms, key=known.key, id_=id_)
        by_key = [name for name, other in self.rows.items() if known.key is not None and other.key == known.key]
        bound = id_ if id_ in self.rows else by_key[0] if by_key else None
        if bound is None:
            self.rows[id_] = known
            self.lapsed.pop(id_, None)
            return "stored", id_
        if self.rows[bound].digest == known.digest:
            return "exists", bound
        self.rows = before  # a conflict changes nothing, not even what is past its keep
        return ("task_conflict" if bound == id_ else "key_conflict"), bound

    def claim(self, types: list[str], limit: int, order: tuple[int, ...], now_ms: int) -> list[str]:
        """The ids that a claim gets, in order."""
        due = [
            (order.index(known.priority), known.due_ms, id_)
            for id_, known in self.rows.items()
            if known.state == "pending" and known.type in types and known.due_ms <= now_ms
            if known.expires_ms is None or known.expires_ms > now_ms
        ]
        return [id_ for _, _, id_ in sorted(due)[:limit]]

    def overdue(self, now_ms: int) -> set[str]:
        """The ids that a sweep answers."""
        limits = {
            id_: known.lease_ms if known.state == "running" else known.expires_ms for id_, known in self.rows.items()
        }
        return {id_ for id_, limit_ms in limits.items() if limit_ms is not None and limit_ms <= now_ms}

    def tally(self) -> Counter[tuple[str, int, str, str]]:
        """A recount."""
        return Counter(
            (known.state, known.priority, known.type, known.reason or "")
            for known in self.rows.values()
            if known.state != "gone"
        )
