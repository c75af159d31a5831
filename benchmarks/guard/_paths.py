"""The hot paths, each repeated ``argv[1] <= n`` times in a forked child: what valgrind counts.

Imports are done once, before the forks. Each path runs twice, with few and with many repetitions, so that the difference
holds neither start nor end: instructions for one repetition. Prints ``path repetitions pid`` for each child.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable

from deadletter import DeadLetterQueue, Task, dead_lettered
from deadletter.retry import Exponential, FailedAttempt
from deadletter.rules.codec import JsonCodec
from deadletter.runtime.chance import Chance

PAYLOAD = {"to": "someone@example.org", "text": "x" * 160, "items": [1, 2.5, None, True, {"deep": ["a", "b"]}]}
FEW, MANY = 20, 120


def queue(url: str = "memory://") -> DeadLetterQueue:
    return DeadLetterQueue(url, chance=Chance(1))


def tasks(n: int) -> list[Task]:
    return [Task(type="noop", payload=PAYLOAD, id=f"task-{at}") for at in range(n)]


async def enqueue(n: int) -> None:
    async with queue() as dlq:
        for task in tasks(n):
            await dlq.enqueue(task)


async def drain(n: int, url: str = "memory://") -> None:
    async with queue(url) as dlq:

        @dlq.processor("noop")
        async def noop(task: Task) -> None:
            pass

        await dlq.enqueue_many(tasks(n))
        await dlq.worker(concurrency=100).run_until_idle()
        if (await dlq.stats()).by_state["succeeded"] != n:
            raise SystemExit("not all done")


async def enqueue_sqlite(n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with queue(f"sqlite:///{folder}/queue.db") as dlq:
            await dlq.enqueue_many(tasks(n))


async def drain_sqlite(n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await drain(n, f"sqlite:///{folder}/queue.db")


async def encode(n: int) -> None:
    codec = JsonCodec()
    for _ in range(n):
        codec.decode(codec.encode(PAYLOAD))


async def decide(n: int) -> None:
    policy, chance = Exponential(), random.Random(1)
    for number in range(n):
        policy.delay(FailedAttempt(number=number % 9 + 1, random=chance))


async def decorated(n: int) -> None:
    add = dead_lettered(queue(), name="add")(lambda left, right: left + right)
    for _ in range(n):
        add(1, 2)


async def reference(n: int) -> None:
    """Plain Python, that no change of ours alters: tells a change of the interpreter from one of the library."""
    for _ in range(n):
        sorted(str(number) for number in range(50))


PATHS: dict[str, tuple[Callable[[int], Awaitable[None]], int]] = {  # the path, and how many times FEW and MANY
    "reference": (reference, 1),
    "enqueue, memory": (enqueue, 1),
    "drain with enqueue_many, memory": (drain, 1),
    "enqueue_many, SQLite": (enqueue_sqlite, 2),
    "drain with enqueue_many, SQLite": (drain_sqlite, 2),
    "encode and decode": (encode, 2),
    "policy decision": (decide, 10),
    "decorator, success": (decorated, 10),
}


async def _run(path: Callable[[int], Awaitable[None]], n: int) -> None:
    await path(3)  # what is done once: caches, lazy imports
    await path(n)


def main() -> None:
    for name, (path, share) in PATHS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        for n in (FEW * share, MANY * share):
            pid = os.fork()
            if not pid:
                asyncio.run(_run(path, n))
                sys.exit()  # not os._exit: valgrind writes its count at a normal end
            _, status = os.waitpid(pid, 0)
            if status:
                raise SystemExit(f"{name} failed")
            print(f"{name}\t{n}\t{pid}", flush=True)


if __name__ == "__main__":
    main()
