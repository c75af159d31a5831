"""Who asked the store for what, when, and what the answer was: a log of calls, as their callers saw them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from deadletter.model.row import Change, Claimed, Insertion, NewRow, Row, Scan, Slice

WRITES = ("insert", "claim", "apply")
LOGGED = (*WRITES, "sweep", "load", "scan")

Sight = tuple[int, str | None]
"""What somebody was shown of a row that a change of theirs may build on: its generation, and its token."""


@attrs.define(eq=False)
class Call:
    """One call of the store; times are milliseconds of the server's clock.

    Attributes:
        who: the process that asked.
        asked: no earlier did it happen.
        answered: no later did it happen; without an answer it may happen at any time, or never.
        answer: what the caller was told; None where no answer came.
        sights: of an ``apply``, what its caller had been shown of each change's row by then.
    """

    who: str
    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    asked: float
    answered: float = math.inf
    answer: Any = None
    sights: tuple[tuple[Sight, ...], ...] = ()


class History:
    """The calls on one queue, in the order in which they were asked."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._sights: dict[tuple[str, str], tuple[Sight, ...]] = {}

    def ask(self, who: str, name: str, args: Sequence[Any], options: dict[str, Any] | None, at: float) -> Call | None:
        """A call leaves its caller; None where nobody needs to know of it."""
        if name not in LOGGED:
            return None
        call = Call(who, name, tuple(args), options or {}, at)
        if name == "apply":
            call.sights = tuple(self._own(who, change) for change in args[0])
        self.calls.append(call)
        return call

    def repeat(self, call: Call, at: float) -> None:
        """The same request is under way once more, and nobody waits for its answer."""
        if call.name in WRITES:
            self.calls.append(attrs.evolve(call, asked=at, answered=math.inf, answer=None))

    def tell(self, call: Call, answer: Any, at: float) -> None:
        """An answer has reached the caller."""
        call.answer, call.answered = _kept(answer), at
        for id_, sight in _shown(call):
            seen = self._sights.get((call.who, id_), ())
            if sight not in seen:
                self._sights[call.who, id_] = (*seen, sight)

    def _own(self, who: str, change: Change) -> tuple[Sight, ...]:
        if change.new_token is not None:
            self._sights[who, change.id] = (*self._sights.get((who, change.id), ()), (0, change.new_token))
        return self._sights.get((who, change.id), ())


def _kept(answer: Any) -> Any:
    """An answer that nobody will change any more: callers own the rows that they get."""
    if isinstance(answer, Claimed | Slice):
        return attrs.evolve(answer, rows=[row.twin() for row in answer.rows])
    if isinstance(answer, list):
        return [each.twin() if isinstance(each, Row) else each for each in answer]
    return answer


def _shown(call: Call) -> Iterator[tuple[str, Sight]]:
    if call.name == "insert":
        for insertion in call.answer:
            yield insertion.id, _sight(insertion)
        for new in call.args[0]:
            if new.token is not None:
                yield new.id, (0, new.token)
        return
    for row, lean in rows_shown(call):
        if not lean:
            yield row.id, _sight(row)


def _sight(seen: Row | Insertion) -> Sight:
    return seen.generation, seen.token


def rows_shown(call: Call) -> Iterator[tuple[Row, bool]]:
    """The rows in an answer, and whether they are lean."""
    if call.name in ("claim", "scan"):
        lean = call.name == "scan" and _scan_of(call).lean
        yield from ((row, lean) for row in call.answer.rows)
    elif call.name in ("sweep", "load"):
        yield from ((row, False) for row in call.answer if row is not None)


def _scan_of(call: Call) -> Scan:
    scan: Scan = call.args[0]
    return scan


def news_of(call: Call) -> Sequence[NewRow]:
    """The rows that an insert brings."""
    news: Sequence[NewRow] = call.args[0]
    return news
