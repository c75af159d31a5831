from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.testing import VirtualClock


async def until_sleeping(clock: VirtualClock, n: int) -> None:
    with anyio.fail_after(5):
        while clock.sleepers < n:
            await anyio.lowlevel.checkpoint()


def test_time_stands_still_until_it_is_moved() -> None:
    clock = VirtualClock(1_000)
    assert (clock.now_ms(), clock.monotonic()) == (1_000, 0)
    clock.advance(1.5)
    assert (clock.now_ms(), clock.monotonic()) == (2_500, 1.5)


@given(st.lists(st.integers(min_value=0, max_value=10**6), max_size=50))
def test_many_small_steps_never_drift(steps: list[int]) -> None:
    """A thousand tenths of a second are a hundred seconds, to the millisecond."""
    clock = VirtualClock(0)
    for ms in steps:
        clock.advance(ms / 1000)
    assert clock.now_ms() == sum(steps)


def test_time_never_runs_backwards() -> None:
    with pytest.raises(ValueError, match="-1"):
        VirtualClock().advance(-1)


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [0, -1])
async def test_a_sleep_of_nothing_is_still_a_checkpoint(seconds: float) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await VirtualClock().sleep(seconds)
    assert scope.cancelled_caught
    await VirtualClock().sleep(seconds)


@pytest.mark.anyio
async def test_sleepers_wake_once_time_passes_their_end_and_not_before() -> None:
    clock, woken = VirtualClock(), list[float]()

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as group:
        for seconds in (3, 1, 2):
            group.start_soon(sleep, seconds)
        await until_sleeping(clock, 3)
        clock.advance(1.999)
        await anyio.wait_all_tasks_blocked()
        assert woken == [1]
        clock.advance(5)
    assert sorted(woken) == [1, 2, 3]


@pytest.mark.anyio
async def test_a_cancelled_sleeper_leaves_no_trace() -> None:
    clock = VirtualClock()
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 10)
        group.start_soon(clock.sleep, 5)
        await until_sleeping(clock, 2)
        group.cancel_scope.cancel()
    assert clock.sleepers == 0
    clock.advance(20)


@pytest.mark.anyio
async def test_a_sleeper_wakes_though_another_thread_moves_the_time() -> None:
    clock = VirtualClock()
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 1)
        await until_sleeping(clock, 1)
        with anyio.fail_after(5):
            await anyio.to_thread.run_sync(clock.advance, 1)
    assert clock.sleepers == 0


def test_a_sleeper_wakes_in_a_loop_of_another_thread() -> None:
    clock, woken = VirtualClock(), threading.Event()

    def run() -> None:
        anyio.run(clock.sleep, 60)
        woken.set()

    thread = threading.Thread(target=run)
    thread.start()
    while not clock.sleepers:
        assert thread.is_alive()
    clock.advance(60)
    assert woken.wait(5)
    thread.join()


@pytest.mark.parametrize("autojump", [False, True])
def test_a_sleeper_whose_loop_is_gone_stops_nobody(autojump: bool) -> None:
    clock = VirtualClock(autojump=autojump)
    loop = asyncio.new_event_loop()
    sleeping = loop.create_task(clock.sleep(1))
    loop.run_until_complete(asyncio.sleep(0))
    left = clock._sleepers[0]
    sleeping.cancel()
    loop.run_until_complete(asyncio.gather(sleeping, return_exceptions=True))
    loop.close()
    clock._sleepers.append(left)  # as where a loop was closed over a task that still slept
    clock.advance(0.5)
    if autojump:
        anyio.run(clock.sleep, 3600)
    else:
        clock.advance(0.5)
    assert clock.sleepers == 0


@pytest.mark.anyio
async def test_autojump_wakes_in_the_order_of_time() -> None:
    """Hours pass in an instant, each sleeper sees its own end, and none is overtaken."""
    clock, woken = VirtualClock(0, autojump=True), list[int]()

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(clock.now_ms())
        await clock.sleep(1)
        woken.append(clock.now_ms())

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for seconds in (7200, 3600, 0.5):
                group.start_soon(sleep, seconds)
    assert woken == [500, 1_500, 3_600_000, 3_601_000, 7_200_000, 7_201_000]


@pytest.mark.anyio
async def test_autojump_waits_for_who_still_works() -> None:
    """A short stretch of other work on the loop ends before the time jumps."""
    clock, seen = VirtualClock(0, autojump=True), list[int]()

    async def work() -> None:
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        seen.append(clock.now_ms())

    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 60)
        group.start_soon(work)
    assert seen == [0]


def in_a_loop_of_its_own(run: Callable[[], Awaitable[object]]) -> threading.Thread:
    thread = threading.Thread(target=anyio.run, args=(run,))
    thread.start()
    return thread


@pytest.mark.anyio
async def test_autojump_of_one_loop_waits_while_another_that_has_slept_is_at_work() -> None:
    """A lease keeper naps in its own thread; time must not run away under an attempt that only computes."""
    clock, turns, started = VirtualClock(0, autojump=True), threading.Event(), threading.Event()
    over = False

    async def nap() -> None:
        started.wait(10)
        async with anyio.create_task_group() as group:
            group.start_soon(clock.sleep, 60)
            for _ in range(200):  # far more turns than a jump asks for
                await anyio.lowlevel.checkpoint()
            turns.set()
            while not over:
                await anyio.lowlevel.checkpoint()

    await clock.sleep(1)  # from now on the clock knows this loop
    thread = in_a_loop_of_its_own(nap)
    try:
        started.set()
        assert turns.wait(10), "this blocks our loop, as a computation would"
        assert clock.monotonic() == 1
        with anyio.fail_after(10):
            while clock.monotonic() < 61:
                await anyio.lowlevel.checkpoint()
    finally:
        over = True
        clock.advance(60)
        await anyio.to_thread.run_sync(thread.join)


@pytest.mark.anyio
async def test_autojump_forgets_a_loop_that_has_ended() -> None:
    clock = VirtualClock(0, autojump=True)
    thread = in_a_loop_of_its_own(lambda: clock.sleep(5))
    await anyio.to_thread.run_sync(thread.join)
    with anyio.fail_after(10):
        await clock.sleep(5)
    assert clock.monotonic() == 10
