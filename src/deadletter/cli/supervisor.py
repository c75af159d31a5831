"""Several worker processes under one that starts again those that die, and hands signals on."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence

import anyio
from anyio.abc import Process

from .exits import BAD_USE, DONE

log = logging.getLogger("deadletter.cli")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STEADY = 60.0  # seconds; who lived so long starts again without a pause
_LATE = 15.0  # seconds on top of the grace before a child is killed


class _Supervisor:
    def __init__(self, tokens: Sequence[str], own: Sequence[Sequence[str]], *, grace: float) -> None:
        self._command = [sys.executable, "-m", "deadletter", "worker", "--supervised", *tokens]
        self._own = own
        self._grace = grace
        self._children: set[Process] = set()
        self._stopping = anyio.Event()
        self.refused = False

    async def keep(self, number: int) -> None:
        """Have one child at work, again and again, until the end."""
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = anyio.current_time()
            # A session of its own: Ctrl-C reaches it once, from here. Its stdin ends with this process.
            own = self._own[number - 1] if self._own else ()
            child = await anyio.open_process(
                [*self._command, *own], stdin=subprocess.PIPE, stdout=None, stderr=None, start_new_session=True
            )
            self._children.add(child)
            try:
                code = await child.wait()
            finally:
                self._children.discard(child)
                await self._end(child)
            if self._stopping.is_set():
                return
            if code == BAD_USE:  # what it was told cannot be done, and will not become possible
                self.refused = True
                self._stopping.set()
                return
            if anyio.current_time() - began > _STEADY:
                pause = _FIRST_PAUSE
            log.warning(
                "worker process %d (pid %d) ended with %d; another starts in %g s", number, child.pid, code, pause
            )
            with anyio.move_on_after(pause):
                await self._stopping.wait()
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def obey(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Hand each signal to all children: the first drains, the second stops."""
        async for number in signals:
            self._stopping.set()
            log.info("%s: telling %d worker processes", number.name, len(self._children))
            for child in self._children:
                child.send_signal(number)

    async def guard(self) -> None:
        """Once it ends: children have their grace and a little more."""
        await self._stopping.wait()
        for child in self._children:
            if self.refused:
                child.terminate()
        await anyio.sleep(self._grace + _LATE)
        for child in self._children:
            log.warning("worker process %d does not end; killing it", child.pid)
            child.kill()

    async def _end(self, child: Process) -> None:
        with anyio.CancelScope(shield=True):
            if child.returncode is None:
                child.kill()
            await child.aclose()


async def supervise(tokens: Sequence[str], processes: int, *, grace: float, own: Sequence[Sequence[str]] = ()) -> int:
    """Keep ``processes`` workers alive until SIGTERM or SIGINT; answer the exit code. ``own``: further words of each."""
    supervisor = _Supervisor(tokens, own, grace=grace)
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as group:
            group.start_soon(supervisor.obey, signals)
            group.start_soon(supervisor.guard)
            async with anyio.create_task_group() as children:
                for number in range(processes):
                    children.start_soon(supervisor.keep, number + 1)
            group.cancel_scope.cancel()
    return BAD_USE if supervisor.refused else DONE
