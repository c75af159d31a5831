"""What a child may be, on any store: a worker, a producer, who pauses, an operator."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio

from deadletter import BackendUnavailable, DeadLetterQueue, Query, Task, current_attempt
from deadletter.backends import backend_from_url
from deadletter.backends.sqlite import file
from deadletter.cli import transfer
from deadletter.cli.flags import Flags
from deadletter.engine.worker import Worker
from deadletter.interfaces import SystemClock

from .doom import Fate, doom, doom_steps
from .ledger import Ledger


class SkewedClock(SystemClock):
    """The clock of a machine that is set wrongly."""

    def __init__(self, skew: float) -> None:
        self._skew = skew

    def now_ms(self) -> int:
        return super().now_ms() + round(self._skew * 1000)


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
    url: str,
    folder: str,
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
    ledger, fate = Ledger(Path(folder)), Fate(kill_at, after)
    backend = backend_from_url(url)
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
            group.start_soon(stop_at_sigterm, working)
            await working.run()
            group.cancel_scope.cancel()
    await backend.aclose()


async def stop_at_sigterm(working: Worker) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        async for _ in signals:
            working.stop()


async def producer(
    *,
    url: str,
    folder: str,
    name: str,
    most: int = 1_000_000,
    size: int = 10,
    file_limit: int | None = None,
    patient: bool = False,
) -> None:
    """Enqueue one, then a few, then one again, and note each answer.

    A refusal ends it; who is patient asks again with the same ids until the store is back. So does the file ``enough``.
    """
    ledger, enough = Ledger(Path(folder)), Path(folder) / "enough"
    async with DeadLetterQueue(url) as dlq:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        for at in range(most):
            ids = [f"{name}-{at}"] if at % 2 else [f"{name}-{at}-{i}" for i in range(5)]
            tasks = [Task(type="work", id=id_, payload={"fill": "x" * size}) for id_ in ids]
            ledger.note("offered", *ids)
            while True:
                try:
                    await (dlq.enqueue(tasks[0]) if len(tasks) == 1 else dlq.enqueue_many(tasks))
                    break
                except Exception as error:
                    away = isinstance(error, BackendUnavailable) or isinstance(error.__cause__, BackendUnavailable)
                    ledger.note("refused", *ids, away, str(error.__cause__ or error))
                    if not (patient and away):
                        return
            ledger.acknowledge(*ids)
            if enough.exists():
                return


async def pauser(*, url: str, folder: str, name: str, glob: str) -> None:
    """Pause and resume, again and again, until killed."""
    del folder
    async with DeadLetterQueue(url) as dlq:
        while True:
            await dlq.pause(glob, why=name)
            await dlq.resume(glob)


async def operator(
    *,
    url: str,
    folder: str,
    name: str,
    do: str,
    kill_at: str | None = None,
    after: int = 1,
    cutoff: str | None = None,
    lines: str | None = None,
) -> None:
    """Change many letters, as the command line does, and perhaps die on the way."""
    del name, folder
    doom_steps(Fate(kill_at, after))
    if lines is not None:
        await transfer.import_(Path(lines), flags=Flags(url=url))
        return
    async with DeadLetterQueue(url) as dlq:
        options = {"cutoff": datetime.fromisoformat(cutoff)} if cutoff is not None else {}
        await getattr(dlq, do)(Query(), everything=True, **options)
