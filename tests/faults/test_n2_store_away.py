"""Fault N2: the store is away for five leases while a finished attempt settles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import anyio
import pytest

from deadletter import BackendUnavailable, DeadLetterQueue, Task
from deadletter.interfaces import Backend
from deadletter.model.row import Change, Claim, Claimed, Row, Verdict

from .conftest import Child, eventually, recount, soon
from .invariants import check
from .store import SqliteStore

LEASE = 0.2


def cut_off(backend: Backend) -> Callable[[bool], None]:
    """Put one worker's store behind a line that can be cut and mended."""
    claim, apply, cut = backend.claim, backend.apply, False

    async def claim_(queue: str, wish: Claim) -> Claimed:
        if cut:
            raise BackendUnavailable("the line is cut")
        return await claim(queue, wish)

    async def apply_(queue: str, changes: Sequence[Change]) -> list[Verdict]:
        if cut:
            raise BackendUnavailable("the line is cut")
        return await apply(queue, changes)

    def line(away: bool) -> None:
        nonlocal cut
        cut = away

    backend.claim, backend.apply = claim_, apply_  # type: ignore[method-assign]
    return line


@pytest.mark.anyio
@pytest.mark.parametrize("taken", [False, True], ids=["nobody-took-it", "somebody-took-it"])
async def test_an_outcome_waits_for_the_store(make_backend: Callable[..., Backend], taken: bool) -> None:
    """It is accepted where its token is still the record's, and changes nothing where another has the task."""
    backend = make_backend()
    real_claim, real_apply = backend.claim, backend.apply
    line = cut_off(backend)
    begun = 0
    async with DeadLetterQueue(backend, lease=LEASE) as dlq:

        @dlq.processor("t")
        async def work(task: Task) -> None:
            nonlocal begun
            begun += 1
            line(True)  # from here on its worker reaches the store no more

        async def lapses() -> bool:
            lapsed = await backend.sweep("default", 10)
            if lapsed:
                from deadletter.engine.sweeper import change_for

                await real_apply("default", [change_for(dlq, row) for row in lapsed])
            return bool(lapsed)

        await dlq.enqueue(Task(type="t", id="x"))
        worker = dlq.worker()
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            await soon(lapses)  # another process's sweep
            other: Row | None = None
            if taken:
                [other] = (await real_claim("default", Claim(op="o", types=["t"], lease_ms=60_000, owner="other"))).rows
            until = anyio.current_time() + 5 * LEASE
            await soon(lambda: _passed(until))
            row = (await backend.load("default", ["x"]))[0]
            assert row is not None
            assert (row.state, row.attempts, row.lease_losses) == ("running" if taken else "pending", 0, 1)
            # Of the two that now race, the outcome must win: the feeder stays cut off until it is stored.
            backend.apply = real_apply  # type: ignore[method-assign]
            if other is None:
                await soon(lambda: _is(backend, "succeeded"))
            worker.stop()
        row = (await backend.load("default", ["x"]))[0]
        assert row is not None
        if other is None:
            assert (row.state, row.attempts) == ("succeeded", 1)
        else:
            assert (row.state, row.attempts, row.token) == ("running", 0, other.token)
        assert begun == 1
        await recount(backend)
    await backend.aclose()


async def _passed(until: float) -> bool:
    return anyio.current_time() >= until


async def _is(backend: Backend, state: str) -> bool:
    row = (await backend.load("default", ["x"]))[0]
    return row is not None and row.state == state


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_locked_file_keeps_no_outcome_from_being_stored(store: SqliteStore, start: Callable[..., Child]) -> None:
    """A real worker, told "locked" again and again for five leases, stores it once the lock is gone."""
    store.enqueue(Task(type="work", id="x", payload={"do": "block", "seconds": 0.1}))
    worker = start("worker", lease=LEASE, lock_seconds=0.05)
    eventually(lambda: store.began("x"))
    log = store.folder / "children.log"
    with closing(store.connect()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        eventually(lambda: "outcomes wait for the store" in log.read_text() if log.exists() else False)
        [(token, lease_ms)] = store.rows("token, lease_ms")
        clock = store.backend._clock
        eventually(lambda: clock.now_ms() > lease_ms + 5 * LEASE * 1000)
        connection.execute("COMMIT")
    eventually(store.drained)
    row = store.row("x")
    assert row["state"] == "succeeded"
    assert token is not None
    assert worker.drain() == 0
    assert row["attempts"] == 1
    check(store, killed=[worker.name])  # its lease may have lapsed while the file was locked
