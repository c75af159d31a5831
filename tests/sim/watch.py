"""What the store did, step by step, beside a small model of what it may do.

The store does one step at a time, so the model can follow: it says which verdict each change must meet, and who holds
which task. A step that answers otherwise is written down in ``broken``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from deadletter.model.row import (
    DEAD,
    GONE,
    PENDING,
    RUNNING,
    SUCCEEDED,
    Change,
    Claim,
    Claimed,
    Inserted,
    Insertion,
    NewRow,
    Row,
    Verdict,
)


@attrs.define
class Lease:
    """One claim of one task: until when the store honours it."""

    task_id: str
    granted: float
    until: float
    alone: bool


@attrs.define
class Life:
    """What the model knows of one task."""

    id: str
    type: str
    key: str | None
    state: str = PENDING
    token: str | None = None
    op: str | None = None
    generation: int = 0
    attempts: int = 0  # since the last reset, as the row counts
    lease_ms: int | None = None
    due_ms: int = 0
    expires_ms: int | None = None
    grants: int = 0
    ended: int = 0  # attempts in all
    returned: int = 0  # grants that ended in no attempt
    losses: int = 0  # since the last replay
    replays: int = 0
    shard: int = 0
    ends: list[tuple[float, str]] = attrs.field(factory=list)  # (time, how it ended), newest last
    deaths: Counter[int] = attrs.field(factory=Counter)  # by generation
    attempt_tokens: list[tuple[str, Change]] = attrs.field(factory=list)


class Watch:
    """Sees each step of one queue right after the store has done it."""

    def __init__(self, queue: str, now_ms: Callable[[], int], time: Callable[[], float]) -> None:
        self.lives: dict[str, Life] = {}
        self.keys: dict[str, str] = {}
        self.leases: dict[str, Lease] = {}
        self.lifetime: Counter[tuple[str, str, str]] = Counter()
        self.events: list[tuple[str, str]] = []
        self.broken: list[str] = []
        self.steps: Counter[str] = Counter()
        self._shard = 0
        self.queue = queue
        self._now_ms = now_ms
        self._time = time
        self._trace = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Of everything that happened: equal only where the same things happened in the same order."""
        return self._trace.hexdigest()[:16]

    def saw(self, name: str, args: Sequence[Any], answer: Any, shard: int = 0) -> None:
        """A step was done, on one shard of the queue."""
        self._shard = shard
        self.steps[name] += 1
        self._trace.update(f"{self._time():.6f} {name} {_short(args, answer)}\n".encode())
        if args and args[0] == self.queue:
            look = {"insert": self._inserted, "claim": self._claimed, "apply": self._applied, "sweep": self._swept}.get(
                name
            )
            if look is not None:
                look(args[1], answer)

    def _here(self, id_: str) -> Life | None:
        life = self.lives.get(id_)
        return life if life is not None and life.shard == self._shard else None

    def _break(self, what: str) -> None:
        self.broken.append(f"at {self._time():.3f} s: {what}")

    def _inserted(self, rows: Sequence[NewRow], answers: Sequence[Insertion]) -> None:
        if any(answer.verdict in (Inserted.TASK_CONFLICT, Inserted.KEY_CONFLICT) for answer in answers):
            return
        for new, answer in zip(rows, answers, strict=True):
            if answer.verdict is Inserted.EXISTS:
                self.lifetime["duplicates", new.type, str(answer.state)] += 1
                if answer.id not in self.lives or (answer.id != new.id and self.keys.get(new.key or "") != answer.id):
                    self._break(
                        f"insert of {new.id} was answered with {answer.id}, which holds neither its id nor its key"
                    )
                continue
            if new.id in self.lives:
                self._break(f"{new.id} was stored twice")
            if new.key is not None and new.key in self.keys:
                self._break(f"{new.id} was stored beside {self.keys[new.key]}, which holds its key")
            now_ms = self._now_ms()
            life = self.lives[new.id] = Life(new.id, new.type, new.key, due_ms=now_ms + new.due_ms, shard=self._shard)
            life.expires_ms = now_ms + new.expires_ms if new.expires_ms is not None else None
            if new.key is not None:
                self.keys[new.key] = new.id
            self.lifetime.update(new.count)

    def _claimed(self, claim: Claim, answer: Claimed) -> None:
        now_ms = self._now_ms()
        for row in answer.rows:
            life = self._here(row.id)
            if life is None:
                self._break(f"{row.id} was claimed, and nobody has stored it")
                continue
            if row.token in self.leases:
                if life.token != row.token or life.op != claim.op:
                    self._break(f"{row.id} was answered again under {row.token}, which it does not carry any more")
                continue
            if life.state != PENDING:
                self._break(f"{row.id} was claimed while {life.state} under {life.token}")
            if claim.ids is None and (life.due_ms > now_ms or row.type not in claim.types):
                self._break(f"{row.id} of type {row.type} was claimed though it was not asked for, or not due")
            if (row.generation, row.attempts) != (life.generation, life.attempts):
                self._break(f"{row.id} was claimed with {row.attempts} attempts, and it has had {life.attempts}")
            life.state, life.token, life.op = RUNNING, row.token, claim.op
            life.lease_ms = now_ms + claim.lease_ms
            life.grants += 1
            until = self._time() + claim.lease_ms / 1000
            self.leases[row.token or ""] = Lease(row.id, self._time(), until, claim.alone)

    def _applied(self, changes: Sequence[Change], verdicts: Sequence[Verdict]) -> None:
        for change, verdict in zip(changes, verdicts, strict=True):
            life = self._here(change.id)
            must = _judge(life, change, self._now_ms())
            if verdict is not must:
                state = f"{life.state} under {life.token}" if life is not None else "unknown"
                self._break(
                    f"{change.was} -> {change.to} of {change.id} ({change.op}) was {verdict}; it is {state}: {must}"
                )
            if verdict is Verdict.DONE and life is not None:
                self._follow(life, change)

    def _follow(self, life: Life, change: Change) -> None:
        now_ms = self._now_ms()
        late = life.state == PENDING and change.was == RUNNING
        lease = self.leases.get(life.token or "")
        if change.was == RUNNING and lease is not None:
            lease.until = self._time() + change.lease_ms / 1000 if change.lease_ms else lease.until
            if change.to != RUNNING and not late:
                lease.until = self._time()
        if change.lease_losses and (life.lease_ms or 0) > now_ms:
            self._break(f"{life.id} lost its lease {life.lease_ms} at {now_ms}, too early")  # whatever the change asked
        if change.was == RUNNING and change.to != RUNNING:
            life.returned += (not change.attempts) - late
            life.losses += change.lease_losses
        if change.attempts:
            life.attempt_tokens.append((life.token or "", change))
        life.op, life.state = change.op, change.to
        life.attempts = 0 if change.reset else life.attempts + change.attempts
        life.ended += change.attempts
        life.lease_ms = now_ms + change.lease_ms if change.lease_ms is not None else life.lease_ms
        life.due_ms = now_ms + change.due_ms if change.due_ms is not None else life.due_ms
        if change.revive:
            life.generation, life.losses, life.replays = life.generation + 1, 0, life.replays + 1
        if change.attempts or change.lease_losses or change.revive:
            life.expires_ms = None
        if change.to != RUNNING and not change.lapsed:
            life.token = None
        self._note_end(life, change)
        self.lifetime.update(change.count)
        if change.event is not None:
            self.events.append((change.event, life.id))

    def _note_end(self, life: Life, change: Change) -> None:
        if change.to in (SUCCEEDED, DEAD, GONE):
            life.ends.append((self._time(), change.event or str(change.to)))
        if change.to == DEAD:
            life.deaths[life.generation] += 1
        if change.to == GONE and life.key is not None:
            self.keys.pop(life.key, None)

    def _swept(self, limit: int, rows: Sequence[Row]) -> None:
        now_ms = self._now_ms()
        for row in rows:
            life = self.lives[row.id]
            ends = life.lease_ms if life.state == RUNNING else life.expires_ms
            if row.state != life.state or ends is None or ends > now_ms:
                self._break(f"{row.id} was swept though neither its lease nor its time was over")
        if len(rows) > limit:
            self._break(f"a sweep answered {len(rows)} rows, more than {limit}")


def _judge(life: Life | None, change: Change, now_ms: int) -> Verdict:
    """The verdict that the contract wants, said another way than the machine says it."""
    if life is None:
        return Verdict.MISSING
    if life.op == change.op:
        return Verdict.REPEATED
    if life.state == GONE:
        return Verdict.MISSING
    mine = change.token is not None and change.token == life.token
    if change.was == RUNNING:
        if change.lapsed:
            fits = life.state == RUNNING and mine and (life.lease_ms or 0) <= now_ms
        else:
            fits = mine and (life.state == RUNNING or (change.late and life.state == PENDING))
    else:
        fits = life.state == change.was
        if change.lapsed:
            fits = fits and life.expires_ms is not None and life.expires_ms <= now_ms
    if change.generation is not None:
        fits = fits and change.generation == life.generation
    return Verdict.DONE if fits else Verdict.STALE


def _short(args: Sequence[Any], answer: Any) -> str:
    """What tells one step from another: who was asked for what, and the answer."""
    if isinstance(answer, Claimed):
        return f"{args[1].owner} {[(row.id, row.token) for row in answer.rows]}"
    if isinstance(answer, list) and answer and isinstance(answer[0], Verdict):
        return f"{[(change.id, change.op) for change in args[1]]} {answer}"
    if isinstance(answer, list):
        return f"{[getattr(each, 'id', None) for each in answer]}"
    return type(answer).__name__
