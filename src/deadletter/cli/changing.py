"""Commands that change: retry, retry-all, cancel, purge, erase."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any

import attrs
from cyclopts import Parameter

from ..model.errors import Conflict, InvalidTask, TaskBusy, TaskNotFound
from ..model.query import Query
from ..model.record import BulkResult, State
from ..model.task import from_ms
from ..views import bulk_item
from .exits import DONE, FAILED, BadUse, complain
from .flags import Flags, Switch, Where, json_object, length, moment
from .output import emit, harmless, say
from .progress import progress
from .reading import each
from .session import Session, session


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Bulk:
    """How far and how fast.

    Attributes:
        limit: Change at most so many, oldest first.
        rate: At most so many a second.
        everything: All letters, where there is no condition and no limit.
        dry_run: Only say how many match.
        yes: Do not ask.
        cutoff: Leave alone what died after this time; that of an earlier result (--json) goes on with it.
    """

    limit: int | None = None
    rate: float | None = None
    everything: Switch = False
    dry_run: Switch = False
    yes: Switch = False
    cutoff: str | None = None

    @property
    def until(self) -> datetime | None:
        """The cutoff as a time; raises BadUse."""
        return moment("--cutoff", self.cutoff)

    def check(self, query: Query) -> None:
        """Refuse what would touch everything by oversight."""
        if not (query.has_condition or self.limit is not None or self.everything):
            raise BadUse("there is no condition; narrow it, give a --limit, or say --everything")


async def retry(
    *ids: str,
    payload: str | None = None,
    type: str | None = None,
    delay: str | None = None,
    keep_attempts: Switch = False,
    why: str | None = None,
    flags: Flags | None = None,
) -> int:
    """Send dead letters back to pending, optionally edited.

    Example: deadletter retry 0193a5f2-7c1e-7d4b-9c55-0a3f6f1f2e11 --payload '{"customer_id": 7}'

    Args:
        ids: The letters' ids.
        payload: A JSON object to run with instead; {"$redacted": true} keeps a hidden value.
        type: The type to run it as instead.
        delay: Not before so long from now, such as 30 or 5m.
        keep_attempts: Go on counting attempts where it stopped; at least one more is granted.
        why: Noted in its history.
    """
    if not ids:
        raise BadUse("retry: which letters? give their ids, or use retry-all with conditions")
    edits: dict[str, Any] = {
        "reset_attempts": not keep_attempts,
        "payload": json_object("--payload", payload) if payload is not None else None,
        "type": type,
        "delay": length("--delay", delay) or 0,
        "why": why,
    }
    failed = 0
    async with session(flags) as desk:
        for id_ in ids:
            failed += not await _told(desk, id_, "pending", partial(desk.queue.retry, id_, **edits))
    return FAILED if failed else DONE


async def cancel(*ids: str, flags: Flags | None = None) -> int:
    """Delete pending tasks.

    Example: deadletter cancel 0193a5f2-7c1e-7d4b-9c55-0a3f6f1f2e11

    Args:
        ids: The tasks' ids.
    """
    if not ids:
        raise BadUse("cancel: which tasks? give their ids")
    failed = 0
    async with session(flags) as desk:
        for id_ in ids:
            failed += not await _told(desk, id_, "cancelled", partial(desk.queue.cancel, id_))
    return FAILED if failed else DONE


async def retry_all(*, where: Where | None = None, bulk: Bulk | None = None, flags: Flags | None = None) -> int:
    """Send all dead letters that match back to pending, oldest death first.

    Example: deadletter retry-all --error-contains 'connection refused' --rate 20

    What dies after the command began is left alone.
    """
    query, how = (where or Where()).query(), bulk or Bulk()
    how.check(query)
    async with session(flags) as desk:

        async def go(*, dry_run: bool, cutoff: datetime | None) -> BulkResult:
            with progress("retrying", quiet=dry_run) as told:
                return await desk.seen.retry_all(
                    query,
                    limit=how.limit,
                    rate=how.rate,
                    dry_run=dry_run,
                    everything=how.everything,
                    cutoff=cutoff,
                    progress=told,
                )

        return await _bulk(desk, how, "retry", go)


async def purge(
    *, where: Where | None = None, bulk: Bulk | None = None, why: str | None = None, flags: Flags | None = None
) -> int:
    """Delete dead letters for good.

    Example: deadletter purge --older-than 30d --dry-run

    Args:
        why: Kept with the event.
    """
    query, how = (where or Where()).query(), bulk or Bulk()
    how.check(query)
    async with session(flags) as desk:

        async def go(*, dry_run: bool, cutoff: datetime | None) -> BulkResult:
            with progress("deleting", quiet=dry_run) as told:
                return await desk.seen.purge(
                    query,
                    limit=how.limit,
                    rate=how.rate,
                    dry_run=dry_run,
                    everything=how.everything,
                    why=why,
                    cutoff=cutoff,
                    progress=told,
                )

        return await _bulk(desk, how, "delete", go)


async def erase(*, where: Where | None = None, bulk: Bulk | None = None, flags: Flags | None = None) -> int:
    """Delete every trace of the tasks that match, in every state (for deletion requests); hidden values match.

    Example: deadletter erase --payload customer.id=7

    Running tasks go when their attempt ends.
    """
    query, how = (where or Where()).query(), bulk or Bulk()
    if how.rate is not None:
        raise BadUse("--rate: erase runs at full speed; use --limit to take it in parts")
    if how.cutoff is not None:
        raise BadUse("--cutoff: erase takes what lives, too; narrow it with --older-than")
    how.check(query)
    async with session(flags) as desk:
        plain = attrs.evolve(desk, seen=desk.queue)
        states = State if query.state == State.DEAD else (query.state,)

        async def go(*, dry_run: bool, cutoff: datetime | None) -> BulkResult:  # noqa: ARG001 - as the others
            if how.limit is None and not dry_run:
                return await desk.queue.erase(query, everything=how.everything)
            ids = [
                record.id
                for state in states
                async for record in each(plain, attrs.evolve(query, state=state), how.limit)
            ][: how.limit]
            if dry_run:
                return BulkResult(matched=len(ids), changed=0, failed=0, cutoff=from_ms(desk.queue.clock.now_ms()))
            return await desk.queue.erase(attrs.evolve(query, ids=ids))

        return await _bulk(desk, how, "erase", go)


async def _told(desk: Session, id_: str, state: str, change: Callable[[], Awaitable[object]]) -> bool:
    """Change one task and say what became of it; False where it could not be."""
    problem = None
    try:
        if await change() is False:
            problem = f"task {id_!r} is not pending (any more)"
    except (TaskNotFound, Conflict, TaskBusy) as error:
        problem = str(error)
    except InvalidTask as error:
        raise BadUse(f"--{error}") from None
    if problem is not None:
        complain(problem)
    if desk.json:
        emit({"task_id": id_, "error": problem} if problem is not None else {"task_id": id_, "state": state})
    elif problem is None:
        print(harmless(f"{id_} {state}"))
    return problem is None


async def _bulk(desk: Session, how: Bulk, verb: str, go: Callable[..., Awaitable[BulkResult]]) -> int:
    """Count, ask, do, tell."""
    if not how.dry_run and not how.yes and not _can_ask():
        raise BadUse(f"nobody is here to be asked; --yes does it, --dry-run says how many it would {verb}")
    result, cutoff = None, how.until
    if how.dry_run or not how.yes:
        result = await go(dry_run=True, cutoff=cutoff)
        cutoff = result.cutoff
    if not how.dry_run and (result is None or result.matched):
        if result is not None and not _confirmed(f"{verb} {result.matched} of queue {desk.queue.name!r}?"):
            say("nothing was changed")
            return FAILED
        result = await go(dry_run=False, cutoff=cutoff)
    assert result is not None  # noqa: S101 - one of the two branches ran
    final = result
    desk.answer(bulk_item(final), lambda: print(_sentence(final, dry_run=how.dry_run)))
    return FAILED if final.failed else DONE


def _sentence(result: BulkResult, *, dry_run: bool) -> str:
    if dry_run:
        return f"{result.matched} would be changed"
    failed = f", {result.failed} could not be" if result.failed else ""
    return f"{result.changed} of {result.matched} changed{failed}"


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _confirmed(question: str) -> bool:
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
