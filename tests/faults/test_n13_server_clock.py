"""Fault N13: the store's own clock is an hour off, or jumps by one: leases may end early or late, nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deadletter import DeadLetterQueue, Task
from deadletter.interfaces import Backend
from deadletter.model.row import Claim, Verdict
from deadletter.rules import changes
from deadletter.testing import VirtualClock

from .conftest import recount

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000
CLAIM = {"types": ["t"], "lease_ms": 60_000}


class JumpingClock(VirtualClock):
    """A store's clock that is set forward or back."""

    skew_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.skew_ms


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_jump_costs_time_or_a_lease_and_no_task(make_backend: Callable[..., Backend], hours: int) -> None:
    """Forward: a lease lapses early and one outcome wins. Back: what is due waits for so long, as after a failover."""
    clock = JumpingClock()
    backend = make_backend(clock)
    dlq = DeadLetterQueue(backend)
    await dlq.enqueue_many([Task(type="t", id=id_) for id_ in ("ran", "waits")])
    [ran] = (await backend.claim("default", Claim(op="a", owner="w", limit=1, **CLAIM))).rows
    clock.skew_ms += hours * HOUR_MS
    await dlq.sweep()
    late = (await backend.claim("default", Claim(op="b", owner="v", limit=10, **CLAIM))).rows
    assert len({row.id for row in late}) == (2 if hours > 0 else 0)
    verdict = (await backend.apply("default", [changes.succeed(ran, "s", HOUR_MS * 100)]))[0]
    assert verdict is (Verdict.STALE if hours > 0 else Verdict.DONE)
    clock.skew_ms += max(0, -hours) * HOUR_MS
    late = late or (await backend.claim("default", Claim(op="c", owner="v", limit=10, **CLAIM))).rows
    for row in late:
        assert (await backend.apply("default", [changes.succeed(row, f"s-{row.id}", HOUR_MS * 100)])) == [Verdict.DONE]
    assert {(row.id, row.state, row.attempts) for row in await recount(backend)} == {
        ("ran", "succeeded", 1),
        ("waits", "succeeded", 1),
    }
    await dlq.aclose()
    await backend.aclose()
