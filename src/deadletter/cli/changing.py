"""Commands that change: retry, retry-all, cancel, purge, erase."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any

import attrs
from cyclopts import Parameter

from ..model.errors import Conflict, InvalidTask, TaskBusy, TaskNotFound
from ..model.query import Query
from ..model.record import BulkResult
from ..views import bulk_item
from .exits import DONE, FAILED, BadUse, complain
from .flags import Flags, Switch, Where, json_object, length, moment
from .output import emit, harmless, say
from .progress import progress
from .session import Session, session


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Bulk:
    """How far and how fast.

    Attributes:
        limit: Change at most so many, oldest first.
        rate: At most so many a second.
        everything: All of them, where there is no condition and no limit.
        dry_run: Only say how many match.
        yes: Do not ask; needed where nobody can be asked.
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
        """Refuse what would touch everything by oversight, and numbers that cannot be meant."""
        if self.limit is not None and self.limit < 0:
            raise BadUse(f"--limit: {self.limit} is no count; give 0 or more")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise BadUse(f"--rate: {self.rate:g} is no rate; give tasks per second, more than 0")
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
    async with session(flags, server=True) as desk:
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
    async with session(flags, server=True) as desk:
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
    async with session(flags, server=True) as desk:

        async def go(*, dry_run: bool, cutoff: datetime | None, total: int | None) -> BulkResult:
            with progress("retrying", total=total, quiet=dry_run) as tell:
                return await desk.seen.retry_all(
                    query,
                    limit=how.limit,
                    rate=how.rate,
                    dry_run=dry_run,
                    everything=how.everything,
                    cutoff=cutoff,
                    progress=lambda result: tell(result.matched),
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
    async with session(flags, server=True) as desk:

        async def go(*, dry_run: bool, cutoff: datetime | None, total: int | None) -> BulkResult:
            with progress("deleting", total=total, quiet=dry_run) as tell:
                return await desk.seen.purge(
                    query,
                    limit=how.limit,
                    rate=how.rate,
                    dry_run=dry_run,
                    everything=how.everything,
                    cutoff=cutoff,  # a later death is not swept in: what was counted is what is deleted
                    progress=lambda result: tell(result.matched),
                    why=why,
                )

        return await _bulk(desk, how, "delete", go)


async def erase(
    *, where: Where | None = None, bulk: Bulk | None = None, why: str | None = None, flags: Flags | None = None
) -> int:
    """Delete every trace of the tasks that match, in every state (for deletion requests); hidden values match.

    Example: deadletter erase --payload customer.id=7

    Running tasks go when their attempt ends, and the command waits for them. What is counted first, and by --dry-run,
    is what matches as it is shown: without --reveal hidden values tell nothing. A server (--url http://...) lets them
    match nothing at all.

    Args:
        why: Kept with the event.
    """
    query, how = (where or Where()).query(), bulk or Bulk()
    if how.cutoff is not None:
        raise BadUse("--cutoff: erase takes what lives, too; narrow it with --older-than")
    how.check(query)
    async with session(flags, server=True) as desk:
        more = not desk.queue.masked and not desk.viewer.reveal and _looks_inside(query)
        if more and (how.dry_run or not how.yes):
            say("what is hidden is not counted (--reveal counts it), but erased")

        async def go(*, dry_run: bool, cutoff: datetime | None, total: int | None) -> BulkResult:  # noqa: ARG001 - as the others
            with progress("erasing", total=total, quiet=dry_run) as tell:
                return await (desk.seen if dry_run else desk.queue).erase(
                    query,
                    limit=how.limit,
                    rate=how.rate,
                    dry_run=dry_run,
                    everything=how.everything,
                    progress=lambda result: tell(result.matched),
                    why=why,
                )

        return await _bulk(desk, how, "erase", go, or_more=more)


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


def _looks_inside(query: Query) -> bool:
    """Whether a condition may match a hidden value."""
    return any((query.payload, query.error_contains, query.metadata, query.idempotency_key))


async def _bulk(
    desk: Session, how: Bulk, verb: str, go: Callable[..., Awaitable[BulkResult]], *, or_more: bool = False
) -> int:
    """Count, ask, do, tell. ``or_more``: the count is of what is seen, and more may match."""
    if not how.dry_run and not how.yes and not _can_ask():
        raise BadUse(f"nobody is here to be asked; --yes does it, --dry-run says how many it would {verb}")
    result, cutoff = None, how.until
    if how.dry_run or not how.yes:
        result = await go(dry_run=True, cutoff=cutoff, total=None)
        cutoff = result.cutoff
    if not how.dry_run and (result is None or result.matched or or_more):
        few = " or more" if or_more else ""
        if result is not None and not _confirmed(f"{verb} {_sum(result.matched, verb)}{few} of {_place(desk)}?"):
            say("nothing was changed")
            return FAILED
        result = await go(dry_run=False, cutoff=cutoff, total=None if result is None else result.matched)
    assert result is not None  # noqa: S101 - one of the two branches ran
    final = result
    if not final.matched:
        await desk.remark_if_unknown()
    desk.answer(bulk_item(final), lambda: print(_sentence(final, dry_run=how.dry_run)))
    return FAILED if final.failed else DONE


def _sum(count: int, verb: str) -> str:
    noun = "task" if verb == "erase" else "letter"
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _place(desk: Session) -> str:
    return harmless(f"queue {desk.queue.name!r} on {desk.queue.backend.url}")


def _sentence(result: BulkResult, *, dry_run: bool) -> str:
    if dry_run:
        return f"{result.matched} would be changed"
    failed = f", {result.failed} could not be" if result.failed else ""
    return f"{result.changed} of {result.matched} changed{failed}"


def _can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _confirmed(question: str) -> bool:
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    # The event loop turns Ctrl-C into a cancellation, which nobody would hear while we wait for the line.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGINT, before)
