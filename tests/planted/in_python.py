"""Bugs in the machine, its changes and the engine: each must show in the simulation, over memory."""

from __future__ import annotations

import attrs

from deadletter.engine import enqueueing, feeder, process, settler
from deadletter.engine.attempt import Attempt
from deadletter.engine.feeder import Feeder
from deadletter.engine.keeper import Keeper
from deadletter.rules import machine

from .bug import Bug, Kind, Plant, constructor, fence, line


def _bug(name: str, kind: Kind, plant: Plant, *, by: str = "simulation", rare: bool = False) -> Bug:
    return Bug(name, kind, "Python", by, plant, rare)


FENCES = [
    _bug("no token in the fence", "fence", fence(lambda row, change: (row, attrs.evolve(change, token=None)))),
    _bug(
        "no state in the fence",
        "fence",
        fence(lambda row, change: (row, attrs.evolve(change, was=row.state))),
        rare=True,
    ),
    _bug("no repeat by op", "op id", fence(lambda row, change: (attrs.evolve(row, op=None), change))),
    _bug(
        "no lapsed check",
        "fence",
        fence(lambda row, change: (row, attrs.evolve(change, lapsed=False))),
        rare=True,
    ),
    _bug("no late settle", "fence", fence(lambda row, change: (row, attrs.evolve(change, late=False))), rare=True),
    _bug("release without token", "fence", constructor("release", token=None)),
    _bug("an extension without token", "fence", constructor("extend", token=None)),
    _bug("a success without token", "fence", constructor("succeed", token=None)),
    _bug("a lapse that asks no clock", "fence", constructor("lapse", lapsed=False), rare=True),
    _bug(
        "a purge without generation",
        "fence",
        constructor("purge", generation=None),
        by="a small world in every order",
        rare=True,  # tests/sim/test_scope.py finds both in the test command
    ),
    _bug(
        "a replay without generation",
        "fence",
        constructor("replay", generation=None),
        by="a small world in every order",
        rare=True,
    ),
    _bug(
        "a tombstone that is only stale",
        "guard",
        line(machine, "fence", "if row.state == GONE:", "if False:"),
        rare=True,
    ),
]

EFFECTS = [
    _bug("a lapse that counts an attempt", "effect", constructor("lapse", attempts=1)),
    _bug("a discard that keeps its key", "effect", constructor("discard", free_key=False), rare=True),
    _bug("a death that is not counted", "effect", constructor("die", count=())),
    _bug(
        "a claim that keeps the old token",
        "op id",
        line(machine, "take", 'f"{claim.op}', 'row.token or f"{claim.op}'),
    ),
    _bug(
        "a lease twice as long",
        "effect",
        line(machine, "take", "now_ms + claim.lease_ms", "now_ms + 2 * claim.lease_ms"),
    ),
    _bug("a lease that is over at once", "effect", line(machine, "take", "now_ms + claim.lease_ms", "now_ms")),
    _bug(
        "an attempt that is not counted", "effect", line(machine, "_count", "row.attempts += change.attempts", "pass")
    ),
    _bug("a reset that is forgotten", "effect", line(machine, "_count", "if change.reset:", "if False:")),
    _bug("a replay of the same generation", "effect", line(machine, "_count", "row.generation += 1", "pass")),
    _bug(
        "a retry that is due at once",
        "effect",
        line(machine, "_move", "row.due_ms = now_ms + change.due_ms", "row.due_ms = now_ms"),
    ),
    _bug(
        "a lapse that forgets its token",
        "effect",
        line(machine, "_move", "if not change.lapsed:", "if True:"),
        rare=True,
    ),
    _bug(
        "an extension that is not kept",
        "effect",
        line(machine, "_move", "row.lease_ms = now_ms + change.lease_ms", "pass"),
    ),
    _bug("a tally that is never left", "effect", line(machine, "apply", "journal.enter(row, -1)", "pass")),
    _bug("a change that tells no event", "effect", line(machine, "apply", "if change.event is not None:", "if False:")),
    _bug("an op that is not remembered", "op id", line(machine, "apply", "row.op = change.op", "pass")),
    _bug(
        "a key that binds nothing",
        "guard",
        line(machine, "admit", "keys.get(new.key) if new.key is not None else None", "None"),
    ),
    _bug("a duplicate that is not counted", "effect", line(machine, "admit", "draft.count(", "(lambda *_: None)(")),
]

TIMES = [
    _bug(
        "a success that is forgotten at once",
        "key TTL",
        line(machine, "_end", "now_ms + change.keep_ms if", "now_ms if"),
    ),
    _bug(
        "a delay by the producer's clock",
        "clock",
        line(
            enqueueing,
            "new_row",
            "to_ms(delay) if isinstance(delay, datetime) else None",
            'queue.clock.now_ms() + round(seconds("delay", delay) * 1000)',
        ),
    ),
    _bug(
        "a lease's end by the worker's clock",
        "clock",
        line(feeder, "begin", "(row.lease_ms or now_ms) - now_ms", "(row.lease_ms or now_ms) - queue.clock.now_ms()"),
        rare=True,
    ),
    _bug(
        "a lease counted from when its answer came",
        "clock",
        line(
            Feeder, "_ask", "self._start(row, sent, claimed.now_ms, now)", "self._start(row, now, claimed.now_ms, now)"
        ),
        rare=True,
    ),
    _bug(
        "a start under a lease that is over",
        "guard",
        lambda patch: patch.setattr(Keeper, "too_late", lambda *_: False),
    ),
]

ENGINE = [
    _bug(
        "an unknown lease that is believed in",
        "guard",
        line(
            Keeper, "_end_overlong", "elif attempt.row.key is not None and self.too_late(attempt, now):", "elif False:"
        ),
        by="a worker that is cut off",
    ),
    _bug(
        "an attempt that goes on under a lost lease",
        "guard",
        line(Keeper, "_extend_batch", 'self._stop(kept, "lost")', "pass"),
        by="a worker that is cut off",
    ),
    _bug(
        "an outcome under the op of its claim",
        "op id",
        lambda patch: patch.setattr(Attempt, "op", property(lambda self: self.row.op)),
        by="a day without a fault",
    ),
    _bug(
        "an enqueue that is answered before it is stored",
        "order",
        line(
            enqueueing,
            "enqueue",
            "    return await answer(queue, task, await queue.insert_row(new), on_dead)",
            "    try:\n"
            "        return await answer(queue, task, await queue.insert_row(new), on_dead)\n"
            "    except DeadLetterError:\n"
            "        return task.id",
        ),
    ),
    _bug(
        "a batch that is answered before it is stored",
        "order",
        line(
            enqueueing,
            "enqueue_many",
            "raise BatchFailed(at, ids, str(error)) from error",
            "return [t.id for t in given]",
        ),
    ),
    _bug(
        "a success that is told though its lease was lost",
        "guard",
        line(process, "settle", "if verdicts[0] in (Verdict.STALE, Verdict.MISSING):", "if False:"),
        by="an operator that stands still",
    ),
    _bug(
        "a suspect that runs before its start is stored",
        "order",
        line(Feeder, "_ask", "if alone:\n", "if False:\n"),
        rare=True,
    ),
    _bug(
        "an answer that goes to the neighbour",
        "order",
        line(settler.Coalescer, "_lead", "zip(others, answers[1:]", "zip(others, answers[:-1]"),
        by="a day without a fault",
    ),
    _bug(
        "a tally that is left after the move",
        "order",
        line(
            machine,
            "apply",
            "    journal.enter(row, -1)\n    row.op = change.op\n    _count(row, change, now_ms)\n"
            "    _move(row, change, now_ms, journal)\n",
            "    row.op = change.op\n    _count(row, change, now_ms)\n"
            "    _move(row, change, now_ms, journal)\n    journal.enter(row, -1)\n",
        ),
    ),
]

IN_PYTHON = [*FENCES, *EFFECTS, *TIMES, *ENGINE]
