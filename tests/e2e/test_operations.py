"""Operations over real servers: killed midway, called off, and taken up by another process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from deadletter import DeadLetterQueue, Task

from ..redis_servers import valkey
from .servers import Serving

pytestmark = pytest.mark.full

LETTERS = 400


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return valkey().emptied() if request.param == "redis" else f"sqlite:///{tmp_path / 'a.db'}"


@pytest.fixture
def dlq(url):
    dlq = DeadLetterQueue(url)
    for n in range(LETTERS):
        dlq.sync.capture(Task(type="t", id=f"task-{n}"), ValueError("x"))
    yield dlq
    dlq.sync.aclose()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def order(server: Serving, path: str = "retry-all", **body: object) -> str:
    response = httpx2.post(f"{server.base}/api/dlq/{path}", json=body, headers={"Prefer": "respond-async"}, timeout=30)
    assert response.status_code == 202
    return response.headers["location"]


def told(server: Serving, place: str) -> dict:
    return httpx2.get(f"{server.base}{place}", timeout=30).json()


def dead(dlq) -> int:
    return dlq.sync.stats().by_state["dead"]


def test_an_operation_goes_on_after_its_server_was_killed(url, dlq):
    """kill -9 in the middle: the next server takes it up when its lease has lapsed, with the same cutoff."""
    with Serving(url) as server:
        place = order(server, everything=True, rate=100)
        until(lambda: dead(dlq) < LETTERS - 50)
        server.kill()
    assert dead(dlq) > 0
    dlq.sync.capture(Task(type="t", id="later"), ValueError("x"))
    with Serving(url) as server:
        until(lambda: told(server, place)["ended_at"] is not None)
        assert told(server, place)["state"] == "done"
        assert server.stop() == 0
    assert dlq.sync.get("later").replays == 0
    assert [dlq.sync.get(f"task-{n}").replays for n in range(LETTERS)] == [1] * LETTERS


def test_one_that_is_called_off_elsewhere_stops(url, dlq):
    """Two servers on one queue: one carries it out, the other is asked to call it off."""
    with Serving(url) as first, Serving(url) as second:
        place = order(first, limit=LETTERS, rate=50)
        until(lambda: dead(dlq) < LETTERS - 20)
        response = httpx2.delete(f"{second.base}{place}", timeout=30)
        assert response.json()["state"] == "cancelled"
        until(lambda: told(first, place)["changed"] == LETTERS - dead(dlq))
        left = dead(dlq)
        assert left > 0
        assert first.stop() == second.stop() == 0
    assert dead(dlq) == left


def test_a_server_that_stops_hands_its_operation_over(url, dlq):
    with Serving(url) as first:
        place = order(first, everything=True, rate=100)
        until(lambda: dead(dlq) < LETTERS - 20)
        assert first.stop() == 0
    with Serving(url) as second:
        assert told(second, place)["state"] in ("pending", "running")
        until(lambda: told(second, place)["state"] == "done")
        assert second.stop() == 0
    assert dead(dlq) == 0


def test_an_erase_goes_on_after_its_server_was_killed(url, dlq):
    """In every state, the waiting ones too; and what it was ordered by is forgotten at its end."""
    dlq.sync.enqueue_many([Task(type="t", id=f"waiting-{n}", delay=3600) for n in range(20)])
    with Serving(url) as server:
        place = order(server, "erase", type="t", error_contains="x", rate=100)
        until(lambda: dead(dlq) < LETTERS - 50)
        server.kill()
    assert dead(dlq) > 0
    with Serving(url) as server:
        until(lambda: told(server, place)["ended_at"] is not None)
        found = told(server, place)
        assert (found["state"], found["query"]["error_contains"]) == ("done", "(erased)")
        assert server.stop() == 0
    assert dead(dlq) == 0
    assert dlq.sync.stats().by_state["pending"] == 20  # which never failed with that text
