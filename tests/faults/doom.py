"""Where processes kill themselves: around calls of a store, inside of a transaction, or with a request on the wire."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from deadletter.backends.redis import RedisBackend, lines
from deadletter.backends.sqlite import SQLiteBackend, step
from deadletter.interfaces import Backend
from deadletter.model.row import Change, Claim, Claimed, Verdict

STEP_POINTS = ("before_step", "mid_step", "after_step")
POINTS = ("before_reply", "after_reply", "mid_processor", "after_effect", "mid_settle", "after_settle")
TORN = "torn_settle"  # half of the request is sent; only where there is a wire

_ON_THE_WIRE: ContextVar[Callable[[str], None] | None] = ContextVar("_ON_THE_WIRE", default=None)


class Fate:
    """Where a process kills itself: the ``after``-th time that it reaches ``point``."""

    def __init__(self, point: str | None, after: int) -> None:
        self._point = point
        self._left = after

    def reach(self, point: str | None) -> None:
        """Die here, if it is time."""
        if point is not None and point == self._point:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def is_for(self, point: str) -> bool:
        """Whether it dies at such a point at all."""
        return point == self._point


def settles(changes: Sequence[Change]) -> bool:
    """Whether an outcome is among the changes."""
    return any(change.attempts for change in changes)


def doom(backend: Backend, fate: Fate) -> None:
    """Let a worker die around its calls of the store: ``mid_settle`` is inside of the transaction, or on the wire."""
    claim, apply = backend.claim, backend.apply

    async def doomed_claim(queue: str, wish: Claim) -> Claimed:
        claimed = await claim(queue, wish)
        if claimed.rows:
            fate.reach("before_reply")
        return claimed

    async def doomed_apply(queue: str, changes: Sequence[Change]) -> list[Verdict]:
        if not settles(changes):
            return await apply(queue, changes)
        told = _ON_THE_WIRE.set(lambda point: fate.reach(f"{point}_settle"))
        try:
            verdicts = await apply(queue, changes)
        finally:
            _ON_THE_WIRE.reset(told)
        fate.reach("after_settle")
        return verdicts

    backend.claim = doomed_claim  # type: ignore[method-assign]
    backend.apply = doomed_apply  # type: ignore[method-assign]
    if isinstance(backend, SQLiteBackend):
        _doom_step("apply", lambda changes: fate.reach("mid_settle") if settles(changes) else None)
    else:
        _doom_wire(tears=fate.is_for(TORN))


def doom_steps(fate: Fate) -> None:
    """Let an operator die around each step that changes rows: ``mid_step`` is inside of the transaction, or on the wire."""
    for name in ("apply", "insert"):
        for kind in (SQLiteBackend, RedisBackend):
            _doom_call(kind, name, fate)
        _doom_step(name, lambda _: fate.reach("mid_step"))
    _doom_wire(tears=False)


def _doom_call(kind: type[Backend], name: str, fate: Fate) -> None:
    call = getattr(kind, name)

    async def doomed(self: Backend, queue: str, given: Sequence[Any]) -> Any:
        fate.reach("before_step")
        told = _ON_THE_WIRE.set(lambda point: fate.reach(f"{point}_step"))
        try:
            answer = await call(self, queue, given)
        finally:
            _ON_THE_WIRE.reset(told)
        fate.reach("after_step")
        return answer

    setattr(kind, name, doomed)


def _doom_step(name: str, reach: Callable[[Sequence[Any]], None]) -> None:
    work = getattr(step.Step, name)

    def doomed(self: step.Step, queue: str, given: Sequence[Any]) -> Any:
        answer = work(self, queue, given)
        reach(given)
        return answer

    setattr(step.Step, name, doomed)


def _doom_wire(*, tears: bool) -> None:
    """Have who is on the wire told once the server has its request, and, where it ``tears``, half of it."""
    ask = lines.Line.ask

    def doomed(self: lines.Line, packed: bytes, answers: int) -> asyncio.Future[list[Any]]:
        reach = _ON_THE_WIRE.get()
        if reach is None:
            return ask(self, packed, answers)
        if tears:
            half = len(packed) // 2
            waiting = ask(self, packed[:half], answers)
            reach("torn")
            self._transport.write(packed[half:])
        else:
            waiting = ask(self, packed, answers)
            reach("mid")
        return waiting

    lines.Line.ask = doomed  # type: ignore[method-assign]
