from __future__ import annotations

import contextvars
import threading

import anyio
import pytest

from deadletter.runtime.threads import InlineThreads, Threads, start_thread

WORD = contextvars.ContextVar("word", default="outside")


def test_a_thread_is_named_and_holds_up_no_exit() -> None:
    ran: list[threading.Thread] = []
    thread = start_thread("keeper", lambda: ran.append(threading.current_thread()))
    thread.join(5)
    assert ran == [thread]
    assert (thread.name, thread.daemon) == ("deadletter-keeper", True)


@pytest.mark.anyio
async def test_a_call_runs_in_a_thread_with_its_callers_context() -> None:
    WORD.set("inside")
    told = await Threads().run(lambda: (WORD.get(), threading.get_ident()), anyio.CapacityLimiter(1))
    assert told[0] == "inside"
    assert told[1] != threading.get_ident()
    assert not Threads.inline


@pytest.mark.anyio
async def test_a_cancelled_caller_leaves_its_thread_behind() -> None:
    """A processor that hangs in a thread holds up nobody who waited for it."""
    go, ended = threading.Event(), threading.Event()

    def run() -> None:
        go.wait(10)
        ended.set()

    with anyio.move_on_after(0.02) as waited:
        await Threads().run(run, anyio.CapacityLimiter(1))
    assert waited.cancelled_caught
    assert not ended.is_set()
    go.set()
    assert ended.wait(5)


@pytest.mark.anyio
async def test_inline_there_are_no_threads() -> None:
    assert InlineThreads.inline
    assert await InlineThreads().run(threading.get_ident, None) == threading.get_ident()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await InlineThreads().run(threading.get_ident, None)
    assert scope.cancelled_caught
