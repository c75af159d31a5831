"""N10 and I10: a monitor killed at any point loses no alert, and repeats none but the one that it may have sent."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from deadletter import DeadLetterQueue, Task

from ..redis_servers import valkey
from ..sinks import Receiver, receiver
from .monitor_child import POINTS

pytestmark = pytest.mark.full

CHILD = Path(__file__).with_name("monitor_child.py")


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'queue.db'}" if request.param == "sqlite" else valkey().emptied()


@pytest.fixture
def dlq(url: str) -> Iterator[DeadLetterQueue]:
    queue = DeadLetterQueue(url)
    yield queue
    queue.sync.aclose()


Start = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def monitors(url: str, sink: Receiver) -> Iterator[Start]:
    """Start monitors; all are killed in the end."""
    running: list[subprocess.Popen[str]] = []

    def start(*point: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(CHILD), url, sink.url, *point], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    try:
        yield start
    finally:
        for process in running:
            process.kill()
            process.communicate()


def eventually(condition: Callable[[], Any], within: float = 30) -> Any:
    until = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
    return found


def told(sink: Receiver) -> dict[str, dict[str, Any]]:
    """The alerts that arrived, by id; those that came twice are the same both times."""
    found: dict[str, dict[str, Any]] = {}
    for request in list(sink.requests):
        body = orjson.loads(request.body)
        known = found.setdefault(body["data"]["id"], body)
        assert known == body
    return found


def new(sink: Receiver) -> int:
    """How many deaths the alerts tell of."""
    return sum(body["data"]["new"] for body in told(sink).values() if body["type"] == "deadletter.task_dead")


def all_delivered(url: str) -> bool:
    """Whether nothing more will come: no delivery waits or runs."""
    deliveries = DeadLetterQueue(url, name="default:alerts")
    try:
        states = deliveries.sync.stats().by_state
        return states["pending"] == states["running"] == 0
    finally:
        deliveries.sync.aclose()


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_point_the_next_one_goes_on(url: str, dlq: DeadLetterQueue, point: str) -> None:
    with receiver() as sink, monitors(url, sink) as start:
        doomed = start(point)
        for n in range(7):
            dlq.sync.capture(Task(type="mail.send"), TimeoutError(f"no answer {n}"))
        eventually(lambda: doomed.poll() is not None)
        start()
        eventually(lambda: new(sink) >= 7)
        eventually(lambda: all_delivered(url))
        assert new(sink) == 7
        assert len(sink.requests) == len(told(sink)) + (point == "sent"), "only what was sent and not noted comes again"


def test_killed_again_and_again_every_death_is_told_once(url: str, dlq: DeadLetterQueue) -> None:
    """Two monitors, killed at moments that chance chooses, while tasks die."""
    chance = random.Random(8)
    deaths = 0
    with receiver() as sink, monitors(url, sink) as start:
        running = [start(), start()]
        for _ in range(8):
            for _ in range(chance.randrange(1, 9)):
                deaths += 1
                dlq.sync.capture(Task(type=f"t{chance.randrange(3)}"), ValueError("x"))
                time.sleep(chance.random() * 0.2)
            time.sleep(chance.random() * 1.5)
            at = chance.randrange(2)
            running[at].kill()
            running[at] = start()
        eventually(lambda: new(sink) >= deaths, within=60)
        eventually(lambda: all_delivered(url))
        assert new(sink) == deaths
