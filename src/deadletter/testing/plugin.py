"""Fixtures for tests of code that uses deadletter; pytest finds them by the entry point ``deadletter``.

Every pytest run of everybody who has the package installed imports this file, so it imports pytest and nothing else.
``-p no:deadletter`` turns it off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..engine.queue import DeadLetterQueue
    from ..interfaces import Backend, Clock
    from .expecting import DueWork, Expecting


@pytest.fixture
def dlq_clock() -> Clock:
    """What time it is for ``dlq``: a VirtualClock, which stands still until ``dlq_clock.advance(seconds)``.

    Override it with a SystemClock for a backend that has a clock of its own, such as Redis.
    """
    from .virtual_clock import VirtualClock

    return VirtualClock()


@pytest.fixture
def dlq_backend() -> Backend | str:
    """Where ``dlq`` keeps its tasks, in memory: override it with another URL, or a Backend that you made."""
    return "memory://"


@pytest.fixture
def dlq_options() -> dict[str, Any]:
    """More options of ``dlq``: override it to give some, such as ``{"retry": []}``."""
    return {}


@pytest.fixture
def dlq(dlq_backend: Backend | str, dlq_clock: Clock, dlq_options: dict[str, Any]) -> Iterator[DeadLetterQueue]:
    """A queue for one test. Await its calls in an async test; in another use ``dlq.sync``."""
    from ..engine.queue import DeadLetterQueue

    queue = DeadLetterQueue(dlq_backend, **{"clock": dlq_clock, **dlq_options})
    yield queue
    with contextlib.suppress(Exception):  # a test may have broken its store, and meant to
        queue.sync.aclose()


@pytest.fixture
def dlq_worker(dlq: DeadLetterQueue) -> DueWork:
    """``await dlq_worker.run_until_idle()`` runs what is due; without a loop ``dlq_worker.run_until_idle_sync()``."""
    from .expecting import DueWork

    return DueWork(dlq)


@pytest.fixture
def assert_dead(dlq: DeadLetterQueue) -> Expecting:
    """``assert_dead(type=…, reason=…)`` answers the newest letter that matches, or fails and shows what is there."""
    from .expecting import Expecting

    return Expecting(dlq, "dead")


@pytest.fixture
def assert_enqueued(dlq: DeadLetterQueue) -> Expecting:
    """``assert_enqueued(type=…, payload=…)`` answers the newest pending task that matches, or fails likewise."""
    from .expecting import Expecting

    return Expecting(dlq, "pending")
