"""What ``deadletter serve`` takes to answer over many letters, and what idle listeners cost it.

``python benchmarks/http_load.py [--letters 100000] [--stores sqlite,redis] [--url URL] [--json FILE]``. (A script named
http.py would hide the standard library's module of that name from every other one here.) Times are those of a client on
the same machine, connection kept: the server's own and a little more. A text that is nowhere is looked for page by page,
as the dashboard does: each page ends after a second, tells how far it came, and the next goes on.

To fill a store with a million letters takes minutes: one that is named by ``--url`` stays, and is filled only where it is
empty.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx2
from _letters import SPAN_MS, fill
from _stores import STORES, Store

TIMES = 40  # requests of one kind
LISTENERS = 100
WATCHED = 10.0  # seconds of idle listening
GOAL_MS, GOAL_CPU = 150, 10
HOUR_AGO = SPAN_MS // 168 // 1000

LOOKS = {
    "first screen": ("GET", "/", None),
    "stats": ("GET", "/api/dlq/stats", None),
    "groups": ("GET", "/api/dlq/groups", None),
    "list": ("GET", "/api/dlq", None),
    "by type": ("GET", "/api/dlq?type=type-3", None),
    "by priority": ("GET", "/api/dlq/high", None),
    "by cause": ("GET", "/api/dlq?fingerprint=0000000000000007", None),
    "by reason": ("GET", "/api/dlq?reason=retries_exhausted", None),
    "of the last hour": ("GET", f"/api/dlq?newer_than={HOUR_AGO}", None),
    "text in 1 %": ("POST", "/api/dlq/search", {"error_contains": "cause 42"}),
    "one letter": ("GET", "/api/dlq/items/letter-000000007", None),
    "page of letters": ("GET", "/letters", None),
    "page of a cause": ("GET", "/letters?fingerprint=0000000000000007", None),
    "page of a type": ("GET", "/letters?type=type-3", None),
    "page of 1 % text": ("GET", "/letters?error_contains=cause+42", None),
    "page of a letter": ("GET", "/letters/letter-000000007", None),
    "page of a review": ("GET", "/review?fingerprint=0000000000000007", None),
}


@contextlib.contextmanager
def serving(url: str) -> Iterator[tuple[str, int]]:
    """A server on a store: its address and its process id."""
    command = [sys.executable, "-m", "deadletter", "serve", "--url", url, "--port", "0", "--log", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = ""
        while (found := re.search(r"serving (http://\S+)/ ", told)) is None:
            told = process.stderr.readline()
            if not told:
                raise SystemExit("deadletter serve did not start")
        try:
            yield found[1], process.pid
        finally:
            process.terminate()
            process.communicate()


def p95(base: str) -> dict[str, float]:
    """Milliseconds of each look, the 95th percentile."""
    found = {}
    with httpx2.Client(base_url=base, timeout=120) as client:
        for name, (method, path, body) in LOOKS.items():
            taken = []
            for _ in range(TIMES):
                began = time.perf_counter()
                response = client.request(method, path, json=body)
                taken.append((time.perf_counter() - began) * 1000)
                assert response.status_code == 200, (name, response.status_code, response.text[:200])
            found[name] = statistics.quantiles(taken, n=20)[-1]
    return found


def search(base: str, n: int) -> float:
    """Letters that a search for a text which is nowhere looks at in a second, over all its pages."""
    asked: dict[str, object] = {"error_contains": "nobody wrote this", "patience": 1}
    began, reached = time.perf_counter(), 0
    with httpx2.Client(base_url=base, timeout=120) as client:
        while True:
            told = client.post("/api/dlq/search", json=asked).json()
            if told["items"]:
                raise SystemExit(f"found {told['items'][:1]}")
            if told["next_cursor"] is None:
                return n / (time.perf_counter() - began)
            if told["searched"]["of"] != n or told["searched"]["looked_at"] <= reached:
                raise SystemExit(f"{told['searched']} after {reached}")
            reached = told["searched"]["looked_at"]
            asked["cursor"] = told["next_cursor"]


def idle_cpu(base: str, pid: int) -> float:
    """Per cent of a core that a hundred clients cost which listen while nothing happens."""
    host, port = base.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(LISTENERS):
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            client.sendall(b"GET /api/dlq/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            heard = b""
            while b"listening" not in heard:
                piece = client.recv(4096)
                if not piece:
                    raise SystemExit(f"a listener was turned away: {heard!r}")
                heard += piece
        before, began = _cpu(pid), time.perf_counter()
        time.sleep(WATCHED)
        return (_cpu(pid) - before) / (time.perf_counter() - began) * 100


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _filled(url: str, n: int) -> None:
    from deadletter import DeadLetterQueue

    async with DeadLetterQueue(url) as dlq:
        if not (await dlq.stats()).by_state["dead"]:
            await fill(dlq, n)
        if (dead := (await dlq.stats()).by_state["dead"]) != n:
            raise SystemExit(f"{dead} letters in {url}, not {n}")


def measure(url: str, n: int) -> dict[str, float]:
    """All figures of one store, which is filled first."""
    anyio.run(_filled, url, n)
    with serving(url) as (base, pid):
        found = p95(base)
        found["nowhere"] = search(base, n)
        return {**found, "idle listeners": idle_cpu(base, pid)}


def _of_its_own(store: Store, n: int) -> dict[str, float]:
    folder = tempfile.mkdtemp(prefix="deadletter-http-")
    try:
        return measure(store.url(folder), n)
    finally:
        store.end(folder)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=100_000)
    parser.add_argument("--stores", default="sqlite,redis")
    parser.add_argument("--url")
    parser.add_argument("--json")
    asked = parser.parse_args()
    told: dict[str, dict[str, float]] = {}
    for name in [asked.url.partition(":")[0]] if asked.url else asked.stores.split(","):
        n = asked.letters
        told[name] = measure(asked.url, n) if asked.url else _of_its_own(STORES[name], n)
        for figure, value in told[name].items():
            print(f"{name:8} {n:>9,} letters  {_line(figure, value)}", flush=True)
    if asked.json:
        Path(asked.json).write_text(json.dumps({"letters": asked.letters, **told}, indent=2) + "\n")


def _line(figure: str, value: float) -> str:
    if figure == "nowhere":
        return f"{figure:17} {value:9,.0f} letters/s"
    unit, goal = ("% of a core", GOAL_CPU) if figure == "idle listeners" else ("ms p95", GOAL_MS)
    return f"{figure:17} {value:9.1f} {unit:12} goal <= {goal}{'' if value <= goal else '  MISSED'}"


if __name__ == "__main__":
    main()
