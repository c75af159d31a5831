"""Operations: bulk calls that are rows in a reserved queue, so that they outlive their client and their process.

A row is claimed like a task. Its body holds the order and how far it came; each step of at most 100 letters is preceded
by a change that writes both and renews the lease. That change meets a fence: who lost the lease, or was called off,
does no further step. A process that dies leaves a lease that lapses, and the next one goes on with the same cutoff.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

import anyio
import attrs
import orjson

from ..model.errors import BackendError, DeadLetterError, TaskNotFound
from ..model.operation import Operation, OperationKind, OperationState
from ..model.query import Query
from ..model.record import BulkResult, State
from ..model.row import BATCH, GONE, PENDING, RUNNING, SUCCEEDED, Change, Claim, NewRow, Row, Scan, Verdict
from ..model.task import from_ms
from ..rules import changes
from . import bulk, erasing
from .presence import reserved

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.operations")

KINDS: Sequence[OperationKind] = get_args(OperationKind)
AT_ONCE = 8  # operations that one process works on: a slow one does not hold up the others
LEASE_MS = 15_000
KEEP_MS = 7 * 86_400_000  # how long an ended one is shown
_TELL = 1.0  # seconds after which a slow one tells how far it came
_COUNTING = 0.5  # seconds that whoever orders waits for each state to be counted
_LOOK = 1.0  # seconds between looks after operations that other processes have
_TELLING = ("error_contains", "idempotency_key", "metadata", "payload", "ids")
_ERASED = "(erased)"
_APPLIED = (Verdict.DONE, Verdict.REPEATED)


async def order(
    queue: DeadLetterQueue,
    kind: OperationKind,
    query: Query,
    *,
    id: str | None = None,
    limit: int | None = None,
    rate: float | None = None,
    cutoff: datetime | None = None,
    everything: bool = False,
    why: str | None = None,
) -> Operation:
    """Write down a bulk call for ``work``; safe to repeat with the same id. ``queue`` as its user sees it.

    Raises:
        InvalidQuery: it cannot be meant; nothing was written.
    """
    await queue.open()
    now = from_ms((await queue.backend.inspect()).now_ms)
    bulk.Plan(query, limit, rate, False, everything, cutoff, None).check(any_state=kind == "erase")
    total = await _total(queue, kind, query, limit)
    wanted = query.resolved(now)
    order = {
        "query": {
            name: _plain(value) for name, value in attrs.asdict(wanted, recurse=False).items() if value is not None
        },
        "limit": limit,
        "rate": rate,
        "why": why,
        "everything": everything,
        "cutoff": (cutoff or now).isoformat(),
        "total": total,
        "word": str(OperationState.PENDING),
    }
    name = id or queue.chance.name()
    await queue.backend.insert(_where(queue), [NewRow(id=name, type=kind, body=orjson.dumps(order))])
    return await look(queue, name)


async def _total(queue: DeadLetterQueue, kind: OperationKind, query: Query, limit: int | None) -> int | None:
    """How many are meant, where that is soon known."""
    total = 0
    for state in erasing.states_of(query) if kind == "erase" else [State.DEAD]:
        page = await queue.list(attrs.evolve(query, state=state), limit=1, patience=_COUNTING)
        if page.total is None:
            return None
        total += page.total
    return total if limit is None else min(total, limit)


async def look(queue: DeadLetterQueue, id: str) -> Operation:
    """How far an operation came; raises TaskNotFound."""
    await queue.open()
    return _told(await _row(queue, id))


async def listed(queue: DeadLetterQueue) -> list[Operation]:
    """Those on their way and those that ended lately, newest first; at most 1,000 of each state."""
    await queue.open()
    found: list[Operation] = []
    for state in (PENDING, RUNNING, SUCCEEDED):
        found += map(_told, await _rows(queue, state))
    return sorted(found, key=lambda operation: (operation.created_at, operation.id), reverse=True)


async def call_off(queue: DeadLetterQueue, id: str) -> Operation:
    """Let an operation do no further step; one that has ended stays as it is. Raises TaskNotFound."""
    await queue.open()
    while True:
        row = await _row(queue, id)
        if row.state == SUCCEEDED:
            return _told(row)
        said = _ended(row, {**_said(row), "word": str(OperationState.CANCELLED)})
        change = changes.call_off(row, queue.chance.name(), orjson.dumps(said), KEEP_MS)
        if (await queue.backend.apply(_where(queue), [change]))[0] in _APPLIED:
            return await look(queue, id)


async def work(queue: DeadLetterQueue, seen: DeadLetterQueue) -> None:
    """Carry operations out until none is left, here or elsewhere; ``seen`` is the queue as their users see it.

    What other processes have under way is waited for: its lease lapses where they died. Cancelled, it gives its
    operations back at once.
    """
    running: set[str] = set()
    async with anyio.create_task_group() as group:
        while True:
            try:
                rows, idle = await _next(queue, AT_ONCE - len(running))
            except BackendError as error:
                log.warning("cannot look for operations: %s", error)
                rows, idle = [], False
            for row in rows:
                running.add(row.id)
                group.start_soon(_carry_out, queue, seen, row, running)
            if idle and not running:
                return
            await queue.clock.sleep(_LOOK)


async def _next(queue: DeadLetterQueue, room: int) -> tuple[list[Row], bool]:
    """Operations to work on, and whether there is none at all."""
    await queue.open()
    where = _where(queue)
    # They are claimed as held, never as started: the lapse of one is no loss, it goes on where it stopped.
    lapsed = [row for row in await queue.backend.sweep(where, BATCH) if row.state == RUNNING]
    if lapsed:
        again = [changes.lapse(row, queue.chance.name(), on_uncertain="retry", max_lease_losses=1) for row in lapsed]
        await queue.backend.apply(where, again[:BATCH])
    rows: list[Row] = []
    if room > 0:
        claim = Claim(op=queue.chance.name(), limit=room, types=KINDS, lease_ms=LEASE_MS, owner="operations", start=0)
        with anyio.CancelScope(shield=True):  # rows whose claim was cut off would wait for their lease to lapse
            rows = (await queue.backend.claim(where, claim)).rows
    idle = not rows and not [*await _rows(queue, PENDING), *await _rows(queue, RUNNING)]
    return rows, idle


async def _carry_out(queue: DeadLetterQueue, seen: DeadLetterQueue, row: Row, running: set[str]) -> None:
    doing = _Doing(queue, row)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(doing.keep_lease, group.cancel_scope)
            try:
                await doing.run(seen)
                await doing.end(OperationState.DONE)
            except _Stopped:
                log.info("operation %s was called off", row.id)
            except BackendError as error:
                log.warning("operation %s stops for now: %s", row.id, error)
            except Exception as error:
                log.exception("operation %s failed", row.id)
                await doing.end(OperationState.FAILED, error)
            group.cancel_scope.cancel()
        await doing.correct()
    except Exception:  # its lease lapses, and it is taken up again
        log.exception("operation %s stops for now", row.id)
    except BaseException:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await doing.give_back()
        raise
    finally:
        running.discard(row.id)


class _Stopped(Exception):
    """Somebody else has the operation by now, or nobody may go on with it."""


class _Doing:
    """One operation as it is carried out."""

    def __init__(self, queue: DeadLetterQueue, row: Row) -> None:
        self._queue, self._row = queue, row
        self._said = _said(row)
        self._before = BulkResult(
            matched=self._said.get("matched", 0),
            changed=self._said.get("changed", 0),
            failed=self._said.get("failed", 0),
            cutoff=datetime.fromisoformat(self._said["cutoff"]),
        )
        self._so_far = self._before
        self._lost = False

    async def run(self, seen: DeadLetterQueue) -> None:
        """All steps that are left; raises _Stopped."""
        said = self._said
        left = (
            None if said["limit"] is None else max(0, said["limit"] - max(said.get("begun", 0), self._before.matched))
        )
        plan = bulk.Plan(
            Query(**{name: _restored(name, value) for name, value in said["query"].items()}),
            left,
            said["rate"],
            False,
            said["everything"] or left is not None,
            self._before.cutoff,
            self._tell,
            self._begin,
        )
        if self._row.type == "purge":
            await bulk.purge(seen, plan, said["why"] or "")
        elif self._row.type == "erase":
            await erasing.erase(seen, plan, said["why"] or "")
        else:
            await bulk.retry_all(seen, plan)

    def _tell(self, result: BulkResult) -> None:
        before = self._before
        self._so_far = attrs.evolve(
            result,
            matched=before.changed + result.matched,  # what failed before is met again
            changed=before.changed + result.changed,
            failed=result.failed,
        )

    async def _begin(self, size: int) -> None:
        """Write down what is about to be done: so a crash never makes it more than the limit."""
        self._said["begun"] = max(self._said.get("begun", 0), self._so_far.matched + size)
        if not await self._go_on():
            raise _Stopped

    async def keep_lease(self, scope: anyio.CancelScope) -> None:
        """Renew it, and tell how far it came, until cancelled; cancel ``scope`` where it is lost."""
        while True:
            await self._queue.clock.sleep(_TELL)
            try:
                if not await self._go_on():
                    scope.cancel()
                    return
            except BackendError as error:
                log.debug("operation %s is not told on: %s", self._row.id, error)

    async def _go_on(self) -> bool:
        said = orjson.dumps(self._figures(OperationState.RUNNING))
        self._lost = not await self._apply(changes.go_on(self._row, self._queue.chance.name(), said, LEASE_MS))
        return not self._lost

    async def end(self, word: OperationState, error: Exception | None = None) -> None:
        """Write down that it has ended."""
        said = self._figures(word)
        if error is not None:
            known = isinstance(error, DeadLetterError)
            said["error"] = str(error) if known else f"{type(error).__name__}: the server's log says more"
        op, said = self._queue.chance.name(), _ended(self._row, said)
        change = changes.complete(self._row.id, self._row.token or "", op, orjson.dumps(said), KEEP_MS)
        self._lost = not await self._apply(change)

    async def correct(self) -> None:
        """Where it was called off in the middle of a step, tell what that step did."""
        if not self._lost:
            return
        row = (await self._queue.backend.load(_where(self._queue), [self._row.id], history=0))[0]
        if row is None or row.state != SUCCEEDED or _said(row).get("word") != OperationState.CANCELLED:
            return
        said = orjson.dumps(_ended(self._row, self._figures(OperationState.CANCELLED)))
        await self._apply(changes.amend(row, self._queue.chance.name(), said, KEEP_MS))

    async def give_back(self) -> None:
        """Let another process go on at once."""
        try:
            said = orjson.dumps(self._figures(OperationState.PENDING))
            await self._apply(changes.put_back(self._row, self._queue.chance.name(), said))
        except BackendError as error:
            log.debug("operation %s waits for its lease to lapse: %s", self._row.id, error)

    def _figures(self, word: OperationState) -> dict[str, Any]:
        result = self._so_far
        return {
            **self._said,
            "word": str(word),
            "matched": result.matched,
            "changed": result.changed,
            "failed": result.failed,
        }

    async def _apply(self, change: Change) -> bool:
        return (await self._queue.backend.apply(_where(self._queue), [change]))[0] in _APPLIED


def _where(queue: DeadLetterQueue) -> str:
    return reserved("operations", queue.name)


async def _row(queue: DeadLetterQueue, id: str) -> Row:
    row = (await queue.backend.load(_where(queue), [id], history=0))[0]
    if row is None or row.state == GONE:
        raise TaskNotFound(id)
    return row


async def _rows(queue: DeadLetterQueue, state: str) -> list[Row]:
    rows: list[Row] = []
    scan = Scan(state=state, history=0)
    while True:
        page = await queue.backend.scan(_where(queue), scan)
        rows += page.rows
        if page.after is None or len(rows) >= 1000:
            return rows
        scan = attrs.evolve(scan, after=page.after)


def _said(row: Row) -> dict[str, Any]:
    said: dict[str, Any] = orjson.loads(row.body or b"{}")
    return said


def _ended(row: Row, said: dict[str, Any]) -> dict[str, Any]:
    """What is kept of an operation that has ended: of an erase nothing by which its tasks, or a person, are known."""
    if row.type != "erase":
        return said
    query = {name: _forgotten(value) if name in _TELLING else value for name, value in said["query"].items()}
    return {**said, "query": query}


def _forgotten(value: Any) -> Any:
    if isinstance(value, dict):
        return dict.fromkeys(value, _ERASED)
    return [_ERASED] if isinstance(value, list) else _ERASED


def _told(row: Row) -> Operation:
    said = _said(row)
    word = OperationState.RUNNING if row.state == RUNNING else OperationState(said["word"])
    return Operation(
        id=row.id,
        kind=next(kind for kind in KINDS if kind == row.type),
        state=OperationState.PENDING if row.state == PENDING else word,
        query=said["query"],
        limit=said["limit"],
        rate=said["rate"],
        why=said["why"],
        cutoff=datetime.fromisoformat(said["cutoff"]),
        total=said["total"],
        matched=said.get("matched", 0),
        changed=said.get("changed", 0),
        failed=said.get("failed", 0),
        created_at=from_ms(row.created_ms),
        ended_at=None if row.ended_ms is None else from_ms(row.ended_ms),
        error=said.get("error"),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, str) else value


def _restored(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name in ("older_than", "newer_than") else value
