"""Whether a history can be explained: each task by itself, those that share a key together.

That suffices, for linearizability is local (Herlihy and Wing 1990).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from deadletter.model.row import Change, Claim, Inserted, Insertion, NewRow, Row, Scan, Verdict

from .history import Call, History, Sight, news_of, rows_shown
from .linearizable import Operation, Unexplained, explain
from .operations import Apply, Insert, Look, State, Take

_CONFLICTS = (Inserted.TASK_CONFLICT, Inserted.KEY_CONFLICT)


def unexplained(
    history: History, final: Mapping[str, Row | None], at: float, *, shards: int = 1, steady: bool = True
) -> list[str]:
    """What no order of the calls explains, where ``final`` are the stored rows (with all failures) ``at`` the end.

    ``steady``: one clock was read, in the order of the steps, and answers say when they were done.
    """
    groups = _Groups(history.calls, final, shards=shards, exact=steady and shards == 1)
    for call in history.calls:
        groups.add(call)
    for id_, row in final.items():
        groups.put(id_, Look(who="the end", asked=at, answered=at + 1, place=groups.place(id_), row=row, history=20))
    found: list[str] = []
    for ids, operations in groups:
        stuck = explain(operations, (None,) * len(ids), steady=steady)
        if stuck is not None:
            found.append(_told(ids, stuck))
    return found


def _told(ids: Sequence[str], stuck: Unexplained[State]) -> str:
    known = [each for each in stuck.state if each is not None]
    states = [f"{each.id} {each.state} under {each.token} by {each.op}, generation {each.generation}" for each in known]
    nexts = "\n    ".join(f"{each.asked:.1f}-{each.answered:.1f} {each.who}: {each}" for each in stuck.left[:6])  # type: ignore[attr-defined]
    why = "it could not be decided whether" if stuck.undecided else "no order"
    return f"linearizability of {', '.join(ids)}: {why} explains this; at best {states or 'nothing'} meets\n    {nexts}"


def _refused(told: Iterable[Insertion | None]) -> bool:
    return any(each is not None and each.verdict in _CONFLICTS for each in told)


class _Groups:
    """Operations by the tasks that they concern: a task, or all that share a key."""

    def __init__(self, calls: Sequence[Call], final: Mapping[str, Row | None], *, shards: int, exact: bool) -> None:
        self._shards = shards
        self._exact = exact
        self._group: dict[str, list[str]] = {}
        self._operations: dict[int, list[Operation[State]]] = defaultdict(list)
        self._places: dict[str, int] = {}
        self._tokens: dict[str, dict[str, None]] = defaultdict(dict)  # that anybody named, by task
        self._join(calls, final)
        for call in calls:
            self._note_tokens(call)
        for id_, row in final.items():
            self._note(id_, row.token if row is not None else None)

    def _join(self, calls: Sequence[Call], final: Mapping[str, Row | None]) -> None:
        keys: dict[str, list[str]] = {}
        for id_ in final:
            self._group.setdefault(id_, [id_])
        for call in calls:
            for id_ in _ids(call):
                self._group.setdefault(id_, [id_])
            for new in news_of(call) if call.name == "insert" else ():
                if new.key is not None:
                    keys.setdefault(new.key, self._group[new.id])
                    self._merge(keys[new.key], self._group[new.id])
                    keys[new.key] = self._group[new.id]
        for ids in self._group.values():
            for place, id_ in enumerate(ids):
                self._places[id_] = place

    def _merge(self, into: list[str], other: list[str]) -> None:
        into = self._group[into[0]]
        if into is not other:
            into += other
            for id_ in other:
                self._group[id_] = into

    def __iter__(self) -> Iterator[tuple[list[str], list[Operation[State]]]]:
        for ids in {id(ids): ids for ids in self._group.values()}.values():
            yield ids, self._operations[id(ids)]

    def place(self, id_: str) -> int:
        """Where a task stands in the state of its group."""
        return self._places[id_]

    def put(self, id_: str, operation: Operation[State]) -> None:
        """Add an operation on a task."""
        self._operations[id(self._group[id_])].append(operation)

    def _note(self, id_: str, token: str | None) -> None:
        if token is not None:
            self._tokens[id_][token] = None

    def _note_tokens(self, call: Call) -> None:
        if call.name == "apply":
            for change in call.args[0]:
                self._note(change.id, change.token)
        if call.answer is None:
            return
        for row, _ in rows_shown(call):
            self._note(row.id, row.token)
        if call.name == "insert":
            for insertion in call.answer:
                self._note(insertion.id, insertion.token)

    def add(self, call: Call) -> None:
        """Split a call into operations on tasks."""
        if call.name == "insert":
            self._insert(call)
        elif call.name == "claim":
            self._claim(call)
        elif call.name == "apply":
            self._apply(call)
        elif call.answer is not None:
            self._look(call)

    def _when(self, call: Call, id_: str, now_ms: int | None = None) -> dict[str, Any]:
        """Who asked, within which time, for which task; ``now_ms`` is when it was done, if the answer says so."""
        asked, answered = call.asked, call.answered
        if now_ms and self._exact:  # elsewhere it is one clock of several, or of one step among several
            asked, answered = max(asked, now_ms), min(answered, now_ms + 0.999)
        return {"who": call.who, "asked": asked, "answered": answered, "place": self._places[id_]}

    def _insert(self, call: Call) -> None:
        told: list[Insertion | None] = [None] * len(news_of(call))
        if call.answer is not None:
            told[: len(call.answer)] = call.answer
        rows: dict[int, list[tuple[NewRow, Insertion | None]]] = defaultdict(list)
        for new, said in zip(news_of(call), told, strict=True):
            rows[id(self._group[new.id])].append((new, said))
        refused = _refused(told)
        for part in rows.values():
            if refused and self._shards > 1 and not _refused([said for _, said in part]):
                # Other shards know of no conflict, so that they may have stored theirs.
                self._put_insert(attrs.evolve(call, answered=math.inf), [(new, None) for new, _ in part])
            else:
                seen = part if call.answer is None else [(new, said) for new, said in part if said is not None]
                if seen:  # what comes after a conflict is not looked at
                    self._put_insert(call, seen, refused=refused)

    def _put_insert(
        self, call: Call, rows: Sequence[tuple[NewRow, Insertion | None]], *, refused: bool = False
    ) -> None:
        now_ms = next((said.now_ms for _, said in rows if said is not None), None)
        when = self._when(call, rows[0][0].id, now_ms)
        del when["place"]
        self.put(rows[0][0].id, Insert(**when, rows=rows, places=self._places, refused=refused))

    def _claim(self, call: Call) -> None:
        claim: Claim = call.args[0]
        if call.answer is None or self._shards > 1:  # the answer of a shard that was away is missing from it
            self._claim_unseen(attrs.evolve(call, answered=math.inf), claim)
        if call.answer is not None:
            for row in call.answer.rows:
                self.put(row.id, Take(**self._when(call, row.id, call.answer.now_ms), claim=claim, row=row))
            for id_, word in call.answer.words.items():
                if id_ in self._group:
                    self.put(id_, Take(**self._when(call, id_, call.answer.now_ms), claim=claim, word=word))

    def _claim_unseen(self, call: Call, claim: Claim) -> None:
        """Whatever it may have leased shows by a token of it that somebody names."""
        answered = {row.token for row in call.answer.rows} if call.answer is not None else set()
        for id_, tokens in self._tokens.items():
            for token in tokens:
                if token not in answered and _op_of(token, id_).partition("~")[0] == claim.op:
                    self.put(id_, Take(**self._when(call, id_), claim=claim, token=token))

    def _apply(self, call: Call) -> None:
        told = call.answer if call.answer is not None else [None] * len(call.args[0])
        parts: dict[str, list[tuple[Change, Verdict | None, Sequence[Sight]]]] = defaultdict(list)
        for change, verdict, sights in zip(call.args[0], told, call.sights, strict=True):
            parts[change.id].append((change, verdict, sights))
        for id_, changes in parts.items():
            self.put(id_, Apply(**self._when(call, id_), changes=changes))

    def _look(self, call: Call) -> None:
        seen: Iterable[tuple[str, Row | None]] = [(row.id, row) for row, _ in rows_shown(call)]
        how: dict[str, Any] = {"history": call.options.get("history", 1)}
        now_ms = None
        if call.name == "load":
            seen = zip(call.args[0], call.answer, strict=True)
        elif call.name == "scan":
            scan: Scan = call.args[0]
            how, now_ms = {"history": scan.history, "body": scan.body, "lean": scan.lean}, call.answer.now_ms
        else:
            how = {"over": True}
        for id_, row in seen:
            if id_ in self._group:
                self.put(id_, Look(**self._when(call, id_, now_ms), row=row, **how))


def _op_of(token: str, id_: str) -> str:
    return token.removesuffix(f"-{id_}") if token.endswith(f"-{id_}") else ""


def _ids(call: Call) -> Iterator[str]:
    if call.name in ("insert", "apply"):
        yield from (each.id for each in call.args[0])
    if call.answer is not None:
        if call.name == "insert":
            yield from (insertion.id for insertion in call.answer)
        yield from (row.id for row, _ in rows_shown(call))
