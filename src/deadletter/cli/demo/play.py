"""The demo's story, with real processes: enqueue, kill, outage, groups, mend, replay, account."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
import attrs
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from ...engine.queue import DeadLetterQueue
from ...model.errors import BackendUnavailable
from ...model.query import Query
from ...model.record import Reason, State, Stats, TaskRecord
from ...model.task import Task
from ..exits import DONE, FAILED
from ..output import emit
from .account import Account, settle
from .script import APP, DOWN_AT, KILL_AT, LONGEST, OUTAGE, RECEIVER, TYPE, WORKERS, Script
from .stage import Stage, open_stage

_T = TypeVar("_T")


@attrs.frozen
class Receiver:
    """The receiver's process and its log."""

    process: Process
    lines: TextReceiveStream
    log: Path
    address: str

    async def be(self, word: str) -> None:
        """Tell it, and wait until it is so."""
        assert self.process.stdin is not None  # noqa: S101 - opened with a pipe
        await self.process.stdin.send(f"{word}\n".encode())
        await self.lines.receive()

    def delivered(self) -> list[str]:
        """The ids in its log, as often as they are there."""
        return self.log.read_text(encoding="utf-8").split()


async def play(script: Script) -> int:
    """Run the whole story; answer the exit code."""
    home = Path(await anyio.to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="deadletter-demo-")))
    url = script.url or f"sqlite:///{home / 'demo.db'}"
    name = "default" if script.url is None else f"demo-{secrets.token_hex(3)}"
    with open_stage(script.deliveries, sys.stderr if script.json else None) as stage:
        async with (
            _receiver(home / "receiver.log", script.drop_every) as receiver,
            DeadLetterQueue(url, name=name) as queue,
        ):
            environ = {"DEADLETTER_URL": url, "DEADLETTER_QUEUE": name, RECEIVER: receiver.address}
            async with _workers(script, home, environ) as workers:
                account = await _story(script, stage, queue, receiver, workers)
        _tell_account(stage, account)
        if script.url is None:
            _tell_next(stage, url)
        if script.json:
            shown = {**attrs.asdict(account), "closes": account.closes, "seconds": round(stage.elapsed, 1)}
            emit({**shown, "url": url, "queue": name})
    return DONE if account.closes else FAILED


async def _story(
    script: Script, stage: Stage, queue: DeadLetterQueue, receiver: Receiver, workers: Sequence[Process]
) -> Account:
    act = _Act(script, stage, queue, receiver)
    stage.tell(f"{WORKERS} worker processes on {queue.backend.url}; a receiver on http://{receiver.address}")
    tasks = _tasks(script)  # with ids of their own: sent again, they are not stored twice
    accepted = await act.patiently(lambda: queue.enqueue_many(tasks))
    stage.tell(f"{len(accepted)} webhook deliveries accepted")
    await act.until(lambda _: act.share >= KILL_AT)
    workers[0].send_signal(signal.SIGKILL)
    stage.tell(f"kill -9 {workers[0].pid}: one worker is gone in the middle of its work")
    await act.until(lambda _: act.share >= DOWN_AT)
    await receiver.be("down")
    stage.tell("the receiver is down: connections are refused")
    await anyio.sleep(OUTAGE)
    await receiver.be("up")
    stage.tell(f"the receiver is up again after {OUTAGE:g} s")
    await act.until(_all_ended)
    uncertain = await act.uncertain(accepted)
    replayed = await act.replay()
    await act.until(_all_ended)
    uncertain |= await act.uncertain(accepted)
    states = await act.states(accepted)
    stats = await act.patiently(queue.stats)
    return settle(
        accepted=accepted,
        log=receiver.delivered(),
        states=states,
        uncertain=uncertain,
        lifetime=stats.lifetime,
        replayed=replayed,
    )


def _all_ended(stats: Stats) -> bool:
    return stats.by_state[State.PENDING] == stats.by_state[State.RUNNING] == 0


@attrs.define
class _Act:
    """What the story does with the queue."""

    script: Script
    stage: Stage
    queue: DeadLetterQueue
    receiver: Receiver
    share: float = 0.0

    async def until(self, reached: Callable[[Stats], bool]) -> None:
        """Show progress until it is so, or for ``LONGEST`` seconds."""
        deliverable = self.script.deliveries - self.script.new_format - self.script.gone
        with anyio.move_on_after(LONGEST):
            while True:
                stats = await self.patiently(self.queue.stats)
                delivered = len(set(self.receiver.delivered()))
                self.share = delivered / deliverable
                by_state = stats.by_state
                self.stage.progress(delivered, by_state["pending"], by_state["running"], by_state["dead"])
                if reached(stats):
                    return
                await anyio.sleep(0.05)

    async def patiently(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """What it answers; asked again while the store is away, for ``LONGEST`` seconds."""
        until = anyio.current_time() + LONGEST
        told = False
        while True:
            try:
                answer = await call()
            except BackendUnavailable:
                if anyio.current_time() > until:
                    raise
                if not told:
                    self.stage.tell("the store is away; everybody waits for it")
                told = True
                await anyio.sleep(0.1)
            else:
                if told:
                    self.stage.tell("the store is back")
                return answer

    async def replay(self) -> int:
        """Show the failure groups, mend the receiver, send back what failed for its sake."""
        self.stage.tell("what is left is dead letters; by cause:")
        for group in await self.patiently(self.queue.groups):
            self.stage.line(f"           {group.count:>4} × {group.error_type.rpartition('.')[2]}: {group.message}")
        await self.receiver.be("mend")
        self.stage.tell("the receiver is mended: it reads the new format now")
        replayed = 0
        exhausted = Query(reason=Reason.RETRIES_EXHAUSTED)
        for group in await self.patiently(lambda: self.queue.groups(exhausted)):
            query = Query(fingerprint=group.key)
            result = await self.patiently(functools.partial(self.queue.retry_all, query))
            replayed += result.changed
            self.stage.tell(f"group {group.key[:12]} replayed: {result.changed} letters back to pending")
        return replayed

    async def states(self, ids: Sequence[str]) -> dict[str, str]:
        """What the queue says of each id."""
        return {record.id: str(record.state) for record in await self._records(ids)}

    async def uncertain(self, ids: Sequence[str]) -> set[str]:
        """The ids whose worker vanished in mid-attempt."""
        return {record.id for record in await self._records(ids) if record.lease_losses}

    async def _records(self, ids: Sequence[str]) -> list[TaskRecord]:
        found: list[TaskRecord] = []
        for at in range(0, len(ids), 1000):
            batch = ids[at : at + 1000]
            query = Query(state=None, ids=batch)
            found += (await self.patiently(functools.partial(self.queue.list, query, limit=1000))).items
        return found


def _tasks(script: Script) -> list[Task]:
    tasks = []
    for n in range(script.deliveries):
        payload: dict[str, object] = {"event": "order.paid", "customer": n, "token": f"whsec-{n:06}"}
        if n % 8 == 3 and n // 8 < script.new_format:
            payload |= {"event": "invoice.created", "format": 2}
        elif n in (script.deliveries // 4, script.deliveries // 2, script.deliveries - 2):
            payload |= {"gone": True}
        tasks.append(Task(type=TYPE, payload=payload))
    return tasks


@contextlib.asynccontextmanager
async def _receiver(log: Path, drop_every: int) -> AsyncIterator[Receiver]:
    await anyio.Path(log).touch()
    command = [sys.executable, "-m", "deadletter.cli.demo.receiver", str(log), str(drop_every)]
    async with _child(command, stderr=None) as process:
        assert process.stdout is not None  # noqa: S101 - opened with a pipe
        lines = TextReceiveStream(process.stdout)
        port = (await lines.receive()).strip()
        yield Receiver(process, lines, log, f"127.0.0.1:{port}")


@contextlib.asynccontextmanager
async def _workers(script: Script, home: Path, environ: Mapping[str, str]) -> AsyncIterator[list[Process]]:
    options = ["--app", APP, "--concurrency", str(script.concurrency), "--supervised", "--log", "json"]
    command = [sys.executable, "-m", "deadletter", "worker", *options]
    async with contextlib.AsyncExitStack() as stack:
        workers = []
        for number in range(WORKERS):
            said = stack.enter_context((home / f"worker-{number + 1}.log").open("wb"))
            workers.append(await stack.enter_async_context(_child(command, stderr=said.fileno(), environ=environ)))
        yield workers


@contextlib.asynccontextmanager
async def _child(
    command: Sequence[str], *, stderr: int | None, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """A child whose stdin ends with us, in a session of its own; gone when the block ends, however it ends."""
    process = await anyio.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
        env={**os.environ, **(environ or {})},
    )
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
                with anyio.move_on_after(3):
                    await process.wait()
            if process.returncode is None:
                process.kill()
            await process.aclose()


def _tell_account(stage: Stage, account: Account) -> None:
    stage.line("")
    stage.line("The account, against the receiver's own log:")
    twice = "at least once: the killed worker had delivered, and could not say so" if account.delivered_twice else ""
    for label, count, why in (
        ("accepted", account.accepted, ""),
        ("delivered", account.delivered, ""),
        ("retried", account.retried, "attempts after a task's first"),
        (
            "dead",
            account.dead,
            f"{account.still_dead} still are, kept for you to look at" if account.still_dead else "",
        ),
        ("replayed", account.replayed, ""),
        ("lost", account.lost, ""),
        ("delivered twice", account.delivered_twice, twice),
    ):
        stage.line(f"  {label:16}{count:>6}  {why}".rstrip())
    for problem in account.problems:
        stage.line(f"  ! {problem}")
    verdict = "it closes" if account.closes else "it does NOT close"
    stage.line(f"  {verdict} ({stage.elapsed:.1f} s)")


def _tell_next(stage: Stage, url: str) -> None:
    stage.line("")
    stage.line("Try next:")
    stage.line(f"  export DEADLETTER_URL={url}")
    for command in ("ls", "groups", "stats", "show ID", "ls --state succeeded --limit 5"):
        stage.line(f"  deadletter {command}")
