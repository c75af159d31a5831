"""Fault 15: cancellation at every await point of every call."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from deadletter import DeadLetterQueue, PermanentError, Query, Task
from deadletter.interfaces import Backend

from .conftest import recount, soon

pytestmark = pytest.mark.anyio

Call = Callable[[DeadLetterQueue, str], Coroutine[Any, Any, object]]


class Interrupted:
    """Awaits a coroutine and cancels the scope around it just as it waits for the ``at``-th time."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], at: int, scope: anyio.CancelScope) -> None:
        self._coroutine = coroutine
        self._at = at
        self._scope = scope
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, object]:
        inner = self._coroutine.__await__()
        send: Callable[[], Any] = lambda: next(inner)  # noqa: E731
        while True:
            try:
                waited_for = send()
            except StopIteration as done:
                return done.value
            self.waits += 1
            if self.waits == self._at:
                self._scope.cancel()
            try:
                value = yield waited_for
            except BaseException as error:
                send = lambda error=error: inner.throw(error)  # type: ignore[misc]  # noqa: E731
            else:
                send = lambda value=value: inner.send(value)  # type: ignore[misc]  # noqa: E731


async def work(task: Task) -> None:
    await anyio.lowlevel.checkpoint()
    if task.payload.get("dies"):
        raise PermanentError("told to")


async def die(dlq: DeadLetterQueue, id_: str) -> None:
    await dlq.enqueue(Task(type="t", id=id_, payload={"dies": True}))
    await dlq.process_task(id_, work)


async def nothing(dlq: DeadLetterQueue, id_: str) -> None:
    del dlq, id_


async def pending(dlq: DeadLetterQueue, id_: str) -> None:
    await dlq.enqueue(Task(type="t", id=id_))


CALLS: dict[str, tuple[Call, Call]] = {  # what comes before, and what is cancelled
    "enqueue": (nothing, pending),
    "enqueue_many": (nothing, lambda dlq, id_: dlq.enqueue_many([Task(type="t", id=f"{id_}.{i}") for i in range(3)])),
    "process_task": (pending, lambda dlq, id_: dlq.process_task(id_, work)),
    "process_task_that_dies": (nothing, die),
    "capture": (nothing, lambda dlq, id_: dlq.capture(Task(type="t", id=id_), ValueError("no"))),
    "get": (pending, lambda dlq, id_: dlq.get(id_)),
    "retry": (die, lambda dlq, id_: dlq.retry(id_, payload={})),
    "retry_all": (die, lambda dlq, id_: dlq.retry_all(Query(ids=[id_]))),
    "purge": (die, lambda dlq, id_: dlq.purge(Query(ids=[id_]))),
    "cancel": (pending, lambda dlq, id_: dlq.cancel(id_)),
    "list": (die, lambda dlq, id_: dlq.list()),
    "stats": (die, lambda dlq, id_: dlq.stats()),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_cancelled_call_is_done_or_not(make_backend: Callable[..., Backend], name: str) -> None:
    """Each time the next answers are those of their own questions, and no lease is left behind."""
    before, call = CALLS[name]
    backend = make_backend()
    async with DeadLetterQueue(backend, lease=60) as dlq:
        await dlq.enqueue(Task(type="t", id="known", payload={"known": 1}))
        for at in itertools.count(1):
            id_ = f"{name}-{at}"
            await before(dlq, id_)
            with anyio.CancelScope() as scope:
                interrupted = Interrupted(call(dlq, id_), at, scope)
                await interrupted
            assert (await dlq.get("known")).task.payload == {"known": 1}
            assert await dlq.enqueue(Task(type="t", id=f"next-{at}")) == f"next-{at}"
            if interrupted.waits < at:
                break
        assert at > 1
        rows = await recount(backend)
        assert [row.id for row in rows if row.state == "running"] == []
        for row in rows:
            if row.state == "pending" and row.body is not None and b"dies" not in row.body:
                assert await dlq.process_task(row.id, work) is True  # usable, attempts not used up
        for row in await recount(backend):
            assert row.attempts <= 1 + row.replays
    await backend.aclose()


async def test_a_cancelled_worker_gives_back_what_it_runs(make_backend: Callable[..., Backend]) -> None:
    """Cancelled at each of its first 25 waits: nothing is lost, left leased or counted."""
    backend = make_backend()
    async with DeadLetterQueue(backend, lease=60) as dlq:
        started = 0

        @dlq.processor("t")
        async def hang(task: Task) -> None:
            nonlocal started
            started += 1
            await anyio.sleep_forever()

        await dlq.enqueue_many([Task(type="t", id=f"t{i}") for i in range(5)])
        for at in range(1, 26):
            worker = dlq.worker(shutdown_grace=0)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(_cancelled_after, at, scope)
                    await worker.run()
            for row in await recount(backend):
                assert (row.state, row.attempts, row.lease_losses) == ("pending", 0, 0)
        assert started > 0
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(dlq.worker(shutdown_grace=0).run)
                await soon(_running_five(backend))
                scope.cancel()
        for row in await recount(backend):
            assert (row.state, row.attempts, row.lease_losses) == ("pending", 0, 0)
    await backend.aclose()


async def _cancelled_after(rounds: int, scope: anyio.CancelScope) -> None:
    for _ in range(rounds):
        await anyio.lowlevel.checkpoint()
    scope.cancel()


def _running_five(backend: Backend) -> Callable[[], Awaitable[bool]]:
    async def five() -> bool:
        tally = (await backend.counts("default")).tally
        return sum(n for (state, *_), n in tally.items() if state == "running") == 5

    return five


async def test_callers_that_share_a_commit_do_not_share_a_fate(make_backend: Callable[..., Backend]) -> None:
    """Of 60 enqueues at the same time each third is cancelled; each other is answered with its own id."""
    backend = make_backend()
    async with DeadLetterQueue(backend) as dlq:
        answers: dict[str, str] = {}

        async def enqueue(number: int) -> None:
            with anyio.CancelScope() as scope:
                call = dlq.enqueue(Task(type="t", id=f"t{number}"))
                answers[f"t{number}"] = str(await Interrupted(call, 1 if number % 3 == 0 else 10_000, scope))

        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(enqueue, number)
        assert {id_: answer for id_, answer in answers.items() if id_ != answer} == {}
        assert len(answers) >= 40
        stored = {row.id for row in await recount(backend)}
        assert set(answers) <= stored
    await backend.aclose()
