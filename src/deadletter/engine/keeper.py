"""Leases are kept alive from a thread and an event loop of their own: a processor that blocks its loop loses none."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import anyio
import attrs

from ..model.row import BATCH, Change, Verdict
from ..rules import changes
from ..runtime.loops import Bell
from ..runtime.threads import start_thread

if TYPE_CHECKING:
    from .attempt import Attempt
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.keeper")

BLOCKED = 10.0  # seconds after which a blocked event loop is told
_TICK = 2.0


@attrs.define(eq=False)
class _Held:
    """An attempt whose thread cannot be stopped, and what follows once it has ended."""

    attempt: Attempt
    then: Change
    since: float
    settled: bool = False  # what follows must not overtake the outcome


@attrs.define(eq=False)
class _Pulse:
    """Whether a loop still answers."""

    asked: float
    told: bool = False


class Keeper:
    """Extends the leases of one queue's attempts in this process, ends what runs too long.

    And holds what cannot be stopped.
    """

    def __init__(self, queue: DeadLetterQueue) -> None:
        self._queue = queue
        self._kept: dict[str, Attempt] = {}
        self._held: dict[str, _Held] = {}
        self._pulses: dict[int, _Pulse] = {}
        self._bell: Bell | None = None
        self._idle = True
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stopping = False
        options = queue.options
        self._tick = min(options.lease_ms / 3000, options.max_runtime / 4, _TICK)

    def add(self, attempt: Attempt, call: Callable[..., object]) -> None:
        """Take an attempt into care; in its loop, which ``call`` reaches from any thread."""
        attempt.reach, attempt.loop_thread = call, threading.get_ident()
        self._kept[attempt.row.token or ""] = attempt
        if self._idle:
            self._wake()

    def remove(self, attempt: Attempt) -> None:
        """Its processor has ended."""
        self._kept.pop(attempt.row.token or "", None)

    def hold(self, attempt: Attempt, then: Change) -> None:
        """Keep the lease until the attempt's thread has ended, then apply ``then``."""
        self._held[attempt.row.token or ""] = _Held(attempt, then, self._queue.clock.monotonic())
        attempt.when_thread_ends(self._wake)

    def too_late(self, attempt: Attempt, now: float) -> bool:
        """Whether its lease may end before the next look at it: nothing should start under it."""
        return now + self._tick >= attempt.lease_until

    def settled(self, stored: Sequence[Change]) -> None:
        """The outcomes of held attempts are stored, or given up; anything else is ignored. From their loop."""
        if not self._held:
            return
        for change in stored:
            held = self._held.get(change.token or "")
            if held is not None:
                held.settled = True
                self._wake()

    @property
    def idle(self) -> bool:
        """Whether no attempt of this queue runs in this process."""
        return not self._kept and not self._held

    def _wake(self) -> None:
        self._idle = False
        if self._thread is None and not self._queue.threads.inline:
            with self._starting:
                if self._thread is None and not self._stopping:
                    self._thread = start_thread("keeper", self._in_own_loop)
        if self._bell is not None:
            self._bell.ring()

    def stop(self) -> None:
        """End the thread; leases that are left lapse."""
        self._stopping = True
        self._wake()

    def join(self) -> None:
        """Wait for the thread to end; after that it may start again."""
        if self._thread is not None:
            self._thread.join(5)
        self._thread = self._bell = None
        self._idle, self._stopping = True, False

    def after_fork(self) -> None:
        """In a child: the parent's attempts are not ours."""
        self.__init__(self._queue)  # type: ignore[misc]

    def _in_own_loop(self) -> None:
        try:
            anyio.run(self.serve)
        except Exception:
            log.exception("the lease keeper of queue %r failed; the next attempt starts it again", self._queue.name)
            self._thread = self._bell = None
            self._idle = True

    async def serve(self) -> None:
        """Care, until stopped: in a thread of its own, or (simulated) in the caller's loop."""
        self._bell = Bell()
        if self._held:  # its thread may have ended before there was a bell to ring
            self._bell.ring()
        last = self._queue.clock.monotonic()
        while not self._stopping:
            if not self._kept and not self._held:
                self._idle = True
                if not self._kept and not self._held:  # nobody came in between
                    await self._bell.wait()
                last = self._queue.clock.monotonic()
                self._idle = False
                continue
            await self._nap(self._tick)
            now = self._queue.clock.monotonic()
            self._watch_loops(now)
            await self._end_held()
            await self._extend(now, stretched=now - last > 3 * self._tick)
            self._end_overlong(self._queue.clock.monotonic())
            last = now

    async def _nap(self, seconds: float) -> None:
        bell = self._bell
        if bell is None:
            return
        async with anyio.create_task_group() as group:

            async def rung() -> None:
                await bell.wait()
                group.cancel_scope.cancel()

            group.start_soon(rung)
            await self._queue.clock.sleep(seconds)
            group.cancel_scope.cancel()

    def _end_overlong(self, now: float) -> None:
        for attempt in list(self._kept.values()):
            if now >= attempt.deadline:
                self._stop(attempt, "timeout")
            elif attempt.row.key is not None and self.too_late(attempt, now):
                # Unknown is not lost, but with a key nobody may start beside us, and the next look would come too late.
                self._stop(attempt, "lost")

    def _patience(self) -> float:
        """How many seconds a call may take: a store that hangs must not keep us from what else is to be done.

        Least of all from ending a keyed attempt before its lease does.
        """
        now = self._queue.clock.monotonic()
        ends = [kept.lease_until - now for kept in list(self._kept.values()) if kept.row.key is not None]
        return min([self._queue.options.lease_ms / 3000, *(end for end in ends if end > 0)])

    def _stop(self, attempt: Attempt, why: str) -> None:
        try:
            attempt.reach(attempt.stop, why)
        except RuntimeError:  # its loop is closed, and the attempt with it
            self._kept.pop(attempt.row.token or "", None)

    async def _end_held(self) -> None:
        for token, held in list(self._held.items()):
            if held.attempt.in_thread or not held.settled:
                continue
            then = held.then
            passed_ms = round((self._queue.clock.monotonic() - held.since) * 1000)
            if then.due_ms is not None:
                then = attrs.evolve(then, due_ms=max(0, then.due_ms - passed_ms))
            try:
                with anyio.fail_after(self._patience()):
                    await self._queue.apply([then])
            except Exception as error:
                log.warning("cannot give back %s yet: %s", then.id, str(error) or type(error).__name__)
                return
            self._held.pop(token, None)

    async def _extend(self, now: float, *, stretched: bool) -> None:
        lease = self._queue.options.lease_ms / 1000
        # Not what is being settled: an extension in between would make a repeat of the outcome look new.
        alive = list(self._kept.values())
        alive += [held.attempt for held in list(self._held.values()) if held.settled]
        due = [attempt for attempt in alive if stretched or attempt.lease_until - now < lease * 2 / 3]
        for at in range(0, len(due), BATCH):
            await self._extend_batch(due[at : at + BATCH])

    async def _extend_batch(self, due: list[Attempt]) -> None:
        lease_ms = self._queue.options.lease_ms
        batch = []
        for attempt in due:
            attempt.extensions += 1
            batch.append(changes.extend(attempt.row, f"{attempt.row.token}.x{attempt.extensions}", lease_ms))
        sent = self._queue.clock.monotonic()
        try:
            with anyio.fail_after(self._patience()):
                verdicts = await self._queue.apply(batch)
        except Exception as error:
            log.warning("cannot extend %d leases yet: %s", len(due), str(error) or type(error).__name__)
            return
        for attempt, verdict in zip(due, verdicts, strict=True):
            if verdict in (Verdict.DONE, Verdict.REPEATED):
                attempt.lease_until = sent + lease_ms / 1000
                continue
            token = attempt.row.token or ""
            self._held.pop(token, None)
            kept = self._kept.pop(token, None)
            if kept is not None:
                log.warning("the lease on %s is lost; its attempt is stopped", attempt.row.id)
                self._stop(kept, "lost")

    def _watch_loops(self, now: float) -> None:
        """Ask each loop for a sign of life; say where one that gives none stands."""
        for kept in {kept.loop_thread: kept for kept in list(self._kept.values())}.values():
            pulse = self._pulses.get(kept.loop_thread)
            if pulse is None:
                self._pulses[kept.loop_thread] = _Pulse(now)
                try:
                    kept.reach(self._pulses.pop, kept.loop_thread, None)
                except RuntimeError:
                    self._pulses.pop(kept.loop_thread, None)
            elif now - pulse.asked >= BLOCKED and not pulse.told:
                pulse.told = True
                frame = sys._current_frames().get(kept.loop_thread)  # noqa: SLF001 - the documented way to see another thread
                where = "".join(traceback.format_stack(frame)) if frame is not None else "(its thread has ended)"
                log.warning("an event loop has been blocked for %.0f s, here:\n%s", now - pulse.asked, where)
