"""What the world outside of the store saw: what was asked for, what was acknowledged, and which processors ran."""

from __future__ import annotations

import attrs

from deadletter import Task


@attrs.define(eq=False)
class Run:
    """One call of a processor."""

    task_id: str
    key: str | None
    token: str
    process: str
    began: float
    number: int
    ended: float | None = None  # None: its process died first, or the world ended
    outcome: str | None = None  # what the processor meant: succeeded, failed, cancelled, ...
    late: bool = False  # it began when its lease was over already


@attrs.define
class Ledger:
    """Kept by the harness, so that the store is never asked about itself."""

    drawn: list[str] = attrs.field(factory=list)  # ids that somebody may offer
    offered: dict[str, Task] = attrs.field(factory=dict)
    acknowledged: dict[str, str] = attrs.field(factory=dict)  # the id given → the id answered
    refused: set[str] = attrs.field(factory=set)  # by a conflict: nothing of them may be stored
    runs: list[Run] = attrs.field(factory=list)
    told: list[tuple[str, str]] = attrs.field(factory=list)  # (what an operator did, the id), where the answer was yes
    closed: bool = False

    def offer(self, task: Task) -> None:
        """Somebody is about to enqueue it; it may be stored from now on, whatever the answer says."""
        self.offered[task.id] = task

    def acknowledge(self, task: Task, answer: str) -> None:
        """The queue said that it has it."""
        self.acknowledged[task.id] = answer

    def begin(self, run: Run) -> Run:
        """A processor starts."""
        if not self.closed:
            self.runs.append(run)
        return run

    def end(self, run: Run, now: float, outcome: str) -> None:
        """A processor ends, or was ended."""
        if not self.closed and run.ended is None:
            run.ended, run.outcome = now, outcome

    def of(self, task_id: str) -> list[Run]:
        """The runs of one task."""
        return [run for run in self.runs if run.task_id == task_id]
