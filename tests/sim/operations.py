"""What a call does to a task, or to the tasks that share a key, and which answers that allows.

Lapse and expiry are operations like any other: the changes of a sweeper, which the clock must allow. And beyond what a
change's own fence says, nobody changes a row that has moved on since it was shown to them: a fence that was forgotten
is found by the first race that it should have decided.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from deadletter.backends.redis.records import shortened  # as the specification keeps it
from deadletter.model.row import PENDING, RUNNING, SUCCEEDED, Change, Claim, Inserted, Insertion, NewRow, Row, Verdict

from . import spec
from .history import Sight
from .linearizable import Operation, Time
from .spec import Known

State = tuple[Known | None, ...]


def _with(state: State, at: int, known: Known | None) -> State:
    return (*state[:at], known, *state[at + 1 :])


@attrs.frozen(kw_only=True, eq=False)
class _Step(Operation[State]):
    who: str
    asked: float
    answered: float


@attrs.frozen(kw_only=True, eq=False)
class Insert(_Step):
    """Those rows of a call that concern these tasks; ``places`` says which task each row's id is."""

    rows: Sequence[tuple[NewRow, Insertion | None]]
    places: Mapping[str, int]
    refused: bool = False  # a row of the call conflicts, so that nothing of it was stored

    def steps(self, state: State, at: Time) -> Iterator[State]:
        found = [state]
        for new, told in self.rows:
            found = [after for before in found for after in self._row(before, new, told, at)]
        yield from [state] * bool(found) if self.refused else found

    def _row(self, state: State, new: NewRow, told: Insertion | None, at: Time) -> Iterator[State]:
        place = self.places[new.id]
        for before in _perhaps_forgotten(state, [place, *_holders(state, new.key)], at):
            bound = before[place] or next((before[n] for n in _holders(before, new.key)), None)
            if bound is None:
                if told is None or (told.verdict is Inserted.STORED and told.id == new.id):
                    yield _with(before, place, spec.born(new, at))
            elif self._bound(bound, before[place] is not None, new, told):
                yield before

    @staticmethod
    def _bound(bound: Known, by_id: bool, new: NewRow, told: Insertion | None) -> bool:
        if told is None:
            return bound.digest == shortened(new.digest)  # else it conflicts, and nothing of the call was stored
        conflict = Inserted.TASK_CONFLICT if by_id else Inserted.KEY_CONFLICT
        verdict = Inserted.EXISTS if bound.digest == shortened(new.digest) else conflict
        body = bound.body if bound.state == SUCCEEDED else None
        said = (told.verdict, told.id, str(told.state), told.generation, told.token, told.body)
        return said == (verdict, bound.id, bound.state, bound.generation, bound.token, body)

    def __str__(self) -> str:
        told = [f"{new.id}: {f'{said.verdict} {said.id}' if said else '?'}" for new, said in self.rows]
        return f"insert {', '.join(told)}"


def _holders(state: State, key: str | None) -> list[int]:
    return [at for at, known in enumerate(state) if key is not None and known is not None and known.key == key]


def _perhaps_forgotten(state: State, places: Iterable[int], at: Time) -> list[State]:
    states = [state]
    for place in dict.fromkeys(places):
        if spec.forgettable(state[place], at):
            states += [_with(each, place, None) for each in states]
    return states


@attrs.frozen(kw_only=True, eq=False)
class _OfOne(_Step):
    """Of one task."""

    place: int

    def steps(self, state: State, at: Time) -> Iterator[State]:
        for before in _perhaps_forgotten(state, [self.place], at):
            for known in self._after(before[self.place], at):
                yield _with(before, self.place, known)

    @abc.abstractmethod
    def _after(self, known: Known | None, at: Time) -> Iterator[Known | None]:
        """What it may have become."""


@attrs.frozen(kw_only=True, eq=False)
class Take(_OfOne):
    """A claim, as far as it gave this task, or a word of why not; without an answer, by the token that it would give."""

    claim: Claim
    row: Row | None = None
    word: str | None = None
    token: str | None = None

    def _after(self, known: Known | None, at: Time) -> Iterator[Known | None]:
        if self.word is not None:
            if spec.word_fits(known, self.word, at):
                yield known
        elif known is not None and self.row is None:
            if spec.claimable(known, self.claim, at):
                token = self.token or ""
                yield spec.taken(known, self.claim, token.removesuffix(f"-{known.id}"), token, at)
        elif known is not None and self.row is not None and self._is_of(self.row):
            if spec.claimable(known, self.claim, at):
                known = spec.taken(known, self.claim, self.row.op or "", self.row.token or "", at)
            seen = spec.as_seen(known, self.row, history=1)
            if seen is not None and seen.state == RUNNING:
                yield seen

    def _is_of(self, row: Row) -> bool:
        return row.op is not None and row.op.partition("~")[0] == self.claim.op

    def __str__(self) -> str:
        got = f"{self.row.id} under {self.row.token}" if self.row is not None else self.word or f"? {self.token}"
        return f"claim {self.claim.op}: {got}"


@attrs.frozen(kw_only=True, eq=False)
class Apply(_OfOne):
    """The changes of one call that concern this task, in their order."""

    changes: Sequence[tuple[Change, Verdict | None, Sequence[Sight]]]

    def _after(self, known: Known | None, at: Time) -> Iterator[Known | None]:
        now = known
        for change, told, sights in self.changes:
            possible = tuple(spec.verdicts(now, change, at))
            if told is not None and told not in possible:
                return
            if (told or possible[0]) is Verdict.DONE and now is not None:
                if not _as_shown(now, change, sights):
                    return
                now = spec.changed(now, change, at)
        if not self.open or now is not known:
            yield now

    def __str__(self) -> str:
        return "; ".join(
            f"{change.was} -> {change.to} by {change.op}: {told or '?'}" for change, told, _ in self.changes
        )


def _as_shown(known: Known, change: Change, sights: Sequence[Sight]) -> bool:
    """Whether the row is still as it was shown to who changes it; who was shown nothing has built on nothing."""
    if not sights:
        return True
    if change.was == RUNNING:
        return any(token == known.token for _, token in sights)
    return any(generation == known.generation for generation, _ in sights)


@attrs.frozen(kw_only=True, eq=False)
class Look(_OfOne):
    """Somebody saw the row, or that there is none."""

    row: Row | None
    history: int = 1
    body: bool = True
    lean: bool = False
    over: bool = False  # a sweep answered it: its lease or its time was over

    def _after(self, known: Known | None, at: Time) -> Iterator[Known | None]:
        if self.row is None:
            if known is None:
                yield None
        elif known is not None and not (self.over and _limit(known)[0] > at[1]):
            seen = spec.as_seen(known, self.row, history=self.history, body=self.body, lean=self.lean)
            if seen is not None:
                yield seen

    def __str__(self) -> str:
        row = self.row
        said = f"{row.state} under {row.token} by {row.op}, attempts {row.attempts}" if row is not None else "nothing"
        return f"{'sweep' if self.over else 'look'}: {said}"


def _limit(known: Known) -> Time:
    return {RUNNING: known.lease, PENDING: known.expires}.get(known.state, spec.NEVER)  # type: ignore[call-overload,no-any-return]
