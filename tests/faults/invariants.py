"""What must hold once all is over, by the ledger, by the store's own audit and by a recount."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from .store import ENDS, Audit, Store


def check(store: Store, *, killed: Collection[str] = ()) -> None:
    """Fail with everything that is wrong; ``killed`` are the names of the workers that may have lost leases."""
    audit = store.audit()
    found = [
        *nothing_lost(store),
        *nothing_made_up(store),
        *counts_hold(store),
        *attempts_add_up(store, audit),
        *losses_are_explained(audit, killed),
        *counters_hold(store, audit),
        *effects_hold(store),
        *store.unexplained(),
    ]
    assert not found, "\n".join(found[:20])


def nothing_lost(store: Store) -> Iterator[str]:
    """I1: what was acknowledged has ended, in one way."""
    states = dict(store.rows())
    for id_ in store.ledger.ids("acknowledged"):
        if states.get(id_) not in ENDS:
            yield f"I1: {id_} was acknowledged and is {states.get(id_, 'lost')}"


def nothing_made_up(store: Store) -> Iterator[str]:
    """I2: nothing is stored that nobody offered."""
    for id_ in sorted({id_ for id_, _ in store.rows()} - set(store.ledger.ids("offered"))):
        yield f"I2: nobody offered {id_}"


def counts_hold(store: Store) -> Iterator[str]:
    """I3 (and I12): each index holds what the rows say, and the tally equals a recount."""
    yield from (f"I3: {said}" for said in store.differences())


def attempts_add_up(store: Store, audit: Audit) -> Iterator[str]:
    """I4 and I5: each claim has a token of its own, and attempts are claims less what came back."""
    begun = Counter(store.ledger.ids("began"))
    for id_, attempts in store.rows("id, attempts"):
        steps = audit[id_]
        claims = [step["token"] for step in steps if step["became"] == "running" and step["was"] == "pending"]
        if len(set(claims)) != len(claims):
            yield f"I4: a token of {id_} was given twice"
        back = sum(step["was"] == "running" and step["became"] != "running" and not step["attempts"] for step in steps)
        late = sum(step["was"] == "pending" and step["attempts"] > 0 for step in steps)
        ended = sum(step["attempts"] > 0 for step in steps)
        replayed = any(step["replays"] for step in steps)
        if ended != len(claims) - back + late or (not replayed and attempts != ended):
            yield f"I5: {id_} has {attempts} attempts; claimed {len(claims)}, came back {back}, late {late}"
        if ended > begun[id_] > 0:
            yield f"I5: {id_} has {ended} attempts and was begun {begun[id_]} times"


def losses_are_explained(audit: Audit, killed: Collection[str]) -> Iterator[str]:
    """A lease is lost only where its row was started and its worker was killed."""
    for id_, steps in audit.items():
        for step in steps:
            if step["losses"] and not (step["started"] and step["owner"] in killed):
                yield f"{id_} lost a lease of {step['owner']} (started: {step['started']}, killed: {sorted(killed)})"


def counters_hold(store: Store, audit: Audit) -> Iterator[str]:
    """I6: lifetime counters and stored events equal the transitions; one death per generation."""
    steps = [step for steps in audit.values() for step in steps]
    expected = {
        "succeeded": sum(step["became"] == "succeeded" for step in steps),
        "dead": sum(step["became"] == "dead" for step in steps),
        "lost": sum(step["losses"] for step in steps),
        "replayed": sum(step["replays"] for step in steps),
    }
    counted, told = store.counters(), store.events()
    for name, n in expected.items():
        if counted.get(name, 0) != n:
            yield f"I6: {name} is counted {counted.get(name, 0)} times and happened {n} times"
    for name in ("dead", "replayed"):
        if told.get(name, 0) != expected[name]:
            yield f"I6: {name} was told {told.get(name, 0)} times and happened {expected[name]} times"
    for id_, own in audit.items():
        if sum(step["became"] == "dead" for step in own) > 1 + sum(step["replays"] for step in own):
            yield f"I6: {id_} died more often than it lived"


def effects_hold(store: Store) -> Iterator[str]:
    """I7: what succeeded had its effect, and again only where a worker was lost after it."""
    effects = store.ledger.effects()
    for id_, state, losses, key in store.rows("id, state, lease_losses, key"):
        if state == "succeeded" and not effects[id_]:
            yield f"I7: {id_} succeeded without an effect"
        if effects[id_] > (1 if key is not None else 1 + losses):
            yield f"I7: {id_} had {effects[id_]} effects and lost {losses} leases"
