"""Processes that the tests start, kill and start again.

``python -m tests.faults.children`` is a fork server: it has imported everything and runs no thread, so that a child
costs a fork. It reads one JSON request a line and answers each with one.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import anyio
import anyio._backends._asyncio  # a child would have to import it anew each time

from deadletter import BackendUnavailable, Captured, DeadLetterQueue, Query, Task, current_attempt, dead_lettered
from deadletter.backends.sqlite import SpoolFile, SQLiteBackend, file, step
from deadletter.cli import transfer
from deadletter.cli.flags import Flags
from deadletter.engine import spooling
from deadletter.engine.worker import Worker
from deadletter.interfaces import SystemClock
from deadletter.model.row import Change, Claim, Claimed, Insertion, NewRow, Verdict

from .ledger import Ledger

STEP_POINTS = ("before_step", "mid_step", "after_step")
POINTS = ("before_reply", "after_reply", "mid_processor", "after_effect", "mid_settle", "after_settle")


class Fate:
    """Where a worker kills itself: the ``after``-th time that it reaches ``point``."""

    def __init__(self, point: str | None, after: int) -> None:
        self._point = point
        self._left = after

    def reach(self, point: str | None) -> None:
        """Die here, if it is time."""
        if point is not None and point == self._point:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


class SkewedClock(SystemClock):
    """The clock of a machine that is set wrongly."""

    def __init__(self, skew: float) -> None:
        self._skew = skew

    def now_ms(self) -> int:
        return super().now_ms() + round(self._skew * 1000)


def settles(changes: Sequence[Change]) -> bool:
    """Whether an outcome is among the changes."""
    return any(change.attempts for change in changes)


def doom(backend: SQLiteBackend, fate: Fate) -> None:
    """Let a worker die around its calls of the store: ``mid_settle`` is inside of the transaction."""
    claim, apply, step_apply = backend.claim, backend.apply, step.Step.apply

    async def doomed_claim(queue: str, wish: Claim) -> Claimed:
        claimed = await claim(queue, wish)
        if claimed.rows:
            fate.reach("before_reply")
        return claimed

    async def doomed_apply(queue: str, changes: Sequence[Change]) -> list[Verdict]:
        verdicts = await apply(queue, changes)
        if settles(changes):
            fate.reach("after_settle")
        return verdicts

    def doomed_step(self: step.Step, queue: str, changes: Sequence[Change]) -> list[Verdict]:
        verdicts = step_apply(self, queue, changes)
        if settles(changes):
            fate.reach("mid_settle")
        return verdicts

    backend.claim = doomed_claim  # type: ignore[method-assign]
    backend.apply = doomed_apply  # type: ignore[method-assign]
    step.Step.apply = doomed_step  # type: ignore[method-assign]


def processor_of(ledger: Ledger, fate: Fate, name: str) -> Callable[[Task], Any]:
    """A processor that does what its payload says."""

    async def process(task: Task) -> None:
        said = task.payload
        ledger.note("began", task.id, current_attempt().number, name)
        fate.reach("mid_processor")
        if said.get("do") == "die":
            os._exit(1)
        if said.get("do") == "block":
            time.sleep(said["seconds"])
        if said.get("do") == "hang" and ledger.ids("began").count(task.id) <= said["times"]:
            await anyio.sleep_forever()
        if "seconds" in said:
            await anyio.sleep(said["seconds"])
        if current_attempt().number <= said.get("fails", 0):
            raise ValueError(f"told to fail {said['fails']} times")
        ledger.effect(task.id, task.idempotency_key)
        fate.reach("after_effect")

    return process


async def worker(
    *,
    path: str,
    name: str,
    types: Sequence[str] = ("work",),
    kill_at: str | None = None,
    after: int = 1,
    concurrency: int = 32,
    skew: float | None = None,
    lock_seconds: float | None = None,
    **options: Any,
) -> None:
    """Work until killed; SIGTERM drains."""
    if lock_seconds is not None:
        file.LOCK_SECONDS = lock_seconds  # type: ignore[assignment]
    ledger, fate = Ledger(Path(path).parent), Fate(kill_at, after)
    backend = SQLiteBackend(path)
    doom(backend, fate)
    clock = SkewedClock(skew) if skew is not None else None
    async with DeadLetterQueue(backend, clock=clock, **options) as dlq:
        for type_ in types:
            dlq.processor(type_)(processor_of(ledger, fate, name))
        working = dlq.worker(concurrency=concurrency, name=name)
        enter = working.enter

        def doomed_enter(*given: Any) -> None:
            enter(*given)
            fate.reach("after_reply")

        working.enter = doomed_enter  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:
            group.start_soon(_stop_at_sigterm, working)
            await working.run()
            group.cancel_scope.cancel()
    await backend.aclose()


async def _stop_at_sigterm(working: Worker) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        async for _ in signals:
            working.stop()


async def producer(
    *, path: str, name: str, most: int = 1_000_000, size: int = 10, file_limit: int | None = None
) -> None:
    """Enqueue one, then a few, then one again, and note each answer; a refusal ends it."""
    ledger = Ledger(Path(path).parent)
    async with DeadLetterQueue(f"sqlite:///{path}") as dlq:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        for at in range(most):
            ids = [f"{name}-{at}"] if at % 2 else [f"{name}-{at}-{i}" for i in range(5)]
            tasks = [Task(type="work", id=id_, payload={"fill": "x" * size}) for id_ in ids]
            ledger.note("offered", *ids)
            try:
                await (dlq.enqueue(tasks[0]) if len(tasks) == 1 else dlq.enqueue_many(tasks))
            except Exception as error:
                cause = error.__cause__ or error
                ledger.note("refused", *ids, isinstance(cause, BackendUnavailable), str(cause))
                return
            ledger.acknowledge(*ids)


async def pauser(*, path: str, name: str, glob: str) -> None:
    """Pause and resume, again and again, until killed."""
    async with DeadLetterQueue(f"sqlite:///{path}") as dlq:
        while True:
            await dlq.pause(glob, why=name)
            await dlq.resume(glob)


def doom_steps(fate: Fate) -> None:
    """Let an operator die around each step that changes rows: ``mid_step`` is inside of the transaction."""

    def surround(name: str) -> None:
        call, work = getattr(SQLiteBackend, name), getattr(step.Step, name)

        async def doomed_call(self: SQLiteBackend, queue: str, given: Sequence[Any]) -> Any:
            fate.reach("before_step")
            answer = await call(self, queue, given)
            fate.reach("after_step")
            return answer

        def doomed_work(self: step.Step, queue: str, given: Sequence[Any]) -> Any:
            answer = work(self, queue, given)
            fate.reach("mid_step")
            return answer

        setattr(SQLiteBackend, name, doomed_call)
        setattr(step.Step, name, doomed_work)

    surround("apply")
    surround("insert")


async def operator(
    *,
    path: str,
    name: str,
    do: str,
    kill_at: str | None = None,
    after: int = 1,
    cutoff: str | None = None,
    lines: str | None = None,
) -> None:
    """Change many letters, as the command line does, and perhaps die on the way."""
    del name
    doom_steps(Fate(kill_at, after))
    if lines is not None:
        await transfer.import_(Path(lines), flags=Flags(url=f"sqlite:///{path}"))
        return
    async with DeadLetterQueue(f"sqlite:///{path}") as dlq:
        options = {"cutoff": datetime.fromisoformat(cutoff)} if cutoff is not None else {}
        await getattr(dlq, do)(Query(), everything=True, **options)


NEXT_SCHEMA = (
    2,
    [
        "CREATE TABLE dl_next (n INTEGER PRIMARY KEY, id TEXT NOT NULL)",
        "ALTER TABLE dl_rows ADD COLUMN next INTEGER NOT NULL DEFAULT 7",
        "INSERT INTO dl_next SELECT n, id FROM dl_rows",
        "CREATE INDEX dl_next_id ON dl_next (id)",
    ],
)


async def migrator(*, path: str, name: str, kill_at: str | None = None, after: int = 1, upgrade: bool = False) -> None:
    """Bring a file up to date, and perhaps die at some statement of it."""
    del name
    fate = Fate(kill_at, after)
    store = file.StoreFile(path, synchronous="FULL", create=True)
    known, connect = file.load_migrations, store._connect

    def with_the_next(package: str) -> list[tuple[int, list[str]]]:
        return [*known(package), NEXT_SCHEMA] if upgrade else known(package)

    def watched() -> Connection:
        connection = connect()
        begun = False

        def trace(statement: str) -> None:
            nonlocal begun
            begun = begun or statement.startswith("BEGIN EXCLUSIVE")
            if begun:
                fate.reach("statement")

        connection.set_trace_callback(trace)
        return connection

    file.load_migrations = with_the_next
    store._connect = watched  # type: ignore[method-assign]
    with closing(store.writer()):
        pass


SPOOL_POINTS = (
    "before_spooled",
    "in_spooling",
    "after_spooled",
    "before_insert",
    "after_insert",
    "in_removal",
    "after_removal",
)


class Line:
    """A store that is away as long as the file ``away`` stands beside it."""

    def __init__(self, backend: SQLiteBackend, folder: Path, fate: Fate) -> None:
        insert, away = backend.insert, folder / "away"

        async def insert_(queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
            if away.exists():
                raise BackendUnavailable("the line is cut")
            if queue == "default":
                fate.reach("before_insert")
            insertions = await insert(queue, rows)
            if queue == "default":
                fate.reach("after_insert")
            return insertions

        backend.insert = insert_  # type: ignore[method-assign]


class DoomedSpool(SpoolFile):
    """A spool whose process dies around its commits: ``in_…`` is inside of the transaction."""

    def __init__(self, path: Path, fate: Fate) -> None:
        super().__init__(path)
        self.fate = fate
        self._within = threading.local()  # who gives back changes the file from a thread of its own

    def put(self, url: str, queue: str, row: NewRow, now_ms: int) -> None:
        self.fate.reach("before_spooled")
        with self._inside("in_spooling"):
            super().put(url, queue, row, now_ms)
        self.fate.reach("after_spooled")

    def remove(self, places: Sequence[int]) -> None:
        with self._inside("in_removal"):
            super().remove(places)
        self.fate.reach("after_removal")

    @contextmanager
    def _inside(self, point: str) -> Iterator[None]:
        self._within.point = point
        try:
            yield
        finally:
            self._within.point = None

    @contextmanager
    def _changing(self) -> Iterator[Any]:
        with super()._changing() as connection:
            yield connection
            self.fate.reach(getattr(self._within, "point", None))


async def capturer(*, path: str, name: str, kill_at: str | None = None, after: int = 1, most: int = 1_000_000) -> None:
    """Call a function that fails, for ever, noting what the spool or the store acknowledged."""
    folder = Path(path).parent
    ledger, fate = Ledger(folder), Fate(kill_at, after)
    backend = SQLiteBackend(path)
    Line(backend, folder, fate)
    async with DeadLetterQueue(backend, spool=DoomedSpool(folder / "captures.spool", fate), retry=[3600]) as dlq:

        @dead_lettered(dlq, name="work", on_failure="suppress")
        async def work(who: str, at: int) -> None:
            raise ValueError("told to fail")

        for at in range(most):
            ledger.note("called", f"{name}/{at}")
            answer = await work(name, at)
            if isinstance(answer, Captured):
                ledger.acknowledge(answer.task_id)
                ledger.note("captured", answer.task_id, f"{name}/{at}")
            await anyio.sleep(0.001)
    await backend.aclose()


async def drainer(*, path: str, name: str, kill_at: str | None = None, after: int = 1, lease_ms: int = 300) -> None:
    """A worker that does nothing but bring what waits; the dead hold it up for no longer than ``lease_ms``."""
    del name
    spooling.LEASE_MS, spooling.WATCH = lease_ms, 0.05
    folder = Path(path).parent
    fate = Fate(kill_at, after)
    backend = SQLiteBackend(path)
    Line(backend, folder, fate)
    async with DeadLetterQueue(backend, spool=DoomedSpool(folder / "captures.spool", fate)) as dlq:
        working = dlq.worker()
        async with anyio.create_task_group() as group:
            group.start_soon(_stop_at_sigterm, working)
            await working.run()
            group.cancel_scope.cancel()
    await backend.aclose()


ROLES = {
    "worker": worker,
    "producer": producer,
    "pauser": pauser,
    "operator": operator,
    "migrator": migrator,
    "capturer": capturer,
    "drainer": drainer,
}


def _become(role: str, log_file: str, said: dict[str, Any]) -> None:
    """Be a child, to the end."""
    code = 70
    try:
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        logging.basicConfig(level=logging.WARNING, format=f"%(process)d {said.get('name')} %(name)s: %(message)s")

        async def run() -> None:
            await ROLES[role](**said)

        anyio.run(run)
        code = 0
    except BaseException:
        logging.getLogger("child").exception("it failed")
    finally:
        os._exit(code)


def serve() -> None:
    """Fork children as asked, and tell how they ended."""
    living: set[int] = set()
    # Kept back in each child until it can drain: a SIGTERM that comes earlier waits, and kills nobody.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            pid = os.fork()
            if pid == 0:
                _become(request["role"], request["log"], request["said"])
            living.add(pid)
            answer: int | None = pid
        else:
            found, status = os.waitpid(request["pid"], os.WNOHANG if request["do"] == "poll" else 0)
            answer = os.waitstatus_to_exitcode(status) if found else None
            living.discard(found)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in living:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()
