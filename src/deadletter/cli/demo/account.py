"""The demo's account: what the queue says against what the receiver wrote down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import attrs


@attrs.frozen(kw_only=True)
class Account:
    """What became of every delivery.

    Attributes:
        accepted: tasks that the queue took.
        delivered: tasks in the receiver's log.
        retried: attempts that were not a task's first.
        dead: deaths, replayed letters included.
        replayed: letters sent back.
        still_dead: letters that are left: kept, not lost.
        lost: accepted, and neither delivered nor dead.
        delivered_twice: deliveries in the log that were there already.
        problems: why it does not close; empty where it does.
    """

    accepted: int
    delivered: int
    retried: int
    dead: int
    replayed: int
    still_dead: int
    lost: int
    delivered_twice: int
    problems: Sequence[str] = ()

    @property
    def closes(self) -> bool:
        """Whether every task is where it must be."""
        return not self.problems


def settle(
    *,
    accepted: Collection[str],
    log: Sequence[str],
    states: Mapping[str, str],
    uncertain: Collection[str],
    lifetime: Mapping[str, int],
    replayed: int,
) -> Account:
    """Draw the account.

    Args:
        accepted: ids that ``enqueue`` answered with.
        log: ids in the receiver's log, in order.
        states: what the queue says of each id at the end.
        uncertain: ids whose worker vanished in mid-attempt: only these may have been delivered twice.
        lifetime: the queue's counters.
        replayed: how many letters were sent back.
    """
    ids, times = set(accepted), Counter(log)
    said_done = {task_id for task_id, state in states.items() if state == "succeeded"}
    dead = {task_id for task_id, state in states.items() if state == "dead"}
    twice = {task_id for task_id, count in times.items() if count > 1}
    lost = ids - times.keys() - dead
    found = {
        "accepted, and neither in the receiver's log nor dead": lost,
        "in the receiver's log, and never accepted": times.keys() - ids,
        "succeeded as the queue says, and not in the receiver's log": said_done - times.keys() - lost,
        "neither succeeded nor dead at the end": ids - said_done - dead,
        "dead, and in the receiver's log": (dead & times.keys()) - set(uncertain),
        "delivered twice, though no worker vanished over them": twice - set(uncertain),
    }
    problems = [f"{len(which)} {what} ({', '.join(sorted(which)[:3])})" for what, which in found.items() if which]
    if lifetime.get("enqueued", 0) != len(ids):
        problems.append(f"{lifetime.get('enqueued', 0)} enqueued as the queue counts, {len(ids)} accepted")
    return Account(
        accepted=len(ids),
        delivered=len(times.keys() & ids),
        retried=lifetime.get("retry_attempts", 0),
        dead=lifetime.get("dead", 0),
        replayed=replayed,
        still_dead=len(dead),
        lost=len(lost),
        delivered_twice=sum(times.values()) - len(times),
        problems=problems,
    )
