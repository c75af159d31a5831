"""A store under a virtual clock, queues on it, and ways to run one task."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from deadletter import DeadLetterQueue, PermanentError, Task
from deadletter.backends import backend_from_url
from deadletter.engine.queue import living
from deadletter.engine.worker import Worker
from deadletter.interfaces import Backend
from deadletter.model.row import Claim, Row
from deadletter.runtime.chance import Chance, new_id
from deadletter.testing import VirtualClock

HERE = Path(__file__).parent
MakeQueue: TypeAlias = Callable[..., DeadLetterQueue]
Body: TypeAlias = Callable[[Task], Any]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave one of four pairings to ``full``: by default each loop is met, and each store, but not trio with SQLite."""
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if HERE in item.path.parents and (params.get("anyio_backend"), params.get("url")) == ("trio", "sqlite"):
            item.add_marker(pytest.mark.full)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'queue.db'}"


@pytest.fixture
async def backend(anyio_backend: str, url: str, clock: VirtualClock) -> AsyncIterator[Backend]:
    backend = backend_from_url(url, clock=clock)
    yield backend
    await backend.aclose()


@pytest.fixture
async def make_queue(backend: Backend, clock: VirtualClock) -> AsyncIterator[MakeQueue]:
    """A function that makes queues on the store; retries have no jitter unless told otherwise."""
    made: list[DeadLetterQueue] = []

    def make(**options: Any) -> DeadLetterQueue:
        told = {"clock": clock, "chance": Chance(len(made)), **options}
        made.append(DeadLetterQueue(told.pop("backend", backend), **told))
        return made[-1]

    yield make
    for queue in made:
        await queue.aclose()


@pytest.fixture
def dlq(make_queue: MakeQueue) -> DeadLetterQueue:
    return make_queue()


@pytest.fixture(params=["async", "sync"])
def processor(request: pytest.FixtureRequest) -> Callable[[Body], Body]:
    """Turn a plain function of the task into a processor of either kind."""

    def make(body: Body) -> Body:
        if request.param == "sync":
            return body

        @functools.wraps(body)
        async def run(task: Task) -> Any:
            return body(task)

        return run

    return make


@pytest.fixture(params=["process_task", "worker"])
def attempt(request: pytest.FixtureRequest) -> Callable[[DeadLetterQueue, Task, Body], Awaitable[bool | None]]:
    """Store a task and make one attempt; answers what process_task does, None from a worker."""

    async def run(dlq: DeadLetterQueue, task: Task, body: Body) -> bool | None:
        task_id = await dlq.enqueue(task)
        if request.param == "process_task":
            return await dlq.process_task(task_id, body)
        if dlq.registry.get(task.type) is None:
            dlq.processor(task.type)(body)
        await dlq.worker().run_until_idle()
        return None

    return run


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Awaitable[None]]:
    """Wait for a condition, which may be a coroutine function."""

    async def wait(condition: Callable[[], Any]) -> None:
        with anyio.fail_after(10):
            while True:
                held = condition()
                if inspect.isawaitable(held):
                    held = await held
                if held:
                    return
                await anyio.sleep(0.001)

    return wait


@pytest.fixture
def after_the_next(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Callable[[], Awaitable[object]]], None]:
    """Let something happen in the store right after it has answered the next call of a method."""

    def arrange(name: str, then: Callable[[], Awaitable[object]]) -> None:
        call = getattr(backend, name)

        async def call_then(*args: Any) -> Any:
            answer = await call(*args)
            monkeypatch.undo()
            await then()
            return answer

        monkeypatch.setattr(backend, name, call_then)

    return arrange


@pytest.fixture
def pass_until(clock: VirtualClock) -> Callable[..., Awaitable[None]]:
    """Let virtual time pass, step by step, until a condition holds."""

    async def wait(condition: Callable[[], Any], *, step: float = 0.05, pause: float = 0.001) -> None:
        with anyio.fail_after(10):
            while True:
                held = condition()
                if inspect.isawaitable(held):
                    held = await held
                if held:
                    return
                await keepers_rest(clock)
                clock.advance(step)
                await anyio.sleep(pause)

    return wait


async def keepers_rest(clock: VirtualClock) -> None:
    """Let each lease keeper do what the last step asked of it: on a busy machine its thread comes late.

    One that waits for a store that hangs does not come to rest, and is not waited for any longer.
    """
    with anyio.move_on_after(0.25):
        for queue in living():
            thread = queue.keeper._thread if queue.clock is clock else None
            while thread is not None and thread.is_alive() and not queue.keeper.idle:
                if clock.sleeps(thread.ident or 0):
                    break
                await anyio.sleep(0.0005)


@pytest.fixture
def claim_elsewhere() -> Callable[..., Awaitable[Row]]:
    """Lease a task as another process would, whose leases nobody extends."""

    async def claim(
        dlq: DeadLetterQueue, task_id: str, *, lease: float = 60, started: bool = True, alone: bool = False
    ) -> Row:
        wish = Claim(
            op=new_id(),
            ids=[task_id],
            lease_ms=round(lease * 1000),
            owner="elsewhere",
            start=int(started),
            alone=alone,
            keep_ms=dlq.options.keep_letters_ms,
        )
        (row,) = (await dlq.backend.claim(dlq.name, wish)).rows
        return row

    return claim


@pytest.fixture
def kill() -> Callable[..., Awaitable[list[str]]]:
    """Store tasks and let each die of its first attempt; answers their ids."""

    def reject(task: Task) -> None:
        raise PermanentError(task.payload.get("why", "cannot be"))

    async def run(dlq: DeadLetterQueue, *tasks: Task) -> list[str]:
        ids = []
        for task in tasks:
            ids.append(await dlq.enqueue(task))
            assert await dlq.process_task(ids[-1], reject) is False
        return ids

    return run


@pytest.fixture
def working() -> Callable[..., AbstractAsyncContextManager[Worker]]:
    """A worker that runs in the background until the block ends; then it is stopped and drains."""

    @asynccontextmanager
    async def run(dlq: DeadLetterQueue, **options: Any) -> AsyncIterator[Worker]:
        worker = dlq.worker(**options)
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            try:
                with anyio.fail_after(20):
                    yield worker
            finally:
                worker.stop()

    return run
