"""Fleets of up to a million clients against a service that fails for a while, a slot of time at once in numpy.

``deadletter.retry.simulate`` asks the policy itself about each failure and is exact, at some 10^5 attempts a second.
Here the policies are written as arrays, and a slot's attempts are served, shed and put off together: 10^6 and more.
``tests/unit/retry/test_fleet.py`` holds it to ``simulate`` and to the engine.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import attrs
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Delays = Callable[[NDArray[np.int64], Floats, np.random.Generator], Floats]  # attempt numbers, last delays, chance

_WINDOW = 10.0  # seconds, of deadletter.retry.Budget
_COARSE = 100  # slots


def exponential(base: float = 1, factor: float = 2, cap: float = 300, jitter: str | None = None) -> Delays:
    """Delays as ``deadletter.retry.Exponential`` gives them."""

    def delays(number: NDArray[np.int64], last: Floats, chance: np.random.Generator) -> Floats:
        if jitter == "decorrelated":
            return np.minimum(cap, chance.uniform(base, 3 * np.maximum(base, last)))
        grown = np.minimum(cap, base * np.power(factor, np.minimum(number - 1, 60), dtype=np.float64))
        if jitter is None:
            return grown
        return chance.uniform(grown / 2 if jitter == "equal" else 0, grown)

    return delays


def constant(delay: float) -> Delays:
    """The same delay each time, without jitter: what a loop with a sleep does."""
    return lambda number, last, chance: np.full(len(number), delay)


@attrs.frozen
class Share:
    """The numbers of a ``Budget`` that all clients share."""

    ratio: float
    min_per_second: float


@attrs.frozen(kw_only=True)
class Storm:
    """What happened.

    Attributes:
        tasks: that arrived.
        attempts: all of them.
        deaths: tasks whose retries were used up.
        load: attempts in each second.
        served: successes in each second.
        time_to_recover: seconds from the outage's end until every task that arrived in it succeeded or died.
    """

    tasks: int
    attempts: int
    deaths: int
    load: NDArray[np.int64]
    served: NDArray[np.int64]
    time_to_recover: float


@attrs.define
class _Tokens:
    share: Share
    tokens: float = math.inf
    seen: float = 0.0
    at: float = 0.0

    def advance(self, now: float) -> None:
        passed, self.at = now - self.at, now
        self.seen *= math.exp(-passed / _WINDOW)
        full = max(1.0, self.share.min_per_second * _WINDOW + self.share.ratio * self.seen)
        self.tokens = min(full, self.tokens + self.share.min_per_second * passed)

    def deposit(self, firsts: int) -> None:
        self.seen += firsts
        self.tokens += firsts * self.share.ratio

    def waits(self, retries: int) -> Floats:
        """How much longer each of so many retries has to wait."""
        owed = np.arange(1, retries + 1) - self.tokens
        self.tokens -= retries
        rate = self.share.min_per_second + self.share.ratio * self.seen / _WINDOW
        return np.maximum(0.0, owed / rate)


@attrs.define(kw_only=True)
class Fleet:
    """Clients whose requests arrive evenly spaced; the service fails until ``outage`` and then serves ``capacity``.

    Attributes:
        arrivals: new tasks a second, for ``duration`` seconds.
        outage: seconds from 0 in which every attempt fails.
        capacity: attempts a second that succeed afterwards; what comes on top is shed.
        delays, budget: the policy.
        max_retries: after which a task dies.
        slot: seconds that are simulated at once.
        horizon: where to stop watching.
    """

    arrivals: float
    duration: float
    outage: float
    capacity: float
    delays: Delays
    budget: Share | None = None
    max_retries: int = 1_000
    slot: float = 0.05
    horizon: float = 3_600
    seed: int = 0

    def run(self) -> Storm:
        """Let it happen."""
        return _Run(self).run()


class _Run:
    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.deaths = self.attempts = 0
        self.recovered = self.room = 0.0
        self.chance = np.random.default_rng(fleet.seed)
        self.tasks = math.ceil(fleet.duration * fleet.arrivals)
        self.due = np.arange(self.tasks) / fleet.arrivals
        self.number, self.last = np.ones(self.tasks, np.int64), np.zeros(self.tasks)
        self.early = self.due < fleet.outage
        self.backlog = int(self.early.sum())
        self.tokens = _Tokens(fleet.budget) if fleet.budget is not None else None
        seconds = math.ceil(fleet.horizon) + 1
        self.load, self.served = np.zeros(seconds, np.int64), np.zeros(seconds, np.int64)
        self.waiting: dict[int, list[NDArray[np.int64]]] = defaultdict(list)  # by slot, up to the next coarse one
        self.later: dict[int, list[NDArray[np.int64]]] = defaultdict(list)  # by coarse slot

    def run(self) -> Storm:
        fleet = self.fleet
        self.put_off(np.arange(self.tasks), 0)
        for at in range(math.ceil(fleet.horizon / fleet.slot)):
            if not self.waiting and not self.later:
                break
            if at % _COARSE == 0 and (come := self.later.pop(at // _COARSE, None)):
                self.put_off(np.concatenate(come), at)
            self.room = min(self.room + fleet.capacity * fleet.slot, max(1.0, fleet.capacity * fleet.slot))
            while at in self.waiting:
                self.attempt(np.concatenate(self.waiting.pop(at)), at)
        end = int(np.max(np.nonzero(self.load)[0], initial=0)) + 1
        return Storm(
            tasks=self.tasks,
            attempts=self.attempts,
            deaths=self.deaths,
            load=self.load[:end],
            served=self.served[:end],
            time_to_recover=math.inf if self.backlog else max(0.0, self.recovered - fleet.outage),
        )

    def attempt(self, ids: NDArray[np.int64], at: int) -> None:
        """All that is due in a slot, in order of time."""
        ids = ids[np.argsort(self.due[ids], kind="stable")]
        times = self.due[ids]
        self.attempts += len(ids)
        second = int(at * self.fleet.slot)
        self.load[second] += len(ids)
        if self.tokens is not None:
            self.tokens.advance((at + 1) * self.fleet.slot)
            self.tokens.deposit(int((self.number[ids] == 1).sum()))
        fails = times < self.fleet.outage
        up = np.flatnonzero(~fails)
        if self.fleet.capacity != math.inf:
            fits = min(len(up), int(self.room))
            self.room -= fits
            fails[up[fits:]] = True
        done = ids[~fails]
        self.served[second] += len(done)
        self.end(done)
        self.fail(ids[fails], at)

    def fail(self, failed: NDArray[np.int64], at: int) -> None:
        dies = self.number[failed] > self.fleet.max_retries
        self.deaths += int(dies.sum())
        self.end(failed[dies])
        again = failed[~dies]
        if not len(again):
            return
        own = self.fleet.delays(self.number[again], self.last[again], self.chance)
        self.last[again] = own
        self.due[again] += own if self.tokens is None else own + self.tokens.waits(len(again))
        self.number[again] += 1
        self.put_off(again, at)

    def end(self, ids: NDArray[np.int64]) -> None:
        ended = ids[self.early[ids]]
        if len(ended):
            self.backlog -= len(ended)
            self.recovered = float(self.due[ended].max())

    def put_off(self, ids: NDArray[np.int64], at: int) -> None:
        """Into the slots where they are due: by two sorts of few groups rather than one of many."""
        ids = ids[self.due[ids] < self.fleet.horizon]
        slots = np.maximum(at, (self.due[ids] / self.fleet.slot).astype(np.int64))
        soon = slots // _COARSE == at // _COARSE
        _group(self.waiting, ids[soon], slots[soon])
        _group(self.later, ids[~soon], slots[~soon] // _COARSE)


def _group(into: dict[int, list[NDArray[np.int64]]], ids: NDArray[np.int64], keys: NDArray[np.int64]) -> None:
    order = np.argsort(keys, kind="stable")
    ids, keys = ids[order], keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    for key, group in zip(keys[firsts], np.split(ids, firsts[1:]), strict=False):
        into[int(key)].append(group)
