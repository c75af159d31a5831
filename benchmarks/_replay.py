"""A work's commands on the wire: recorded from the library, sent again by a bare hiredis loop, or as plain SETs."""

from __future__ import annotations

import asyncio
import csv
import shutil
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import hiredis
from _stores import Store
from _work import tasks

if TYPE_CHECKING:
    from deadletter import DeadLetterQueue

LIMITS = ("the same commands by a bare hiredis loop", "as many SETs or GETs of as many bytes by redis-benchmark")
_Trip = Sequence[Sequence[Any]]  # commands that are sent together
_BUFFER = 1 << 18


async def _one_by_one(dlq: DeadLetterQueue, given: list[Any]) -> None:
    for task in given:
        await dlq.enqueue(task)


async def _by_64(dlq: DeadLetterQueue, given: list[Any]) -> None:
    left = iter(given)

    async def feed() -> None:
        for task in left:
            await dlq.enqueue(task)

    await asyncio.gather(*(feed() for _ in range(64)))


async def _in_bulk(dlq: DeadLetterQueue, given: list[Any]) -> None:
    await dlq.enqueue_many(given)


async def _drain(dlq: DeadLetterQueue, given: list[Any]) -> None:
    @dlq.processor("noop")
    async def noop(task: object) -> None:
        pass

    await dlq.worker(concurrency=100).run_until_idle()
    succeeded = (await dlq.stats()).by_state["succeeded"]
    if succeeded != len(given):
        raise SystemExit(f"{succeeded} of {len(given)} done")


_Work = Callable[["DeadLetterQueue", list[Any]], Awaitable[None]]
WORKS: Mapping[str, tuple[_Work | None, _Work]] = {  # what comes before, and what is measured
    "W1 one by one": (None, _one_by_one),
    "W1 64 coroutines": (None, _by_64),
    "W1 bulk": (None, _in_bulk),
    "W2 drain": (_in_bulk, _drain),
}


@attrs.define
class Tape:
    """What a work sent, by round trip, and how many bytes went both ways."""

    before: list[_Trip] = attrs.field(factory=list)
    trips: list[_Trip] = attrs.field(factory=list)
    sent: int = 0
    received: int = 0

    @property
    def commands(self) -> int:
        """How many."""
        return sum(map(len, self.trips))

    def per_task(self, n: int) -> dict[str, float]:
        """Round trips and bytes."""
        return {"trips a task": len(self.trips) / n, "bytes a task": (self.sent + self.received) / n}


async def _run(store: Store, folder: str, work: str, n: int, between: Callable[[], None]) -> float:
    from deadletter import DeadLetterQueue

    before, measured = WORKS[work]
    async with DeadLetterQueue(store.url(folder)) as dlq:
        given = tasks(n)
        if before is not None:
            await before(dlq, given)
        between()
        began = time.perf_counter()
        await measured(dlq, given)
        return n / (time.perf_counter() - began)


def library(store: Store, folder: str, work: str, n: int) -> float:
    """Tasks a second through the public API."""
    return asyncio.run(_run(store, folder, work, n, lambda: None))


def recorded(store: Store, folder: str, work: str, n: int) -> Tape:
    """The commands of one run, from all loops, in the order in which they were sent."""
    from deadletter.backends.redis.client import LoopWire

    tape, real = Tape(), LoopWire.run
    into = [tape.before]

    async def noted(wire: LoopWire, commands: _Trip) -> list[Any]:
        into[0].append([tuple(command) for command in commands])
        return await real(wire, commands)

    LoopWire.run = noted  # type: ignore[method-assign]
    try:
        asyncio.run(_run(store, folder, work, n, lambda: into.__setitem__(0, tape.trips)))
    finally:
        LoopWire.run = real  # type: ignore[method-assign]
    return tape


class _Line:
    """One connection."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._reader = hiredis.Reader(notEnoughData=...)
        self.received = 0

    def send(self, data: bytes, replies: int) -> None:
        """Send, and read so many replies; a script that is not known yet is an answer like any other."""
        self._socket.sendall(data)
        while replies:
            while replies and self._reader.gets() is not ...:
                replies -= 1
            if replies:
                told = self._socket.recv(_BUFFER)
                self.received += len(told)
                self._reader.feed(told)


def _packed(trips: Sequence[_Trip]) -> list[tuple[bytes, int]]:
    return [(b"".join(map(_one, trip)), len(trip)) for trip in trips]


def _one(command: Sequence[Any]) -> bytes:
    packed: bytes = hiredis.pack_command(tuple(command))
    return packed


def replayed(store: Store, folder: str, work: str, n: int, tape: Tape) -> float:
    """Tasks a second where the same commands, packed before, are sent with nothing around them."""
    line = _Line(store.url(folder).removeprefix("unix://"))
    for data, replies in _packed(tape.before):
        line.send(data, replies)
    trips = _packed(tape.trips)
    line.received = 0
    began = time.perf_counter()
    for data, replies in trips:
        line.send(data, replies)
    taken = time.perf_counter() - began
    tape.sent, tape.received = sum(len(data) for data, _ in trips), line.received
    return n / taken


def benchmarked(store: Store, folder: str, work: str, n: int, tape: Tape) -> float | None:
    """Tasks a second where redis-benchmark moves as many bytes in as many commands; None where it is not installed.

    It sends the bytes where more are sent than received, and asks for them otherwise.
    """
    program = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if program is None:
        return None
    path = store.url(folder).removeprefix("unix://")
    value = "x" * ((tape.sent + tape.received) // tape.commands)
    command = ["SET", "key", value]
    if tape.received > tape.sent:
        _Line(path).send(_one(command), 1)
        command = ["GET", "key"]
    together = max(1, round(tape.commands / len(tape.trips)))
    options = ["-s", path, "-c", "1", "-n", str(tape.commands), "-P", str(together), "--csv"]
    done = subprocess.run([program, *options, *command], check=True, capture_output=True, text=True)
    *_, last = csv.reader(done.stdout.splitlines())
    return float(last[1]) * n / tape.commands
