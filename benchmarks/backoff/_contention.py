"""Clients that contend for one versioned row: the model behind "Exponential Backoff And Jitter".

Each client reads the row's version and writes it back; a write whose version has been overtaken fails, and the client
backs off and begins anew. Every message takes |N(10, 2)| ms; the backoff has a base of 5 ms and a cap of 2 s.
Marc Brooker, AWS Architecture Blog, 2015; the delays here come from this library's own policies.
"""

from __future__ import annotations

import heapq
import itertools
import random

from deadletter.retry import Exponential, FailedAttempt, RetryPolicy

BASE, CAP = 0.005, 2.0
POLICIES: dict[str, RetryPolicy | None] = {
    "no backoff": None,
    "exponential, no jitter": Exponential(2 * BASE, 2, CAP, jitter=None),  # the article's first delay is base · 2
    "equal jitter": Exponential(2 * BASE, 2, CAP, jitter="equal"),
    "full jitter": Exponential(2 * BASE, 2, CAP, jitter="full"),
    "decorrelated jitter": Exponential(BASE, 2, CAP, jitter="decorrelated"),
}


def contend(clients: int, policy: RetryPolicy | None, seed: int) -> tuple[int, float]:
    """Writes that were sent until every client had succeeded, and the seconds that it took."""
    chance = random.Random(seed)
    travel = lambda: abs(chance.normalvariate(0.010, 0.002))  # noqa: E731 - one expression, used four times below
    order = itertools.count()
    version = writes = 0
    now = 0.0
    queue = [(travel(), next(order), "read", client, 0, 0) for client in range(clients)]
    heapq.heapify(queue)
    while queue:
        now, _, what, client, seen, failures = heapq.heappop(queue)
        if what == "read":
            step = (now + travel() + travel(), next(order), "write", client, version, failures)
        else:
            writes += 1
            if seen == version:
                version += 1
                continue
            failures += 1
            told = FailedAttempt(number=failures, random=chance, task_id=f"{seed} {client}")
            wait = (policy.delay(told) or 0.0) if policy is not None else 0.0
            step = (now + travel() + wait + travel(), next(order), "read", client, 0, failures)
        heapq.heappush(queue, step)
    return writes, now
