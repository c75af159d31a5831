"""The counters of the dashboard's charts: sampled once each slot, by whichever server is there."""

from __future__ import annotations

import pytest

from deadletter import DeadLetterQueue, Task
from deadletter.http import samples

pytestmark = pytest.mark.anyio

EVERY = samples.EVERY_MS / 1000


@pytest.fixture(params=["memory", "sqlite"])
async def dlq(request, tmp_path):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'a.db'}"
    async with DeadLetterQueue(url) as queue:
        yield queue


async def test_two_servers_keep_one_sample_a_slot(dlq):
    wait = await samples.sample(dlq)
    assert 0 < wait <= EVERY
    await samples.sample(dlq)
    found = await samples.since(dlq, 0)
    assert len(found) in {2, 3}  # a slot may have ended in between; the last is of now
    assert found[-1].counters["dead"] == 0


async def test_a_sample_tells_what_the_counters_were(dlq):
    await samples.sample(dlq)
    for n in range(3):
        await dlq.capture(Task(type="a", id=f"t{n}"), ValueError("x"))
    await dlq.retry("t0")
    found = await samples.since(dlq, 0)
    assert samples.rises(found, "dead")[-1][1] == 3
    assert samples.rises(found, "replayed")[-1][1] == 1
    assert (await dlq.stats()).by_state["dead"] == 2


def test_a_counter_that_fell_did_not_rise():
    """A store that was emptied begins anew."""
    found = [samples.Sample(1, {"dead": 5}), samples.Sample(2, {"dead": 2}), samples.Sample(3, {"dead": 4})]
    assert samples.rises(found, "dead") == [(2, 0), (3, 2)]
    assert samples.rises(found, "replayed") == [(2, 0), (3, 0)]
