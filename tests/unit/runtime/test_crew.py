from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

import anyio
import pytest

from deadletter.runtime.crew import open_crew

pytestmark = pytest.mark.anyio


async def test_leaving_waits_for_all() -> None:
    done: list[int] = []

    async def run(_cancel: object, n: int) -> None:
        await anyio.sleep(0.001 * n)
        done.append(n)

    async with open_crew() as crew:
        for n in range(3):
            crew.start(run, n)
    assert sorted(done) == [0, 1, 2]


async def test_one_is_cancelled_and_the_others_go_on() -> None:
    done: list[str] = []
    cancels: dict[str, Callable[[], object]] = {}
    go = anyio.Event()

    async def run(cancel: Callable[[], object], name: str) -> None:
        cancels[name] = cancel
        try:
            await go.wait()
            done.append(name)
        except anyio.get_cancelled_exc_class():
            done.append(f"{name} cancelled")
            raise

    async with open_crew() as crew:
        crew.start(run, "a")
        crew.start(run, "b")
        await anyio.wait_all_tasks_blocked()
        cancels["a"]()
        await anyio.wait_all_tasks_blocked()
        assert done == ["a cancelled"]
        go.set()
    assert done == ["a cancelled", "b"]


async def test_a_task_may_start_another() -> None:
    done: list[str] = []

    async with open_crew() as crew:

        async def first(_cancel: object) -> None:
            crew.start(second)

        async def second(_cancel: object) -> None:
            done.append("second")

        crew.start(first)
    assert done == ["second"]


async def test_an_error_inside_ends_all() -> None:
    """Nobody is left running behind an owner that failed."""
    ended: list[str] = []

    async def run(_cancel: object) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("run")

    caught: list[BaseException] = []
    try:
        async with open_crew() as crew:
            crew.start(run)
            await anyio.wait_all_tasks_blocked()
            raise KeyError("boom")
    except BaseException as error:
        caught.append(error)
    [error] = caught
    [inner] = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
    assert isinstance(inner, KeyError)
    assert ended == ["run"]


async def test_each_has_a_context_of_its_own() -> None:
    word = contextvars.ContextVar("word", default="outside")
    seen: list[str] = []

    async def run(_cancel: object, name: str) -> None:
        seen.append(word.get())
        word.set(name)

    async with open_crew() as crew:
        crew.start(run, "a")
        crew.start(run, "b")
    assert seen == ["outside", "outside"]
    assert word.get() == "outside"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_never_waits_shares_a_task(anyio_backend: str) -> None:
    """A task apiece would cost more than all the rest of a no-op attempt."""
    tasks: list[object] = []

    async def run(_cancel: object) -> None:
        tasks.append(asyncio.current_task())

    async with open_crew() as crew:
        for _ in range(50):
            crew.start(run)
    assert len(tasks) == 50
    assert len(set(tasks)) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_with_a_cancellation_left_in_it_is_not_used_again(anyio_backend: str) -> None:
    """Its next user would count somebody else's cancellation as its own."""
    counts: list[int] = []

    async def run(cancel: Callable[[], object]) -> None:
        task = asyncio.current_task()
        assert task is not None
        counts.append(task.cancelling())
        cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)

    async with open_crew() as crew:
        for _ in range(3):
            crew.start(run)
    assert counts == [0, 0, 0]


async def test_one_that_waits_holds_nobody_up() -> None:
    done: list[str] = []
    go = anyio.Event()

    async def waits(_cancel: object) -> None:
        await go.wait()
        done.append("waited")

    async def runs(_cancel: object) -> None:
        done.append("ran")

    async with open_crew() as crew:
        crew.start(runs)
        crew.start(waits)
        crew.start(runs)
        await anyio.wait_all_tasks_blocked()
        assert done == ["ran", "ran"]
        go.set()
    assert done == ["ran", "ran", "waited"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_was_not_begun_goes_down_with_its_owner(anyio_backend: str) -> None:
    done: list[str] = []

    async def run(_cancel: object) -> None:
        done.append("ran")

    async def fails() -> None:
        async with open_crew() as crew:
            crew.start(run)
            crew.start(run)
            raise KeyError("boom")

    with pytest.raises(KeyError):
        await fails()
    assert done == []
