"""The programmatic API: each call checks, encodes, makes one backend call, and decodes."""

from __future__ import annotations

import importlib
import os
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar, cast

from ..model.errors import InvalidTask, TaskNotFound
from ..model.task import Duration, Task, seconds
from .operations import operation

if TYPE_CHECKING:
    import anyio

    from ..interfaces import Backend, Clock, Codec, IdempotencyStore, Instrumentation, RetryPolicy, SystemClock
    from ..interfaces.backend import StoreClient
    from ..interfaces.circuit import Circuit
    from ..interfaces.spool import Spool
    from ..model.event import Event
    from ..model.outcome import Processor
    from ..model.query import Query
    from ..model.record import BulkResult, FailureGroup, Page, Pause, Reason, Stats, TaskRecord
    from ..model.retention import Retention
    from ..model.row import GONE, Change, Insertion, NewRow, Row, Verdict
    from ..retry import as_policy
    from ..rules.codec import JsonCodec, decode_task, record_from_row
    from ..runtime.chance import Chance
    from ..runtime.loops import Bell
    from ..runtime.threads import Threads
    from . import bulk, enqueueing, erasing, letters, pauses, process, reading, subscription
    from .attempt import Attempt
    from .guard import RowIdempotencyStore
    from .keeper import Keeper
    from .lazy import adopt
    from .options import Options, RetryLike, make_options
    from .registry import Registration, Registry, is_async
    from .settler import Coalescer
    from .solitude import Solitude
    from .spooling import Spooler, open_spool
    from .sweeper import sweep
    from .sync import SyncQueue
    from .worker import Worker

Verdicts: TypeAlias = "list[Verdict]"  # in the class below, ``list`` is a method
Insertions: TypeAlias = "list[Insertion]"
P = TypeVar("P", bound=Callable[..., Any])


class DeadLetterQueue:
    """A queue of tasks on a backend; what cannot succeed is kept as a dead letter.

    Durations are seconds or ``timedelta``. It connects at its first use. One object serves any number of event loops
    and threads; ``dlq.sync`` has the same calls, blocking.

    Args:
        backend: a Backend, a URL such as ``"sqlite:///path.db"``, or a client: ``redis.Redis``, ``redis.asyncio.Redis``
            or ``RedisCluster`` of either kind (it is never changed nor closed).
        tracing: an Instrumentation.
        name: queues with different names on one backend never see each other.
        retry: a RetryPolicy, or a sequence of delays. ``retry_delays`` is the same by another name; not both.
        max_retries: where a task says None; None lets the policy decide (10 where it has no end).
        dlq_ttl: how long a letter is kept, stamped on it when it dies; None keeps it for ever.
        retention: further limits on letters, which only workers of a queue that was given them apply.
        keep_finished: how long ended tasks stay known, at least 900 s.
        on_uncertain: what happens to a task whose worker vanished in mid-attempt.
        release: the version of your code, kept on every failure; default ``$DEADLETTER_RELEASE``.
        redact: payload paths that no view shows, in any process; ``redact_defaults`` adds the usual secrets.
        spool: path of a local file that takes captures while the backend is away, and gives them back when it returns.
        capture_timeout: how long a capture may take before it goes to the spool.
        alert_threshold: how many letters are worth an alert.
        lease: how long a claim lasts unless extended. max_lease_losses: after so many vanished workers a task that ran
            alone is dead.
        max_runtime: how long an attempt without a timeout may run.
        idempotency: guards effects of keyed inline calls; default: rows on the same backend.
        idempotency_ttl: how long a key is remembered after success.
        codec: how tasks become bytes. max_payload_bytes: what is larger is refused.
        clock: what time it is.

    Raises:
        InvalidTask: for an option that cannot be meant; it names the option.
        InvalidSetting: for a URL or a spool that cannot be used.
    """

    def __init__(
        self,
        backend: Backend | str | StoreClient,
        tracing: Instrumentation | None = None,
        *,
        name: str = "default",
        retry: RetryLike | None = None,
        retry_delays: Sequence[timedelta | float] | None = None,
        max_retries: int | None = None,
        dlq_ttl: Duration | None = 7 * 24 * 3600,
        retention: Retention | None = None,
        keep_finished: Duration = 3600,
        on_uncertain: Literal["retry", "dead"] = "retry",
        release: str | None = None,
        redact: Sequence[str] = (),
        redact_defaults: bool = True,
        spool: Spool | str | os.PathLike[str] | None = None,
        capture_timeout: Duration = 2,
        alert_threshold: int = 10,
        lease: Duration = 60,
        max_lease_losses: int = 3,
        max_runtime: Duration = 3600,
        idempotency: IdempotencyStore | None = None,
        idempotency_ttl: Duration = 24 * 3600,
        codec: Codec | None = None,
        max_payload_bytes: int = 1_000_000,
        clock: Clock | None = None,
        chance: Chance | None = None,
        threads: Threads | None = None,
    ) -> None:
        _furnish()
        self.options: Options = make_options(
            name=name,
            retry=retry,
            retry_delays=retry_delays,
            max_retries=max_retries,
            dlq_ttl=dlq_ttl,
            retention=retention,
            keep_finished=keep_finished,
            on_uncertain=on_uncertain,
            release=release,
            redact=redact,
            redact_defaults=redact_defaults,
            capture_timeout=capture_timeout,
            alert_threshold=alert_threshold,
            lease=lease,
            max_lease_losses=max_lease_losses,
            max_runtime=max_runtime,
            idempotency_ttl=idempotency_ttl,
            max_payload_bytes=max_payload_bytes,
        )
        self.clock: Clock = clock or SystemClock()
        self.chance = chance or Chance()
        self.threads = threads or Threads()
        self.backend, self._owns_backend = _backend(backend, clock)
        self.watchers: tuple[Instrumentation, ...] = (tracing,) if tracing is not None else ()
        self.codec: Codec = codec or JsonCodec()
        self.registry = Registry()
        self.breakers: dict[str, Circuit] = {}  # by type or glob, for every worker that is given no others
        self.keeper = Keeper(self)
        self.solitude = Solitude(self)
        self.idempotency: IdempotencyStore = idempotency or RowIdempotencyStore(self)
        self._insert_one: Coalescer[NewRow, Insertion] = Coalescer(self.insert, enqueueing.any_conflict)
        self._apply_one: Coalescer[Change, Verdict] = Coalescer(self.apply)
        opened = open_spool(spool)
        self.spooler: Spooler | None = Spooler(self, opened) if opened is not None else None
        self._sync: SyncQueue | None = None
        self._opened = False
        self.masked = False  # whether its records show less than is stored
        _children.add(self)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> DeadLetterQueue:
        """A queue on the backend that a URL names; the options are those of the constructor."""
        return cls(url, **options)

    @classmethod
    def from_env(cls, **options: Any) -> DeadLetterQueue:
        """A queue as the environment says: DEADLETTER_URL (default ``sqlite:///deadletter.db``), DEADLETTER_QUEUE, ...

        What is given as an option is not asked of the environment. Raises InvalidSetting that names the variable.
        """
        settings = importlib.import_module("deadletter.settings")
        said = {**os.environ, "DEADLETTER_URL": ""} if "backend" in options else os.environ
        return cls(**{**settings.queue_options(said), **options})

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.options.name

    def __repr__(self) -> str:
        return f"<DeadLetterQueue {self.name!r} on {self.backend.url}>"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Connect now instead of at the first use; raises BackendUnavailable that names the URL."""
        if not self._opened:
            await self.backend.open()
            self._opened = True
            if self.spooler is not None:
                await self.spooler.look()  # what an earlier process left

    async def aclose(self) -> None:
        """Close what this queue opened; never a backend or client that it was given. Safe to repeat."""
        self.keeper.stop()
        if self.spooler is not None:
            self.spooler.stop()
        if not self.threads.inline:
            await anyio.to_thread.run_sync(self.keeper.join)
            if self.spooler is not None:
                await anyio.to_thread.run_sync(self.spooler.join)
        if self._owns_backend:
            await self.backend.aclose()
        self._opened = False

    @operation
    async def enqueue(self, task: Task, *, on_dead: Literal["keep", "replay"] = "keep") -> str:
        """Store a task; answer its id, or that of the task which its key or id is bound to.

        Safe to repeat with the same id. Where the bound task is a dead letter it stays one, with a warning;
        ``on_dead="replay"`` retries it.

        Raises:
            InvalidTask: names the field; nothing is stored.
            IdempotencyConflict: the key is bound to another payload.
            TaskConflict: the id is taken by another type or payload.
        """
        return await enqueueing.enqueue(self, task, on_dead)

    @operation
    async def enqueue_many(self, tasks: Sequence[Task]) -> list[str]:
        """Store tasks in batches of 100, each all or nothing (on each shard of a spread queue); answer their ids.

        The ids are in order. All are checked before the first is stored. Safe to repeat.

        Raises:
            InvalidTask: nothing is stored; a note tells the position.
            BatchFailed: a batch failed; ``.stored`` are the ids of the batches before it, ``.index`` is the position of
                the task that failed.
        """
        return await enqueueing.enqueue_many(self, tasks)

    @operation
    async def process_task(self, task_id: str, processor: Processor) -> bool:
        """Make one attempt now, due or not, under a lease.

        True only if it succeeded (or had, and is still remembered). False: it failed and was rescheduled, or is dead.
        What it leaves pending is run again only by a worker or another call. A paused type is run all the same.

        Raises:
            TaskNotFound, TaskBusy: unknown; leased elsewhere.
            LeaseLost: the outcome came too late, somebody else has the task by now.
        """
        await self.open()
        return await process.process_task(self, task_id, processor)

    @operation
    async def capture(self, task: Task, exc: BaseException, *, reason: Reason | str = "captured") -> str:
        """Store a task that failed elsewhere straight as a dead letter; answer its id.

        Safe to repeat with the same id. With a ``spool`` it goes there where the store is away, or takes longer than
        ``capture_timeout``.

        Raises:
            BackendUnavailable: the store is away, and there is no spool, or it failed, too (told by a note).
        """
        return await letters.capture(self, task, exc, reason=reason)

    async def get(self, id: str) -> TaskRecord:
        """The task with its whole story, in any state; raises TaskNotFound."""
        await self.open()
        row = await self.row(id, history=20)
        if row is None or row.state == GONE:
            raise TaskNotFound(id)
        return self.record(row)

    async def list(
        self,
        query: Query | None = None,
        *,
        cursor: str | None = None,
        limit: int = 50,
        patience: float | None = None,
    ) -> Page:
        """A page of what matches, newest death first; by default dead letters.

        With ``patience`` it looks for about so many seconds: a page may then hold fewer than there are, or none, its
        ``searched`` tells how far it came, and its cursor goes on from there.

        Raises InvalidQuery for a bad cursor, limit or patience.
        """
        await self.open()
        return await reading.page(self, query or Query(), cursor=cursor, limit=limit, patience=patience)

    def scan(self, query: Query | None = None) -> AsyncIterator[TaskRecord]:
        """All that match, newest first, paged for you."""
        return reading.scan(self, query or Query())

    async def groups(self, query: Query | None = None, *, by: str = "fingerprint") -> Sequence[FailureGroup]:
        """Dead letters by cause, largest group first.

        ``by``: fingerprint, type, reason, error_type, worker or release.
        """
        await self.open()
        return await reading.groups(self, query or Query(), by=by)

    async def stats(self) -> Stats:
        """The queue at a glance."""
        await self.open()
        return await reading.stats(self)

    @operation
    async def retry(
        self,
        id: str,
        *,
        reset_attempts: bool = True,
        payload: Any = None,
        type: str | None = None,
        delay: Duration = 0,
        why: str | None = None,
    ) -> TaskRecord:
        """Send a dead letter back to pending, optionally edited or to another type.

        At least one more attempt is granted. Lease losses and expiry are cleared, the history stays and notes an edit.
        A ``{"$redacted": true}`` in the payload keeps the stored value.

        Raises:
            TaskNotFound, NotDead: unknown; not a dead letter (any more).
            NotReplayable: its arguments could not be kept; give it a payload.
            InvalidTask: names the field of an edit that cannot be stored.
        """
        await self.open()
        return await letters.retry(self, id, reset=reset_attempts, payload=payload, type_=type, delay=delay, why=why)

    @operation
    async def retry_all(
        self,
        query: Query | None = None,
        *,
        limit: int | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        everything: bool = False,
        cutoff: datetime | None = None,
        progress: Callable[[BulkResult], object] | None = None,
    ) -> BulkResult:
        """Retry the letters that match, oldest death first, at most ``rate`` a second.

        What dies after ``cutoff`` (default: now) is left alone; the first call's cutoff resumes it. ``progress`` is
        called after each step of at most 100. Raises InvalidQuery without a condition, a limit or ``everything=True``.
        """
        await self.open()
        plan = bulk.Plan(query or Query(), limit, rate, dry_run, everything, cutoff, progress)
        return await bulk.retry_all(self, plan)

    @operation
    async def purge(
        self,
        query: Query | None = None,
        *,
        limit: int | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        everything: bool = False,
        cutoff: datetime | None = None,
        progress: Callable[[BulkResult], object] | None = None,
        why: str | None = None,
    ) -> BulkResult:
        """Delete the dead letters that match, oldest first; ``cutoff`` and the rest are those of ``retry_all``."""
        await self.open()
        plan = bulk.Plan(query or Query(), limit, rate, dry_run, everything, cutoff, progress)
        return await bulk.purge(self, plan, why or "")

    @operation
    async def erase(
        self,
        query: Query,
        *,
        limit: int | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        everything: bool = False,
        progress: Callable[[BulkResult], object] | None = None,
        why: str | None = None,
    ) -> BulkResult:
        """Delete every trace of the tasks that match, in every state, for deletion requests.

        Running ones when their attempt ends. ``limit`` and the rest are those of ``purge``; there is no cutoff, as what
        lives is meant, too.
        """
        await self.open()
        return await erasing.erase(self, bulk.Plan(query, limit, rate, dry_run, everything, None, progress), why or "")

    @operation
    async def cancel(self, id: str) -> bool:
        """Delete a pending task; False where it is not pending (any more). Raises TaskNotFound."""
        await self.open()
        return await letters.cancel(self, id)

    @operation
    async def pause(self, types: str = "*", *, why: str) -> Pause:
        r"""Let no worker claim the types that a glob matches, until they are resumed.

        It reaches every worker on this queue within a second and survives restarts. What runs already goes on;
        enqueue and ``process_task``, an explicit call, work as ever; ``expires_in`` runs on. Repeatable: a glob that
        is paused already stays paused for its first reason, and its standing pause is the answer.

        Args:
            types: a type or a glob (only ``*``; ``\*`` is a literal one), at most 400 characters.
            why: for whoever finds the work waiting; kept on one line of at most 500 characters.

        Raises:
            InvalidTask: names ``types`` or ``why``.
        """
        await self.open()
        return await pauses.pause(self, types, why)

    @operation
    async def resume(self, types: str = "*") -> Sequence[Pause]:
        """Lift the pause of this glob and those of all types and globs that it covers; ``"*"`` lifts all.

        Answers the pauses that it lifted: none where nothing was paused so. Types of a wider glob stay paused:
        after ``pause("email.*")``, ``resume("email.send")`` lifts nothing. Raises InvalidTask that names ``types``.
        """
        await self.open()
        return await pauses.resume(self, types)

    async def paused(self) -> Sequence[Pause]:
        """The pauses that stand, by glob."""
        await self.open()
        return await pauses.paused(self)

    def subscribe(self, *kinds: str, after: int | None = None) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """What happens to this queue's tasks from now on (or from ``after``, an event's seq), in every process.

        ``async with dlq.subscribe("dead") as events``. Lossy; what was missed is told as an event of kind ``gap``.
        Without kinds: all.
        """
        return subscription.subscribe(self, kinds, after)

    def processor(
        self,
        type: str,
        *,
        retry: RetryLike | None = None,
        max_retries: int | None = None,
        timeout: Duration | None = None,
        concurrency: int | None = None,
    ) -> Callable[[P], P]:
        """Register the decorated function as the processor of a type, for workers."""
        policy: RetryPolicy | None = as_policy(retry) if retry is not None else None
        Task(type=type, max_retries=max_retries, timeout=timeout)
        if concurrency is not None and (not isinstance(concurrency, int) or concurrency < 1):
            raise InvalidTask("concurrency", f"{concurrency!r} is no number of attempts; give 1 or more")

        def register(function: P) -> P:
            registration = Registration(
                processor=function,
                is_async=is_async(function),
                retry=policy,
                max_retries=max_retries,
                timeout=seconds("timeout", timeout) if timeout is not None else None,
                concurrency=concurrency,
            )
            self.registry.add(type, registration)
            return function

        return register

    def worker(
        self,
        *,
        concurrency: int = 32,
        types: Sequence[str] | None = None,
        batch: int = 100,
        shutdown_grace: Duration = 25,
        name: str | None = None,
        breakers: Mapping[str, Circuit] | None = None,
    ) -> Worker:
        """A worker for the registered processors (those whose type matches one of ``types``, names or globs).

        ``breakers``: by type or glob, what parks the types while a service is down; default: those of ``dlq.breakers``.
        """
        adopt(self)
        return Worker(
            self,
            concurrency=concurrency,
            types=types,
            batch=batch,
            shutdown_grace=shutdown_grace,
            name=name,
            breakers=breakers,
        )

    @property
    def sync(self) -> SyncQueue:
        """The same calls, blocking, from any thread that runs no event loop."""
        if self._sync is None:
            self._sync = SyncQueue(self)
        return self._sync

    # What the rest of the engine shares.

    def new_row(self, task: Task) -> NewRow:
        """Encode a task; raises InvalidTask that names the field."""
        return enqueueing.new_row(self, task)

    async def insert_row(self, new: NewRow) -> Insertion:
        """Store one encoded row together with those of other callers."""
        if not self._opened:
            await self.open()
        return await self._insert_one(new)

    async def insert(self, rows: Sequence[NewRow]) -> Insertions:
        """Store encoded rows, ≤ 100, in one step."""
        insertions = await self.backend.insert(self.name, rows)
        if self.spooler is not None:
            self.spooler.store_answered()
        return insertions

    def decode(self, row: Row) -> Task:
        """The task of a row; raises Undecodable."""
        return decode_task(self.codec, row)

    def record(self, row: Row) -> TaskRecord:
        """What a user sees of a row."""
        return record_from_row(self.codec, row, queue=self.name)

    def scan_fields(self, query: Query) -> dict[str, Any]:
        """What the store may narrow a scan by; a viewer who sees less lets it narrow less."""
        return query.scan_fields()

    async def row(self, task_id: str, *, history: int = 1) -> Row | None:
        """The stored row, or None."""
        return (await self.backend.load(self.name, [task_id], history=history))[0]

    async def apply(self, changes: Sequence[Change]) -> Verdicts:
        """Apply changes, ≤ 100, in one step."""
        return await self.backend.apply(self.name, changes)

    async def apply_one(self, change: Change) -> Verdict:
        """Apply one change together with those of other callers."""
        return await self._apply_one(change)

    async def sweep(self) -> int:
        """Deal with lapsed leases, expired tasks and rows past their keep, at most 100 of them."""
        return await sweep(self)

    async def extend(self, attempt: Attempt, duration: float) -> None:
        """Let an attempt run longer; raises LeaseLost."""
        await process.extend(self, attempt, duration)

    async def wait_for(self, bell: Bell, timeout: float) -> None:  # noqa: ASYNC109 - on the queue's own clock
        """Return when the bell rings, or ``timeout`` seconds have passed on this queue's clock."""
        if isinstance(self.clock, SystemClock):
            with anyio.move_on_after(timeout):
                await bell.wait()
            return
        async with anyio.create_task_group() as group:

            async def rung() -> None:
                await bell.wait()
                group.cancel_scope.cancel()

            group.start_soon(rung)
            await self.clock.sleep(timeout)
            group.cancel_scope.cancel()


def _furnish() -> None:
    """Bring what a queue works with, at the first queue.

    At import it would cost three times what ``import asyncio`` does, in every process that only makes a Task.
    """
    if "bulk" in globals():
        return
    parts = importlib.import_module("deadletter.engine.parts")
    globals().update({name: getattr(parts, name) for name in parts.__all__})


def _backend(backend: Backend | str | StoreClient, clock: Clock | None) -> tuple[Backend, bool]:
    if isinstance(backend, Backend):
        return backend, False
    if isinstance(backend, str):
        backends = importlib.import_module("deadletter.backends")  # reached by string: the engine knows no backend
        return cast("Backend", backends.backend_from_url(backend, clock=clock)), True
    made = importlib.import_module("deadletter.backends").backend_from_client(backend, clock=clock)
    if made is not None:
        return made, True
    raise InvalidTask(
        "backend",
        f"{type(backend).__name__} is no backend; give a URL such as 'sqlite:///path.db', a redis.Redis, or a Backend",
    )


_children: weakref.WeakSet[DeadLetterQueue] = weakref.WeakSet()


def living() -> Sequence[DeadLetterQueue]:
    """Every queue that this process has made and still holds."""
    return list(_children)


def _after_fork() -> None:
    for queue in living():
        queue.keeper.after_fork()
        queue.solitude.after_fork()
        queue._insert_one.forget()  # noqa: SLF001 - their loop is the parent's
        queue._apply_one.forget()  # noqa: SLF001
        if queue.spooler is not None:
            queue.spooler.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
