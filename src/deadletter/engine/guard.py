"""The default IdempotencyStore: leased rows in a reserved queue on the same backend."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from ..interfaces import Begun, IdempotencyStore
from ..model.errors import BackendError, LeaseLost
from ..model.row import RUNNING, SUCCEEDED, Inserted, NewRow, Row, Verdict
from ..rules import changes
from .presence import reserved

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.guard")

_TYPE = "effect"


class RowIdempotencyStore(IdempotencyStore):
    """Remembers effects as rows; one call to begin, one to complete."""

    def __init__(self, queue: DeadLetterQueue) -> None:
        self._queue = queue
        self._reserved = reserved("effects", queue.name)

    async def begin(self, key: str, digest: str, ttl: float) -> Begun:
        """Claim the key for ``ttl`` seconds, or say who has it."""
        await self._queue.open()
        token = self._queue.chance.name()
        held = [f"{token}:{token}"]
        try:
            return await self._begin(key, digest, ttl, token, held)
        except anyio.get_cancelled_exc_class():  # the key may be ours by now, and nobody would free it
            with anyio.move_on_after(self._queue.options.capture_timeout, shield=True):
                await self._give_back(held[-1])
            raise

    async def _begin(self, key: str, digest: str, ttl: float, token: str, held: list[str]) -> Begun:
        backend = self._queue.backend
        new = NewRow(
            id=token,
            type=_TYPE,
            key=key,
            digest=digest,
            state=RUNNING,
            token=token,
            lease_ms=round(ttl * 1000),
            owner=token,
            keep_ms=0,
        )
        bound = (await backend.insert(self._reserved, [new]))[0]
        if bound.verdict is Inserted.STORED:
            return Begun(word="started", token=held[-1])
        if bound.verdict is not Inserted.EXISTS:
            return Begun(word="conflict")
        if bound.state == SUCCEEDED:
            return Begun(word="completed", result=bound.body or b"")
        remaining = ((bound.lease_ms or 0) - bound.now_ms) / 1000
        if remaining > 0:
            return Begun(word="in_progress", remaining=remaining)
        held.append(f"{bound.id}:{token}")
        row = Row(id=bound.id, type=_TYPE, priority=1, state=RUNNING, token=bound.token)
        change = changes.take_over(row, self._queue.chance.name(), token, round(ttl * 1000), token)
        verdict = (await backend.apply(self._reserved, [change]))[0]
        if verdict is Verdict.DONE:
            return Begun(word="started", token=held[-1])
        return Begun(word="in_progress", remaining=ttl)

    async def _give_back(self, token: str) -> None:
        try:
            await self.abandon(token)
        except BackendError as error:
            log.warning("the key of a cancelled call is freed only when its lease ends: %s", error)

    async def complete(self, token: str, result: bytes, ttl: float) -> None:
        """Remember the result for ``ttl`` seconds; raises LeaseLost where somebody else has taken over."""
        task_id, _, lease = token.partition(":")
        change = changes.complete(task_id, lease, f"{lease}.c", result, round(ttl * 1000))
        verdict = (await self._queue.backend.apply(self._reserved, [change]))[0]
        if verdict in (Verdict.STALE, Verdict.MISSING):
            raise LeaseLost(task_id)

    async def abandon(self, token: str) -> None:
        """Free the key; safe to repeat."""
        task_id, _, lease = token.partition(":")
        await self._queue.backend.apply(self._reserved, [changes.abandon(task_id, lease, f"{lease}.a")])
