"""Measure one work of one library in this process: ``_one.py LIBRARY WORK URL N``; prints its figures as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from _figures import percentile
from _record import Record

_PATIENCE = 60


def measure(library: str, work: str, url: str, n: int) -> dict[str, float]:
    """Its figures, after the check that every task started as often as it had to."""
    does = {"W1": "noop", "W1 bulk": "noop", "W2": "noop", "W3": "fails", "W5": "again"}[work]
    peer = __import__(f"_{library}").connect(url, does)
    send = getattr(peer, "bulk", peer.send) if work != "W1" else peer.send
    if work == "W1 bulk" and not hasattr(peer, "bulk"):
        return {}
    record = Record(does=does, n=n)
    sent = send(n)
    record.begin()
    peer.work(record)
    record.check()
    if work in {"W1", "W1 bulk"}:
        return {"per s": n / sent}
    if work == "W5":
        late = [seconds * 1e3 for seconds in record.late]
        return {"p50": percentile(late, 0.5), "p99": percentile(late, 0.99), "max": max(late), "min": min(late)}
    return {"per s": record.rate()}


def _give_up() -> None:
    print(f"not done within {_PATIENCE} s", file=sys.stderr, flush=True)
    os._exit(3)


def main() -> None:
    library, work, url, n = sys.argv[1:]
    logging.disable()
    patience = threading.Timer(_PATIENCE, _give_up)
    patience.daemon = True
    patience.start()
    found = measure(library, work, url, int(n))
    print("\n" + json.dumps(found), flush=True)
    os._exit(0)  # a peer's threads do not end by themselves


if __name__ == "__main__":
    main()
