"""What it costs to decide when to try again: one decision after the n-th failure, in ns, beside other libraries.

    python benchmarks/backoff/decisions.py [--quick] [--json FILE]

Each peer's own function for one delay is called, with jitter on where it has one, without its sleep or the call that it
guards. Peers that are not installed are left out. A ratio below 1 is cheaper than tenacity's exponential with jitter.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import timeit
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

sys.path.append(str(Path(__file__).parents[1]))

from report import report

from deadletter.retry import Budget, ByException, Exponential, FailedAttempt, Never, RetryFor, RetryPolicy, Schedule

ATTEMPTS = (1, 5, 50)
Decide = Callable[[], object]


def ours(number: int) -> dict[str, Decide]:
    """Every policy of the library."""
    error = TimeoutError()
    seen = FailedAttempt(number=number, error=error, task_id="task", random=random.Random(1), now=1.0, age=1.0)
    policies: dict[str, RetryPolicy] = {
        "Schedule": Schedule([5, 30, 120, 300]),
        "Exponential, no jitter": Exponential(jitter=None),
        "Exponential, full": Exponential(jitter="full"),
        "Exponential, equal": Exponential(jitter="equal"),
        "Exponential, decorrelated": Exponential(jitter="decorrelated"),
        "ByException": ByException({TimeoutError: Exponential()}, default=Never()),
        "RetryFor": RetryFor(Exponential(), 3_600),
        "Budget": Budget(Exponential()),
    }
    return {name: lambda policy=policy: policy.delay(seen) for name, policy in policies.items()}  # type: ignore[misc]


def _tenacity(number: int) -> dict[str, Decide]:
    import tenacity

    from deadletter.retry import Tenacity

    state = SimpleNamespace(attempt_number=number, seconds_since_start=1.0)
    wait = tenacity.wait_random_exponential(multiplier=1, max=300)
    again = tenacity.wait_exponential_jitter(initial=1, max=300)
    seen = FailedAttempt(number=number, error=TimeoutError(), random=random.Random(1))
    policy = Tenacity(wait=wait, stop=tenacity.stop_after_attempt(100))
    return {
        "tenacity, wait_random_exponential": lambda: wait(state),  # type: ignore[arg-type]
        "tenacity, wait_exponential_jitter": lambda: again(state),  # type: ignore[arg-type]
        "Tenacity, in deadletter": lambda: policy.delay(seen),
    }


def _stamina(number: int) -> dict[str, Decide]:
    from stamina import _core

    decide = _core._compute_backoff  # private: the public call sleeps, too
    return {"stamina": lambda: decide(number, 300, 1, 2, 1)}


def _backoff(number: int) -> dict[str, Decide]:
    import backoff

    def one() -> float:
        delays = backoff.expo(base=2, factor=1, max_value=300)
        delays.send(None)
        value = 0.0
        for _ in range(number):
            value = next(delays)
        return backoff.full_jitter(value)

    delays = backoff.expo(base=2, factor=1, max_value=300)
    delays.send(None)
    return {
        "backoff, next of its generator": lambda: backoff.full_jitter(next(delays)),
        "backoff, from the start": one,
    }


def _celery(number: int) -> dict[str, Decide]:
    from celery.utils.time import get_exponential_backoff_interval

    return {"celery": lambda: get_exponential_backoff_interval(1, number, 300, full_jitter=True)}


def _urllib3(number: int) -> dict[str, Decide]:
    from urllib3.util.retry import RequestHistory, Retry

    history = tuple(RequestHistory("GET", "/", None, 503, None) for _ in range(number))
    retry = Retry(total=100, backoff_factor=1, backoff_max=300, backoff_jitter=1, history=history)
    return {"urllib3": retry.get_backoff_time}


PEERS = {"tenacity": _tenacity, "stamina": _stamina, "backoff": _backoff, "celery": _celery, "urllib3": _urllib3}


def cost(decide: Decide, seconds: float) -> float:
    """Nanoseconds of one decision: the best of many short loops, which other work disturbs least."""
    timer = timeit.Timer(decide)
    calls, _ = timer.autorange()
    calls = max(1, calls // 20)
    return min(timer.repeat(max(3, int(seconds * 200)), calls)) / calls * 1e9


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    runs: dict[tuple[int, str], list[float]] = {}
    names: dict[str, None] = {}
    for _ in range(1 if given.quick else 5):
        cases = [(number, *case) for number in ATTEMPTS for case in ours(number).items()]
        for peer, make in PEERS.items():
            if find_spec(peer):
                cases += [(number, *case) for number in ATTEMPTS for case in make(number).items()]
        names |= dict.fromkeys(name for _, name, _ in cases)
        random.shuffle(cases)
        for number, name, decide in cases:
            runs.setdefault((number, name), []).append(cost(decide, 0.02 if given.quick else 0.1))
    middle = {case: statistics.median(found) for case, found in runs.items()}
    beside = middle.get((5, "tenacity, wait_random_exponential"))
    rows = [
        {
            "policy": name,
            **{f"ns after failure {number}": middle[number, name] for number in ATTEMPTS},
            "ratio at 5": middle[5, name] / beside if beside else None,
        }
        for name in names
    ]
    report("A decision", rows, given.json)


if __name__ == "__main__":
    main()
