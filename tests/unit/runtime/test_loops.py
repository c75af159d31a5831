from __future__ import annotations

import threading

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from deadletter.runtime.loops import Bell, Reply, arrive_all, loop_caller

pytestmark = pytest.mark.anyio


async def test_a_call_from_another_thread_runs_in_the_loop() -> None:
    here, ran, called = threading.get_ident(), list[int](), anyio.Event()
    call = loop_caller()

    def note(value: int) -> None:
        ran.extend((value, threading.get_ident()))
        called.set()

    await anyio.to_thread.run_sync(call, note, 7)
    with anyio.fail_after(5):
        await called.wait()
    assert ran == [7, here]


class TestBell:
    async def test_it_wakes_from_another_thread(self) -> None:
        bell = Bell()
        async with anyio.create_task_group() as group:
            group.start_soon(bell.wait)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(5):
                await anyio.to_thread.run_sync(bell.ring)

    async def test_rings_before_a_wait_are_one(self) -> None:
        bell = Bell()
        for _ in range(3):
            bell.ring()
        with anyio.fail_after(5):
            await bell.wait()
        with anyio.move_on_after(0.02) as waited:
            await bell.wait()
        assert waited.cancelled_caught

    async def test_it_rings_again_after_a_wait(self) -> None:
        bell = Bell()
        for _ in range(3):
            bell.ring()
            with anyio.fail_after(5):
                await bell.wait()

    async def test_a_ring_survives_a_cancelled_wait(self) -> None:
        bell = Bell()
        with anyio.move_on_after(0):
            await bell.wait()
        bell.ring()
        with anyio.fail_after(5):
            await bell.wait()

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    async def test_a_bell_of_a_loop_that_is_gone_stops_nobody(self, backend: str) -> None:
        bells: list[Bell] = []

        async def make() -> None:
            bells.append(Bell())
            await anyio.lowlevel.checkpoint()

        await anyio.to_thread.run_sync(lambda: anyio.run(make, backend=backend))
        bells[0].ring()


class TestReply:
    async def test_a_value_comes_from_another_thread(self) -> None:
        reply: Reply[int] = Reply()

        def answer() -> None:
            reply.value = 7
            reply.call(reply.arrive)

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, answer)
            with anyio.fail_after(5):
                assert await reply.wait() == 7

    async def test_an_error_is_raised(self) -> None:
        reply: Reply[int] = Reply()
        reply.error = OSError("no room")
        reply.arrive()
        with pytest.raises(OSError, match="no room"):
            await reply.wait()

    async def test_who_was_cancelled_is_not_missed(self) -> None:
        """The thread's answer may come after its waiter has left."""
        reply: Reply[int] = Reply()
        with anyio.move_on_after(0):
            await reply.wait()
        reply.value = 7
        reply.arrive()
        await anyio.lowlevel.checkpoint()

    async def test_many_arrive_in_one_call(self) -> None:
        replies: list[Reply[int]] = [Reply() for _ in range(3)]
        for n, reply in enumerate(replies):
            reply.value = n
        await anyio.to_thread.run_sync(replies[0].call, arrive_all, replies)
        with anyio.fail_after(5):
            assert [await reply.wait() for reply in replies] == [0, 1, 2]
