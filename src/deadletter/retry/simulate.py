"""What a policy would do to a service that is down for a while: a discrete event simulation."""

from __future__ import annotations

import copy
import heapq
import itertools
import math
import random
from collections import deque
from datetime import timedelta

import attrs

from ..interfaces.retry_policy import FailedAttempt, RetryPolicy
from .arguments import number, seconds, whole
from .schedule import Delays, as_policy, retries_allowed

_MOST_TASKS = 1_000_000
_MOST_ATTEMPTS = 2_000_000
_MONTH = 31 * 24 * 3600.0


@attrs.frozen(kw_only=True)
class Simulation:
    """What came of it.

    Attributes:
        tasks: that arrived.
        attempts: all of them, first ones included.
        deaths: tasks that the policy or the limit gave up.
        unfinished: tasks that were still to be tried at the horizon.
        peak_load: the most attempts within any one second.
        time_to_recover: seconds from the outage's end until every task that arrived in it has succeeded or died;
            ``math.inf`` where that took longer than the horizon.
        load: attempts in each second from the outage's start to the last attempt, for plotting.
        delays: every delay that was given, in seconds, in the order of the failures.
    """

    tasks: int
    attempts: int
    deaths: int
    unfinished: int
    peak_load: int
    time_to_recover: float
    load: tuple[int, ...] = attrs.field(repr=False)
    delays: tuple[float, ...] = attrs.field(repr=False)


def simulate(
    policy: RetryPolicy | Delays,
    *,
    outage: timedelta | float,
    arrivals: float,
    seed: int = 0,
    max_retries: int | None = None,
    capacity: float | None = None,
    duration: timedelta | float | None = None,
    horizon: timedelta | float = 7 * 24 * 3600,
    error: BaseException | None = None,
) -> Simulation:
    """Let a service fail for ``outage`` seconds from time 0 and watch the retries come in.

    Tasks arrive evenly spaced, so that every unevenness is the policy's doing. An attempt takes no time. The same
    arguments and seed give the same result; the policy is copied first (``copy.deepcopy``), and a ``Budget`` in it
    starts full.

    Args:
        policy: a policy, or a sequence of delays.
        outage: how long every attempt fails, seconds or ``timedelta``.
        arrivals: new tasks per second.
        seed: of the jitter.
        max_retries: as a task would say it; None: the policy's own end, else 10.
        capacity: attempts per second that the service serves when it is up, at least 1; what comes on top fails.
        duration: how long tasks arrive, seconds or ``timedelta``; None: twice the outage and a minute more.
        horizon: when to stop watching, seconds or ``timedelta``, up to 31 days.
        error: what each attempt raises; None: a ConnectionError.

    Raises:
        TypeError: for what is no policy.
        ValueError: for a number out of range, or a simulation of more than a million tasks or two million attempts.
    """
    down = seconds("outage", outage, high=_MONTH)
    until = seconds("horizon", horizon, high=_MONTH)
    window = 2 * down + 60 if duration is None else seconds("duration", duration, high=_MONTH)
    rate = number("arrivals", arrivals, 1e-6, 1e6)
    tasks = math.ceil(min(window, until) * rate)
    if tasks > _MOST_TASKS:
        raise ValueError(f"arrivals is {arrivals!r}, {tasks} tasks in all; give less of it or of duration or outage")
    run = _Run(
        policy=copy.deepcopy(as_policy(policy)),
        service=_Service(down, math.inf if capacity is None else number("capacity", capacity, 1, 1e6)),
        rate=rate,
        seed=seed,
        max_retries=None if max_retries is None else whole("max_retries", max_retries),
        error=error or ConnectionError("simulated outage"),
        events=[(task / rate, task, task, 1) for task in range(tasks)],
    )
    run.until(until)
    return run.result()


@attrs.define
class _Service:
    """Down until ``down``; then it serves ``capacity`` attempts in any second and sheds the rest."""

    down: float
    capacity: float
    served: deque[float] = attrs.field(factory=deque)

    def serves(self, now: float) -> bool:
        if now < self.down:
            return False
        if self.capacity == math.inf:
            return True
        _forget(self.served, now)
        if len(self.served) + 1 > self.capacity:
            return False
        self.served.append(now)
        return True


def _forget(times: deque[float], now: float) -> None:
    while times and times[0] <= now - 1:
        times.popleft()


@attrs.define(kw_only=True)
class _Run:
    policy: RetryPolicy
    service: _Service
    rate: float
    seed: int
    max_retries: int | None
    error: BaseException
    events: list[tuple[float, int, int, int]]  # a heap of (time, order, task, attempt number)
    chance: random.Random = attrs.field(init=False)
    order: itertools.count[int] = attrs.field(init=False)
    tasks: int = attrs.field(init=False)
    limit: float = attrs.field(init=False)
    backlog: int = attrs.field(init=False)
    recovered: float = 0.0
    attempts: int = 0
    deaths: int = 0
    peak: int = 0
    recent: deque[float] = attrs.field(factory=deque)
    load: list[int] = attrs.field(factory=list)
    delays: list[float] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311 - jitter
        self.tasks = len(self.events)
        self.order = itertools.count(self.tasks)
        self.limit = retries_allowed(self.policy, self.max_retries)
        self.backlog = sum(time < self.service.down for time, *_ in self.events)

    def until(self, horizon: float) -> None:
        while self.events and self.events[0][0] <= horizon:
            now, _, task, number = heapq.heappop(self.events)
            self.count(now)
            if number == 1:
                self.policy.observe(now)
            if self.service.serves(now):
                self.end(now, task)
            else:
                self.fail(now, task, number)

    def count(self, now: float) -> None:
        self.attempts += 1
        if self.attempts > _MOST_ATTEMPTS:
            raise ValueError(
                f"more than {_MOST_ATTEMPTS} attempts in {now:g} simulated seconds; give less outage or arrivals, or a "
                "policy that waits longer"
            )
        _forget(self.recent, now)
        self.recent.append(now)
        self.peak = max(self.peak, len(self.recent))
        self.load.extend([0] * (int(now) + 1 - len(self.load)))
        self.load[int(now)] += 1

    def fail(self, now: float, task: int, number: int) -> None:
        delay = None if number > self.limit else self.policy.delay(self.failed(now, task, number))
        if delay is None:
            self.deaths += 1
            self.end(now, task)
        else:
            self.delays.append(delay)
            heapq.heappush(self.events, (now + delay, next(self.order), task, number + 1))

    def failed(self, now: float, task: int, number: int) -> FailedAttempt:
        return FailedAttempt(
            number=number,
            error=self.error,
            task_id=f"{self.seed}-{task}",
            type="simulated",
            age=now - task / self.rate,
            random=self.chance,
            now=now,
            max_retries=self.max_retries,
        )

    def end(self, now: float, task: int) -> None:
        if task / self.rate < self.service.down:
            self.backlog -= 1
            self.recovered = max(0.0, now - self.service.down)

    def result(self) -> Simulation:
        return Simulation(
            tasks=self.tasks,
            attempts=self.attempts,
            deaths=self.deaths,
            unfinished=len(self.events),
            peak_load=self.peak,
            time_to_recover=math.inf if self.backlog else self.recovered,
            load=tuple(self.load),
            delays=tuple(self.delays),
        )
