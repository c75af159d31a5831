"""Every schedule of a small world: one task, two workers, a sweeper and operators, with so many faults at most.

The engine and a store are the real ones. Whenever nobody can go on without the store, each thing that may happen next is
a way: a request is done, lost, done without its answer, or done twice, the second time at any later moment; or the
leases run out. All ways are gone, one run each; where a state was met before, what follows from it is known already
(stateful search by re-execution, as in VeriSoft, Godefroid 1997).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs

from deadletter import PermanentError, Query, Task
from deadletter.model.errors import BackendUnavailable, DeadLetterError
from deadletter.model.row import RUNNING
from deadletter.runtime.chance import Chance

from .judgement import unexplained
from .link import Link
from .loop import SeededLoop
from .network import Network, Over, Request, at_once
from .pace import Pace, Rates
from .server import Server
from .watch import Watch
from .world import EPOCH_MS, QUEUE, Queue, SimClock

LEASE = 2.0
ID = "task"
Actor = Callable[[Queue], Awaitable[object]]


async def _fails(task: Task) -> None:
    raise PermanentError("never")


async def _works(task: Task) -> None:
    return


ACTORS: dict[str, Actor] = {
    "worker": lambda queue: queue.process_task(ID, _works),
    "killer": lambda queue: queue.process_task(ID, _fails),
    "sweeper": lambda queue: queue.sweep(),
    "retry": lambda queue: queue.retry(ID),
    "edit": lambda queue: queue.retry(ID, payload={"edited": True}),
    "purge": lambda queue: queue.purge(Query(ids=[ID])),
    "cancel": lambda queue: queue.cancel(ID),
    "again": lambda queue: queue.enqueue(Task(type="t", id=ID)),
}


@attrs.frozen
class Scope:
    """Who is there, whether the task is a letter already, and how much goes wrong."""

    actors: tuple[str, ...]
    dead: bool = False
    faults: int = 0
    lapses: int = 1


@attrs.define
class Explored:
    """What a search came to."""

    schedules: int
    states: int
    runs: int
    wrong: list[str]
    whole: bool


@attrs.define(eq=False)
class _Waiting:
    """A request that has left its sender, or a second one that nobody waits for."""

    request: Request
    name: str
    args: Any
    options: Any
    reply: asyncio.Future[Any] | None

    def __str__(self) -> str:
        return f"{self.request.link.who} {self.name}{' again' if self.reply is None else ''}"


class _Crossroads(Network):
    """Does nothing of itself."""

    def __init__(self, loop: _Loop, scope: Scope) -> None:
        clock = SimClock(loop)
        watch = Watch(QUEUE, clock.now_ms, loop.time)
        self._loop: _Loop
        super().__init__(
            loop,
            Server("memory", clock, 1),
            watch,
            random.Random(0),
            Pace(random.Random(0), Rates()),
            epoch_ms=EPOCH_MS,
        )
        self.waiting: list[_Waiting] = []
        self.faults, self.lapses = scope.faults, scope.lapses
        self.told: dict[str, list[str]] = {}
        self.direct = True

    async def call(self, request: Request, name: str, *args: Any, **options: Any) -> Any:
        if self.over:
            raise Over
        if self.direct or name == "inspect":
            return self._execute(0, name, args, options)
        reply: asyncio.Future[Any] = self._loop.create_future()
        self.waiting.append(_Waiting(request, name, args, options, reply))
        self.waiting.sort(key=str)
        return await reply

    def ways(self, *, soon: bool) -> list[tuple[str, _Waiting | None]]:
        """What may happen next."""
        ways: list[tuple[str, _Waiting | None]] = [("do", each) for each in self.waiting]
        if self.faults:
            asked = [each for each in self.waiting if each.reply is not None and each.name != "end"]
            ways += [(fault, each) for each in asked for fault in ("lose", "unheard", "twice")]
        if soon:
            ways.append(("wait", None))
        leased = any(life.state == RUNNING for life in self.watch.lives.values())  # else time changes nothing
        return [*ways, ("lapse", None)] if self.lapses and leased else ways

    def go(self, way: str, each: _Waiting | None) -> None:
        """Let it happen."""
        if each is None:
            if way == "lapse":
                self.lapses -= 1
                self._loop.pass_time(LEASE + 0.001)
            else:
                self._loop.pass_on()
            return
        self.waiting.remove(each)
        self.faults -= way != "do"
        if way == "twice":
            if each.request.asked is not None:
                self.history.repeat(each.request.asked, self.now_ms())
            self.waiting.append(attrs.evolve(each, reply=None))
            self.waiting.sort(key=str)
        answer = None if way == "lose" or each.name == "end" else self._execute(0, each.name, each.args, each.options)
        if each.reply is not None and not each.reply.done():
            self.told.setdefault(each.request.link.who, []).append(f"{way} {each.name} {answer!r}")
            if way in ("lose", "unheard"):
                each.reply.set_exception(BackendUnavailable(f"{each.name}: lost"))
            else:
                each.reply.set_result(answer)

    def state(self) -> bytes:
        """All that decides what may come."""
        shelf = self.server.first._queues.get(QUEUE)  # type: ignore[attr-defined]
        stored = (list(shelf.rows.values()), dict(shelf.claims)) if shelf is not None else ()
        waits = [(str(each), each.args) for each in self.waiting]
        told = repr((stored, self._loop.time(), waits, self.faults, self.lapses, sorted(self.told.items())))
        return hashlib.blake2b(told.encode(), digest_size=16).digest()


class _Loop(SeededLoop):
    """Tells where it would jump to the next timer, so that somebody may choose another way."""

    def __init__(self) -> None:
        super().__init__(lambda ready: 0)
        self.idle: Callable[[], bool] = lambda: False

    def soon(self) -> bool:
        """Whether somebody wakes up before a lease is over."""
        return any(when < self._now + LEASE / 2 and not timer.cancelled() for when, _, timer in self._timers)

    def pass_time(self, seconds: float) -> None:
        """Nobody runs meanwhile."""
        self._now += seconds

    def pass_on(self) -> None:
        """To the next timer."""
        super()._jump()

    def _jump(self) -> None:
        if self.idle():
            self._sort_in()
        else:
            super()._jump()


class _Run:
    """One run along a path, and beyond its end by the first way each time."""

    def __init__(self, search: _Search, path: Sequence[int]) -> None:
        self._search = search
        self._path = path
        self._loop = _Loop()
        self._network = _Crossroads(self._loop, search.scope)
        self._asked: asyncio.Future[None] | None = None
        self.wrong: list[str] = []
        self.steps: list[str] = []

    def go(self) -> None:
        """Go, and note what is wrong."""
        self._loop.idle = self._wake
        self._loop.run(self._main())

    def _wake(self) -> bool:
        if self._asked is None or self._asked.done() or not self._network.waiting:
            return False
        self._asked.set_result(None)
        return True

    async def _main(self) -> None:
        network = self._network
        await self._prepare()
        network.direct = False
        story = asyncio.ensure_future(self._story())
        drive = asyncio.ensure_future(self._drive())
        await asyncio.wait({story, drive}, return_when=asyncio.FIRST_COMPLETED)
        network.over = True
        if drive.done():
            drive.result()
        else:
            story.result()
            self._search.end(self._before)
        [row] = at_once(network.server.whole(QUEUE).load([ID], history=20))
        self.wrong += network.watch.broken
        self.wrong += unexplained(network.history, {ID: row}, network.now_ms())

    async def _prepare(self) -> None:
        queue = self._queue("first", 0)
        await queue.enqueue(Task(type="t", id=ID))
        if self._search.scope.dead:
            await queue.process_task(ID, _fails)

    def _queue(self, name: str, seed: int) -> Queue:
        return Queue(Link(self._network, name), SimClock(self._loop), Chance(seed), LEASE)

    async def _story(self) -> None:
        actors = self._search.scope.actors
        await asyncio.gather(*(self._act(f"{n}-{name}", name, n) for n, name in enumerate(actors, 1)))
        await self._network.call(Request(Link(self._network, "zz"), 0, None), "end")

    async def _act(self, name: str, what: str, seed: int) -> None:
        told = self._network.told.setdefault(name, [])
        try:
            await ACTORS[what](self._queue(name, seed))
            told.append("done")
        except DeadLetterError as error:
            told.append(repr(error))

    async def _drive(self) -> None:
        """At each crossing take the way that the path says; beyond it the first, and note the others."""
        self._before: tuple[bytes, int] | None = None
        for at in itertools.count():
            self._asked = self._loop.create_future()
            await self._asked
            ways = self._network.ways(soon=self._loop.soon())
            chosen = self._path[at] if at < len(self._path) else 0
            if at >= len(self._path) - 1:
                state = self._network.state()
                if at >= len(self._path) and not self._search.meet(state, self._before, self._path, at, len(ways)):
                    return
                self._before = (state, chosen)
            self.steps.append(f"{ways[chosen][0]} {ways[chosen][1] or ''}")
            self._network.go(*ways[chosen])


class _Search:
    """Goes all ways; remembers which states it met, and how they follow each other."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._next: dict[bytes, dict[int, bytes | None]] = {}
        self._left: list[tuple[int, ...]] = [()]
        self.wrong: list[str] = []
        self.runs = 0

    def explore(self, most: int) -> Explored:
        while self._left and self.runs < most and not self.wrong:
            path = self._left.pop()
            self.runs += 1
            run = _Run(self, path)
            run.go()
            if run.wrong:
                self.wrong = [f"{self.scope}: {'; '.join(run.steps)}", *run.wrong]
        return Explored(self._schedules(), len(self._next), self.runs, self.wrong, whole=not self._left)

    def meet(self, state: bytes, before: tuple[bytes, int] | None, path: Sequence[int], at: int, ways: int) -> bool:
        """A state comes after another; False where it is known."""
        if before is not None:
            self._next[before[0]][before[1]] = state
        if state in self._next:
            return False
        self._next[state] = {}
        walked = (*path, *[0] * (at - len(path)))
        self._left += [(*walked, way) for way in range(1, ways)]
        return True

    def end(self, before: tuple[bytes, int] | None) -> None:
        """A run came to its end."""
        if before is not None:
            self._next[before[0]][before[1]] = None

    def _schedules(self) -> int:
        """How many different ways lead from the start to an end."""
        known: dict[bytes | None, int] = {None: 1}
        stack = [next(iter(self._next))]
        while stack:
            state = stack[-1]
            missing = [after for after in self._next[state].values() if after not in known]
            if missing:
                stack += [after for after in missing if after is not None]
            else:
                known[stack.pop()] = sum(known[after] for after in self._next[state].values())
        return known[next(iter(self._next))]


def explore(scope: Scope, *, most: int = 1_000_000) -> Explored:
    """Go all ways through a scope, ``most`` runs at most; ends at the first thing that is wrong."""
    return _Search(scope).explore(most)
