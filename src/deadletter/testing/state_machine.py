"""A Hypothesis machine that takes random steps on a backend beside the dict model.

Model-based testing of stateful systems after Claessen and Hughes (QuickCheck), in Hypothesis' form.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeVar

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ..interfaces.backend import Backend
from ..interfaces.clock import Clock
from ..model.record import Reason
from ..model.row import Change, Claim, FailureRow, NewRow, Row
from ..rules import changes
from .model import Known, Model, view
from .virtual_clock import VirtualClock

T = TypeVar("T")

QUEUE = "model"
LEASE_MS, KEEP_MS, EXPIRES_MS = 1_000, 5_000, 3_000
IDS = [f"task{n}" for n in range(5)]
ids = st.sampled_from(IDS)
_KEYS = dict(zip(IDS, ["k1", "k1", "k2"], strict=False))  # where an id has the same key each time, or none


class BackendStateMachine(RuleBasedStateMachine):
    """Random steps on a backend beside the model, in one event loop and on a virtual clock.

    Subclass it with ``make_backend``, or call ``backend_state_machine``.
    """

    make_backend: ClassVar[Callable[[Clock], Backend]]
    ordered: ClassVar[bool] = True  # see BackendConformance

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.model = Model()
        self.backend = type(self).make_backend(self.clock)
        self.runner = asyncio.Runner()
        self.ops = 0
        self.held: dict[str, list[Row]] = {}  # every row that a claim answered, for settles that come late
        self.done: list[Change] = []
        self.lost: list[tuple[Claim, list[Row]]] = []

    def run(self, step: Awaitable[T]) -> T:
        """Wait for one step of the backend."""

        async def wait() -> T:
            return await step

        return self.runner.run(wait())

    def op(self) -> str:
        """A fresh name."""
        self.ops += 1
        return f"op{self.ops}"

    def now(self) -> int:
        """The only clock."""
        return self.clock.now_ms()

    def apply(self, change: Change, expected: str) -> None:
        """Apply one change and hold its verdict against the model's; what was done is sent again, as after a lost reply."""
        [verdict] = self.run(self.backend.apply(QUEUE, [change]))
        assert verdict == expected, f"{change} was {verdict}, expected {expected}"
        if expected == "done":
            assert self.run(self.backend.apply(QUEUE, [change])) == ["repeated"]
            self.done.append(change)
            self.model.events[change.event or ""] += 1

    def key(self, id_: str, key: str | None) -> str | None:
        """A spread queue keeps an id unique for one key."""
        return key if self.ordered else _KEYS.get(id_)

    def load(self, id_: str) -> Row | None:
        """One row with its history."""
        [row] = self.run(self.backend.load(QUEUE, [id_], history=20))
        return row

    @initialize()
    def open(self) -> None:
        """An empty store."""
        self.run(self.backend.open())

    def teardown(self) -> None:
        """Close the backend and the loop."""
        try:
            self.run(self.backend.aclose())
        finally:
            self.runner.close()

    @rule(
        id_=ids,
        type_=st.sampled_from("tu"),
        priority=st.integers(0, 2),
        key=st.sampled_from([None, None, "k1", "k2"]),
        digest=st.sampled_from("xy"),
        due_ms=st.sampled_from([0, 0, 500]),
        expires_ms=st.sampled_from([None, EXPIRES_MS]),
    )
    def insert(
        self, id_: str, type_: str, priority: int, key: str | None, digest: str, due_ms: int, expires_ms: int | None
    ) -> None:
        """Enqueue."""
        now_ms, key = self.now(), self.key(id_, key)
        new = NewRow(
            id=id_,
            type=type_,
            priority=priority,
            key=key,
            digest=digest,
            body=b"body",
            due_ms=due_ms,
            expires_ms=expires_ms,
        )
        until_ms = now_ms + expires_ms if expires_ms is not None else None
        known = Known("pending", type_, priority, digest, b"body", key, now_ms + due_ms, until_ms)
        expected = self.model.insert(id_, known, now_ms)
        [insertion] = self.run(self.backend.insert(QUEUE, [new]))
        assert (insertion.verdict, insertion.id) == expected
        assert insertion.state == self.model.rows[expected[1]].state

    @rule(id_=ids, key=st.sampled_from([None, "k1"]), keep_ms=st.sampled_from([None, KEEP_MS]))
    def capture(self, id_: str, key: str | None, keep_ms: int | None) -> None:
        """Something failed elsewhere: a letter at once."""
        now_ms, key = self.now(), self.key(id_, key)
        failure = FailureRow(attempt=1, error_type="E", message="captured")
        new = NewRow(
            id=id_,
            type="t",
            key=key,
            digest="x",
            body=b"body",
            state="dead",
            reason="captured",
            attempts=1,
            keep_ms=keep_ms,
            history=[failure],
        )
        known = Known(
            "dead", "t", 1, "x", b"body", key, now_ms, None, attempts=1, reason="captured", failures=["captured"]
        )
        known.keep_ms, known.keep_until_ms = keep_ms, now_ms + keep_ms if keep_ms is not None else None
        expected = self.model.insert(id_, known, now_ms)
        [insertion] = self.run(self.backend.insert(QUEUE, [new]))
        assert (insertion.verdict, insertion.id) == expected

    @rule(
        types=st.sampled_from([["t"], ["u"], ["t", "u"], ["t", "u", "nobody"]]),
        limit=st.integers(1, 4),
        order=st.permutations([0, 1, 2]).map(tuple),
        start=st.integers(0, 4),
    )
    def claim(self, types: list[str], limit: int, order: tuple[int, ...], start: int) -> None:
        """Claim what is due."""
        asked = Claim(
            op=self.op(),
            limit=limit,
            types=types,
            order=order,
            lease_ms=LEASE_MS,
            owner="w",
            start=start,
            keep_ms=KEEP_MS,
        )
        self._claimed(asked, self.model.claim(types, limit, order, self.now()))

    @rule(id_=ids)
    def claim_by_id(self, id_: str) -> None:
        """Claim one id, due or not."""
        known, now_ms = self.model.rows.get(id_), self.now()
        word = "missing" if known is None or known.state == "gone" else known.state
        if known is not None and word == "pending":
            word = "expired" if known.expires_ms is not None and known.expires_ms <= now_ms else ""
        asked = Claim(op=self.op(), ids=[id_], lease_ms=LEASE_MS, owner="w", keep_ms=KEEP_MS)
        self._claimed(asked, [] if word else [id_], {id_: word} if word else {})

    def _claimed(self, asked: Claim, expected: list[str], words: dict[str, str] | None = None) -> None:
        claimed = self.run(self.backend.claim(QUEUE, asked))
        assert self._as_promised([row.id for row in claimed.rows], asked, expected)
        assert dict(claimed.words) == (words or {})
        for index, row in enumerate(claimed.rows):
            known = self.model.rows[row.id]
            started = index < asked.start if self.ordered else row.started
            known.state, known.owner, known.keep_ms = "running", "w", KEEP_MS
            known.token, known.lease_ms, known.started = row.token, self.now() + LEASE_MS, started
            assert row.token not in {old.token for old in self.held.get(row.id, [])}
            self.held.setdefault(row.id, []).append(row)
            self.model.lapsed.pop(row.id, None)
        if claimed.rows:
            self.lost.append((asked, claimed.rows))

    def _as_promised(self, found: list[str], asked: Claim, expected: list[str]) -> bool:
        if self.ordered or asked.ids is not None:
            return found == expected
        due = self.model.claim(list(asked.types), len(IDS), tuple(asked.order), self.now())
        return len(found) == len(set(found)) == len(expected) and set(found) <= set(due)

    @precondition(lambda self: self.lost)
    @rule()
    def repeat_a_claim(self) -> None:
        """The reply was lost: the same claim again, while its rows are as they were, answers the same."""
        asked, rows = self.lost[-1]
        if not self.ordered and self.model.claim(list(asked.types), 1, tuple(asked.order), self.now()):
            return  # a part that had nothing then may have something now
        if all(self.load(row.id) == attrs.evolve(row, history=self._history(row.id)) for row in rows):
            assert self.run(self.backend.claim(QUEUE, asked)).rows == rows

    def _history(self, id_: str) -> list[FailureRow]:
        row = self.load(id_)
        return row.history if row is not None else []

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        way=st.sampled_from(["succeed", "try_again", "die", "postpone", "release", "discard"]),
        delay_ms=st.sampled_from([0, 700]),
    )
    def settle(self, data: st.DataObject, way: str, delay_ms: int) -> None:
        """An attempt ends: as its lease is held, after it lapsed, or long after somebody else took over."""
        id_ = data.draw(st.sampled_from(sorted(self.held)))
        row = data.draw(st.sampled_from(self.held[id_]))
        known, now_ms = self.model.rows.get(id_), self.now()
        failure = FailureRow(attempt=row.attempts + 1, error_type="E", message=f"failure {self.ops}")
        change = {
            "succeed": lambda: changes.succeed(row, self.op(), KEEP_MS),
            "try_again": lambda: changes.try_again(row, self.op(), failure, delay_ms),
            "die": lambda: changes.die(row, self.op(), Reason.REJECTED, failure, KEEP_MS),
            "postpone": lambda: changes.postpone(row, self.op(), delay_ms),
            "release": lambda: changes.release(row, self.op()),
            "discard": lambda: changes.discard(row, self.op(), KEEP_MS, "why"),
        }[way]()
        if known is None or known.state == "gone":
            self.apply(change, "missing")
            return
        held = known.state == "running" and known.token == row.token
        late = known.state == "pending" and self.model.lapsed.get(id_) == row.token
        self.apply(change, "done" if held or late else "stale")
        if held or late:
            self.model.lapsed.pop(id_, None)
            self._settled(known, way, failure.message, now_ms, delay_ms)

    @staticmethod
    def _settled(known: Known, way: str, message: str, now_ms: int, delay_ms: int) -> None:
        if way in {"succeed", "try_again", "die", "discard"}:
            known.attempts += 1
            known.expires_ms = None
        if way in {"try_again", "die"}:
            known.failures = [*known.failures, message][-20:]
        if way == "die":
            known.reason = "rejected"
        if way == "postpone":
            known.postpones += 1
        over = {"succeed": "succeeded", "die": "dead", "discard": "gone"}.get(way)
        if over is not None:
            known.end(over, now_ms + KEEP_MS)
        else:
            known.pend(None if way == "release" else now_ms + delay_ms)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), way=st.sampled_from(["start", "extend"]))
    def hold(self, data: st.DataObject, way: str) -> None:
        """A worker starts or extends what it has, or had."""
        id_ = data.draw(st.sampled_from(sorted(self.held)))
        row = data.draw(st.sampled_from(self.held[id_]))
        known = self.model.rows.get(id_)
        change = changes.start(row, self.op()) if way == "start" else changes.extend(row, self.op(), LEASE_MS)
        if known is None or known.state == "gone":
            self.apply(change, "missing")
        elif known.state != "running" or known.token != row.token:
            self.apply(change, "stale")
        else:
            self.apply(change, "done")
            if way == "start":
                known.started = True
            else:
                known.lease_ms = self.now() + LEASE_MS

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def repeat_a_change(self, data: st.DataObject) -> None:
        """The reply was lost: the last change of a row again is told as repeated; an older one never happens twice."""
        change = data.draw(st.sampled_from(self.done))
        row = self.load(change.id)
        if row is not None and row.op == change.op:
            self.apply(change, "repeated")
        elif row is None or row.state == "gone":
            self.apply(change, "missing")

    @precondition(lambda self: any(known.state == "running" for known in self.model.rows.values()))
    @rule(data=st.data(), patient=st.booleans())
    def lapse(self, data: st.DataObject, patient: bool) -> None:
        """A sweeper decides on what it saw, in time or not."""
        id_ = data.draw(st.sampled_from(sorted(i for i, known in self.model.rows.items() if known.state == "running")))
        known, row = self.model.rows[id_], self.load(id_)
        assert row is not None
        if patient and row.lease_ms is not None:
            self.clock.advance(max(0, row.lease_ms - self.now()) / 1000)
        now_ms = self.now()
        change = changes.lapse(row, self.op(), on_uncertain="retry", max_lease_losses=3)
        if known.lease_ms is not None and known.lease_ms > now_ms:
            self.apply(change, "stale")
            return
        self.apply(change, "done")
        started, token = known.started, known.token
        known.pend(now_ms if started else None)
        if started:
            known.lease_losses += 1
            known.expires_ms = None
        self.model.lapsed[id_] = token or ""

    @precondition(lambda self: any(known.state == "pending" for known in self.model.rows.values()))
    @rule(data=st.data(), way=st.sampled_from(["cancel", "expire"]))
    def end_a_pending_one(self, data: st.DataObject, way: str) -> None:
        """Cancelled, or expired if it is time."""
        id_ = data.draw(st.sampled_from(sorted(i for i, known in self.model.rows.items() if known.state == "pending")))
        known, row, now_ms = self.model.rows[id_], self.load(id_), self.now()
        assert row is not None
        if way == "cancel":
            self.apply(changes.cancel(row, self.op(), KEEP_MS), "done")
            known.end("gone", now_ms + KEEP_MS)
            return
        change = changes.expire(row, self.op())
        if known.expires_ms is None or known.expires_ms > now_ms:
            self.apply(change, "stale")
            return
        self.apply(change, "done")
        assert change.failure is not None
        known.failures.append(change.failure.message)
        known.reason = "expired"
        known.end("dead", 0)
        known.keep_until_ms = now_ms + known.keep_ms if known.keep_ms is not None else None

    @precondition(lambda self: any(known.state == "dead" for known in self.model.rows.values()))
    @rule(data=st.data(), way=st.sampled_from(["replay", "purge"]), seen_before=st.booleans())
    def handle_a_letter(self, data: st.DataObject, way: str, seen_before: bool) -> None:
        """Replayed or purged; perhaps by somebody who saw another generation of it."""
        id_ = data.draw(st.sampled_from(sorted(i for i, known in self.model.rows.items() if known.state == "dead")))
        known, row, now_ms = self.model.rows[id_], self.load(id_), self.now()
        assert row is not None
        if seen_before:
            row.generation += 1
        if way == "replay":
            change = changes.replay(row, self.op(), type="u", body=b"edited")
        else:
            change = changes.purge(row, self.op(), KEEP_MS)
        if seen_before:
            self.apply(change, "stale")
            return
        self.apply(change, "done")
        if way == "purge":
            known.end("gone", now_ms + KEEP_MS)
            return
        known.pend(now_ms)
        known.generation, known.replays = known.generation + 1, known.replays + 1
        known.attempts = known.lease_losses = 0
        known.expires_ms = known.keep_until_ms = known.reason = None
        known.type, known.body = "u", b"edited"

    @rule(seconds=st.sampled_from([0.001, 0.5, 1, 3, 5]))
    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        """What is past its keep is forgotten; what lapsed or expired is answered."""
        self.model.forget(self.now())
        rows = self.run(self.backend.sweep(QUEUE, 100))
        assert {row.id for row in rows} == self.model.overdue(self.now())

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        """Every id that there may be is loaded and compared, field by field."""
        rows = self.run(self.backend.load(QUEUE, IDS, history=20))
        stored = {row.id: view(row) for row in rows if row is not None}
        wrong = {
            id_: (stored.get(id_), self.model.rows.get(id_))
            for id_ in IDS
            if stored.get(id_) != self.model.rows.get(id_)
        }
        assert not wrong, f"stored and expected differ: {wrong}"

    @invariant()
    def counts_equal_a_recount(self) -> None:
        """The tally, and the counters of what happened."""
        counted = self.run(self.backend.counts(QUEUE))
        assert {key: n for key, n in counted.tally.items() if n} == dict(self.model.tally())
        told: Counter[str] = Counter()
        for (name, _, _), n in counted.lifetime.items():
            told[name] += n
        for kind in ("dead", "replayed", "purged", "discarded", "cancelled", "lost"):
            assert told[kind] == self.model.events[kind]


def backend_state_machine(
    make_backend: Callable[[Clock], Backend], *, examples: int = 100, steps: int = 40, ordered: bool = True
) -> type[BackendStateMachine]:
    """A machine for one backend; its ``TestCase`` runs under pytest and unittest.

    ``make_backend`` takes a clock and makes a backend on a fresh, empty store, each time. ``ordered``: see
    BackendConformance.
    """
    machine: type[BackendStateMachine] = type(
        "Machine", (BackendStateMachine,), {"make_backend": staticmethod(make_backend), "ordered": ordered}
    )
    machine.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    return machine
