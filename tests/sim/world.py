"""A little world: one store, a network, and processes that get killed, frozen and started again, all under one seed."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable, Collection

import attrs

from deadletter import Clock, DeadLetterQueue, Task
from deadletter.engine.worker import Worker
from deadletter.model.row import EventRow, Row
from deadletter.runtime.chance import Chance
from deadletter.runtime.threads import InlineThreads

from .ledger import Ledger
from .link import Link
from .loop import LANE, Chooser, Lane, SeededLoop, any_order, lane_order
from .network import PATIENCE, Network
from .pace import Pace, Priorities, Rates
from .seed import Seed
from .server import Server
from .watch import Watch

QUEUE = "default"
EPOCH_MS = 1_750_000_000_000
DELAYS = (0.5, 1.0, 2.0)


class SimClock(Clock):
    """The loop's time, as one machine's clock shows it."""

    def __init__(self, loop: SeededLoop, offset_ms: int = 0) -> None:
        self.offset_ms = offset_ms
        self._loop = loop

    def now_ms(self) -> int:
        return EPOCH_MS + self.offset_ms + int(self._loop.time() * 1000)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class Queue(DeadLetterQueue):
    """The real queue; it only remembers under which lease a task was decoded."""

    def __init__(self, link: Link, clock: Clock, chance: Chance, lease: float) -> None:
        super().__init__(
            link,
            clock=clock,
            chance=chance,
            threads=InlineThreads(),
            lease=lease,
            retry_delays=DELAYS,
            dlq_ttl=None,
            name=QUEUE,
        )
        self.tokens: dict[int, tuple[Task, str]] = {}

    def decode(self, row: Row) -> Task:
        task = super().decode(row)
        self.tokens[id(task)] = (task, row.token or "")
        return task


Main = Callable[["Process"], Awaitable[None]]


class Process:
    """One program on some machine; started again after its death, under the same name."""

    def __init__(self, world: World, name: str, main: Main) -> None:
        self.world = world
        self.name = name
        self.lives = 0
        self.done = False
        self.worker: Worker | None = None
        self._main = main
        self.start()

    def start(self) -> None:
        """A new life: new memory, new connections, perhaps another clock."""
        world = self.world
        self.lives += 1
        self.lane = Lane(f"{self.name}#{self.lives}")
        self.alive, self.frozen, self.worker = True, False, None
        self.link = Link(world.network, self.lane.name)
        self.clock = SimClock(world.loop, world.chance.choice((0, 0, -3_600_000, 3_600_000)))
        self.queue = Queue(self.link, self.clock, Chance(world.chance.getrandbits(64)), world.plan.lease)
        context = contextvars.Context()
        context.run(LANE.set, self.lane)
        self.task = world.loop.create_task(self._live(self._main, self.lane), context=context)

    async def _live(self, main: Main, lane: Lane) -> None:
        try:
            await main(self)
        except asyncio.CancelledError:
            pass  # told to stop
        except BaseException as error:
            if not self.world.network.over:
                self.world.broken.append(f"{lane.name} crashed: {error!r}")
                self.world.crash = error
        if self.world.network.over:
            return
        self.alive = False
        if self.worker is None:
            self.done = True
        else:
            self.restart_in(self.world.chance.uniform(0.1, 1.0))

    def restart_in(self, seconds: float) -> None:
        """Somebody starts it again, unless somebody else has by then."""
        lives = self.lives

        def start() -> None:
            if self.lives == lives and not self.world.network.over:
                self.start()

        self.world.loop.call_later(seconds, start, context=contextvars.Context())

    def kill(self) -> None:
        """As kill -9 does it: not one line of it runs from here on."""
        if not self.alive:
            return
        self.alive = False
        self.world.loop.hold(self.lane)
        self.world.dead.append(self.lane)
        now = self.world.loop.time()
        for run in self.world.ledger.runs:
            if run.process == self.lane.name:
                self.world.ledger.end(run, now, "killed")
        self.restart_in(0.5 if self.world.healed else self.world.chance.choice((0.1, 1.0, self.world.plan.lease * 1.5)))

    def freeze(self, seconds: float) -> None:
        """As SIGSTOP does it, and SIGCONT later."""
        if not self.alive or self.frozen:
            return
        self.frozen = True
        stop = Stop(self.lane.name, self.world.loop.time(), float("inf"))
        self.world.stops.append(stop)
        lane = self.lane
        self.world.loop.hold(lane)

        def thaw() -> None:
            if lane is self.lane and self.alive and self.frozen:
                self.frozen = False
                stop.until = self.world.loop.time()
                self.world.loop.let_go(lane)

        self.thaw = thaw
        self.world.loop.call_later(seconds, thaw, context=contextvars.Context())


@attrs.define
class Stop:
    """When a process stood still."""

    process: str
    since: float
    until: float


@attrs.frozen(kw_only=True)
class Plan:
    """What a seed decided about the weather."""

    lease: float
    chaos: float  # seconds until everything heals
    rates: Rates
    kill: float  # how often a second
    freeze: float
    stop: float
    cut: float
    away: float
    jump: float

    def without(self, faults: Collection[str]) -> Plan:
        """The same, where these never happen."""
        own = {name: 0.0 for name in faults if hasattr(self, name)}
        rates = attrs.evolve(self.rates, **{name: 0.0 for name in faults if name not in own})
        return attrs.evolve(self, rates=rates, **own)

    @property
    def under_way(self) -> float:
        """Seconds that a call from before the healing may still take: both ways slow, or given up."""
        return 2 * max(self.rates.longest, self.lease * 2) + PATIENCE[1]

    @classmethod
    def drawn(cls, chance: random.Random) -> Plan:
        """Half of the seeds draw each rate, half take moderate ones."""
        lease = chance.choice((2.0, 5.0))
        longest = chance.choice((0.1, lease * 2))
        if chance.random() < 0.5:
            kill, freeze, stop, cut, away, jump = (chance.choice((0.0, 0.02, 0.1)) for _ in range(6))
            rates = Rates.drawn(chance, longest)
        else:
            kill, freeze, stop, cut, away, jump = 0.05, 0.05, 0.02, 0.03, 0.02, 0.02
            rates = Rates.moderate(longest)
        return cls(
            lease=lease,
            chaos=chance.uniform(10, 30),
            rates=rates,
            kill=kill,
            freeze=freeze,
            stop=stop,
            cut=cut,
            away=away,
            jump=jump,
        )


class World:
    """Everything that one seed decides."""

    def __init__(self, seed: Seed | str, number: int = 0) -> None:
        seed = seed if isinstance(seed, Seed) else Seed(seed, number)
        self.seed = seed
        self.chance = random.Random(seed.root)
        self.plan = Plan.drawn(self.chance).without(seed.without)
        self.pace, order = self._paced(seed.chance("order"))
        self.loop = SeededLoop(order)
        server = SimClock(self.loop)
        self.ledger = Ledger()
        self.watch = Watch(QUEUE, server.now_ms, self.loop.time)
        stores = Server(seed.store, server, seed.shards)
        self.network = Network(self.loop, stores, self.watch, seed.chance("wire"), self.pace, epoch_ms=EPOCH_MS)
        self.server = server
        self.processes: list[Process] = []
        self.dead: list[Lane] = []
        self.stops: list[Stop] = []
        self.broken: list[str] = []
        self.crash: BaseException | None = None
        self.heard: list[EventRow] = []
        self.healed = False
        self.healed_at = float("inf")

    def _paced(self, chance: random.Random) -> tuple[Pace, Chooser]:
        """Half of the seeds give priorities, a quarter each any order, or any order of processes."""
        if chance.random() < 0.5:
            ranked = Priorities(self.seed.chance("pace"), self.plan.rates, self.plan.lease)
            return ranked, ranked.order()
        order = chance.choice((any_order, lane_order))
        return Pace(self.seed.chance("pace"), self.plan.rates), order(chance)

    def start(self, name: str, main: Main) -> Process:
        """A process more."""
        process = Process(self, name, main)
        self.processes.append(process)
        return process

    def heal(self) -> None:
        """From here on nothing goes wrong but what the tasks themselves do."""
        self.healed, self.healed_at = True, self.loop.time()
        self.network.rates = Rates()
        self.network.away = False
        for process in self.processes:
            process.link.cut.off = False
            if process.frozen and process.alive:
                process.thaw()
            elif not process.alive and not process.done:
                process.restart_in(0.5)

    def bury(self) -> None:
        """Let everybody go, the dead too, so that each coroutine ends and nothing is left to the garbage collector."""
        self.ledger.closed = True
        self.network.over = True
        for process in self.processes:
            self.loop.let_go(process.lane)
        for lane in self.dead:
            self.loop.let_go(lane)

    def stood_still(self, process: str, since: float, until: float) -> bool:
        """Whether a process was frozen at some time between the two."""
        return any(stop.process == process and stop.since <= until and stop.until >= since for stop in self.stops)
