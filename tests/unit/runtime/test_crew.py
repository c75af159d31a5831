from __future__ import annotations

import contextvars

import anyio
import pytest

from deadletter.runtime.crew import open_crew

pytestmark = pytest.mark.anyio


async def test_leaving_waits_for_all() -> None:
    done: list[int] = []

    async def run(n: int) -> None:
        await anyio.sleep(0.001 * n)
        done.append(n)

    async with open_crew() as crew:
        for n in range(3):
            crew.start(run, n)
    assert sorted(done) == [0, 1, 2]


async def test_one_is_cancelled_and_the_others_go_on() -> None:
    done: list[str] = []
    go = anyio.Event()

    async def run(name: str) -> None:
        try:
            await go.wait()
            done.append(name)
        except anyio.get_cancelled_exc_class():
            done.append(f"{name} cancelled")
            raise

    async with open_crew() as crew:
        cancel = crew.start(run, "a")
        crew.start(run, "b")
        await anyio.wait_all_tasks_blocked()
        cancel()
        await anyio.wait_all_tasks_blocked()
        assert done == ["a cancelled"]
        go.set()
    assert done == ["a cancelled", "b"]


async def test_a_task_may_start_another() -> None:
    done: list[str] = []

    async with open_crew() as crew:

        async def first() -> None:
            crew.start(second)

        async def second() -> None:
            done.append("second")

        crew.start(first)
    assert done == ["second"]


async def test_an_error_inside_ends_all() -> None:
    """Nobody is left running behind an owner that failed."""
    ended: list[str] = []

    async def run() -> None:
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

    async def run(name: str) -> None:
        seen.append(word.get())
        word.set(name)

    async with open_crew() as crew:
        crew.start(run, "a")
        crew.start(run, "b")
    assert seen == ["outside", "outside"]
    assert word.get() == "outside"
