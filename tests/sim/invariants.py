"""What must hold once everything has drained, whatever happened before."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from deadletter.model.row import DEAD, GONE, PENDING, RUNNING, SUCCEEDED, Row, Scan

from .judgement import unexplained
from .ledger import Run
from .network import at_once
from .watch import Life
from .world import DELAYS, QUEUE, World

ENDS = (SUCCEEDED, DEAD, GONE)
MOMENT = 1e-6


def violations(world: World) -> list[str]:
    """Everything that is wrong; nothing, if all is well."""
    found = [*world.broken, *world.watch.broken]
    if not found:
        rows = _rows(world)
        for check in (
            nothing_lost,
            nothing_made_up,
            counts_hold,
            attempts_add_up,
            deaths_add_up,
            answers_hold,
            keys_hold,
            pills_only,
        ):
            found += check(world, rows)
    if not found:
        found += explained(world, rows)
    return found


def explained(world: World, rows: dict[str, Row]) -> list[str]:
    """What everybody was told, and what is stored now, can have come about one step at a time."""
    final = {id_: rows.get(id_) for id_ in {*world.ledger.offered, *rows}}
    network = world.network
    return unexplained(network.history, final, network.now_ms(), shards=network.server.shards)


def _rows(world: World) -> dict[str, Row]:
    whole, rows = world.network.server.whole(QUEUE), {}
    ids = sorted({*world.ledger.offered, *world.ledger.acknowledged.values()})
    for at in range(0, len(ids), 100):
        for row in at_once(whole.load(ids[at : at + 100], history=20)):
            if row is not None:
                rows[row.id] = row
    return rows


def nothing_lost(world: World, rows: dict[str, Row]) -> Iterator[str]:
    """I1: what was acknowledged has ended, in one way, and for a reason."""
    for given, answered in world.ledger.acknowledged.items():
        row, life = rows.get(answered), world.watch.lives.get(answered)
        if row is None or life is None:
            yield f"I1: {given} was acknowledged as {answered}, and it is lost"
        elif row.state not in ENDS:
            yield f"I1: {answered} has not ended: {row.state}"
        elif row.state != life.state:
            yield f"I1: {answered} is {row.state}, and it was last made {life.state}"
    for life in world.watch.lives.values():
        done = [run for run in world.ledger.of(life.id) if run.outcome == "succeeded"]
        if life.state == SUCCEEDED and not done:
            yield f"I1: {life.id} succeeded, and no processor of it did"


def nothing_made_up(world: World, rows: dict[str, Row]) -> Iterator[str]:
    """I2: the store holds nothing that nobody gave it."""
    seen = {row.id for state in (PENDING, RUNNING, SUCCEEDED, DEAD) for row in _scan(world, state)}
    for id_ in sorted((seen | set(world.watch.lives)) - set(world.ledger.offered)):
        yield f"I2: nobody enqueued {id_}"
    for id_ in sorted(world.ledger.refused & set(rows)):
        if id_ not in world.ledger.acknowledged and world.ledger.offered[id_].idempotency_key is None:
            yield f"I2: {id_} was refused, and it is stored"


def _scan(world: World, state: str) -> list[Row]:
    found: list[Row] = []
    scan: Scan | None = Scan(state=state, limit=7)
    while scan is not None:
        page = at_once(world.network.server.whole(QUEUE).scan(scan))
        found += page.rows
        scan = Scan(state=state, limit=7, after=page.after) if page.after is not None else None
    return found


def counts_hold(world: World, rows: dict[str, Row]) -> Iterator[str]:
    """I3 and I6: the tally equals a recount of the rows, the counters one of the changes."""
    counts = at_once(world.network.server.whole(QUEUE).counts())
    recount = Counter(
        (str(row.state), row.priority, row.type, row.reason or "") for row in rows.values() if row.state != GONE
    )
    if dict(counts.tally) != dict(recount):
        yield f"I3: the tally says {dict(counts.tally)}, a recount {dict(recount)}"
    for state in (SUCCEEDED, DEAD):
        scanned = [row.id for row in _scan(world, state)]
        stored = sorted(row.id for row in rows.values() if row.state == state)
        if sorted(scanned) != stored:
            yield f"I3: a scan finds {scanned} in state {state}, one by one there are {stored}"
    if dict(counts.lifetime) != dict(world.watch.lifetime):
        yield f"I6: the counters say {dict(counts.lifetime)}, a recount {dict(world.watch.lifetime)}"
    events, recounted = [(event.kind, event.task_id or "") for event in world.heard], world.watch.events
    if world.network.server.shards > 1:  # each shard has an order of its own
        events, recounted = sorted(events), sorted(recounted)
    if events != recounted:
        yield f"I6: the events are {events}, a recount says {recounted}"


def attempts_add_up(world: World, rows: dict[str, Row]) -> Iterator[str]:
    """I5: attempts are claims less what was given back, each belongs to a run, and they are bounded."""
    runs = {(run.task_id, run.token): run for run in world.ledger.runs}
    for life in world.watch.lives.values():
        row = rows[life.id]
        if row.attempts != life.attempts or life.ended != life.grants - life.returned:
            yield f"I5: {life.id} has {row.attempts} attempts of {life.ended}; {life.grants} claims, {life.returned} back"
        if not life.replays and row.attempts > len(DELAYS) + 1:
            yield f"I5: {life.id} had {row.attempts} attempts, its limit is {len(DELAYS) + 1}"
        for token, change in life.attempt_tokens:
            run = runs.get((life.id, token))
            if run is None:
                yield f"I5: an attempt of {life.id} under {token} was counted, and no processor ran"
            elif change.to == SUCCEEDED and run.outcome != "succeeded":
                yield f"I5: {life.id} succeeded under {token}, where its processor ended with {run.outcome}"


def deaths_add_up(world: World, rows: dict[str, Row]) -> Iterator[str]:
    """I6: one death per task and generation, each counted and told once."""
    for life in world.watch.lives.values():
        for generation, n in life.deaths.items():
            if n > 1:
                yield f"I6: {life.id} died {n} times in generation {generation}"
        if rows[life.id].generation != life.generation:
            yield f"I6: {life.id} is of generation {rows[life.id].generation}, it was replayed {life.generation} times"
    died = sum(sum(life.deaths.values()) for life in world.watch.lives.values())
    counted = sum(n for (name, _, _), n in world.watch.lifetime.items() if name == "dead")
    if died != counted:
        yield f"I6: {died} died, {counted} were counted"


def answers_hold(world: World, rows: dict[str, Row]) -> Iterator[str]:
    """What an operator was told has happened."""
    del rows
    ways = {"processed": "succeeded", "cancelled": "cancelled"}
    for what, id_ in world.ledger.told:
        life = world.watch.lives.get(id_)
        if what in ways and (life is None or ways[what] not in {how for _, how in life.ends}):
            yield f"the operator was told that {id_} was {what}, and it was not"
        if what == "replayed" and (life is None or not life.replays):
            yield f"the operator was told that {id_} was replayed, and it was not"


def keys_hold(world: World, rows: dict[str, Row]) -> Iterator[str]:
    """I7: attempts with one key never overlap while their leases hold, and none starts after a recorded success.

    A process that stood still cannot know that its lease is over. Everybody else can, so there it holds beyond the
    lease too.
    """
    del rows
    by_key: dict[str, list[Run]] = defaultdict(list)
    for run in world.ledger.runs:
        if run.late and not _stood_still(world, run):
            yield f"I7: {run.task_id} started in {run.process} at {run.began:.3f} s under a lease that was over"
        if run.key is not None:
            by_key[run.key].append(run)
    for runs in by_key.values():
        for index, one in enumerate(runs):
            for other in runs[index + 1 :]:
                yield from _overlap(world, one, other)
    for life in world.watch.lives.values():
        if life.key is not None and life.state == SUCCEEDED:
            yield from _after_success(world, life, by_key[life.key])


def _overlap(world: World, one: Run, other: Run) -> Iterator[str]:
    began = max(one.began, other.began)
    told = (
        f"{one.task_id} in {one.process} and {other.task_id} in {other.process} ran beside each other at {began:.3f} s"
    )
    both_valid = min(_end(one), _end(other), *(world.watch.leases[run.token].until for run in (one, other)))
    if both_valid - began > MOMENT:
        yield f"I7: {told}, under valid leases"
    elif min(_end(one), _end(other)) - began > MOMENT and not (_stood_still(world, one) or _stood_still(world, other)):
        yield f"I7: {told}, though neither stood still"


def _after_success(world: World, life: Life, runs: list[Run]) -> Iterator[str]:
    succeeded = life.ends[-1][0]
    for run in runs:
        if run.began > succeeded + MOMENT and not _stood_still(world, run):
            yield f"I7: {run.task_id} started in {run.process} at {run.began:.3f} s, after a success at {succeeded:.3f} s"


def _end(run: Run) -> float:
    return run.ended if run.ended is not None else float("inf")


def _stood_still(world: World, run: Run) -> bool:
    return world.stood_still(run.process, world.watch.leases[run.token].granted, _end(run))


def pills_only(world: World, rows: dict[str, Row]) -> Iterator[str]:
    """Who dies of lost workers lost enough of them, the last one while alone."""
    for row in rows.values():
        life = world.watch.lives[row.id]
        if row.state == DEAD and row.reason == "worker_lost" and life.losses < 3:
            yield f"{row.id} is dead as worker_lost after {life.losses} losses"


__all__ = ["violations"]
