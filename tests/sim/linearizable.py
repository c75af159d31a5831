"""Is there an order of the operations that explains every answer?

The search of Wing and Gong (1993), which takes any operation that began before all others had ended, with the cache of
Lowe (2017): which operations were taken, and the state that they led to, are looked at once. Operations without an
answer may be taken at any time after they began, or never.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import attrs

S = TypeVar("S")

Time = tuple[int, int]
MOST = 1_000_000  # states looked at before a history is given up as undecided
FAR = 1 << 59


class Operation(abc.ABC, Generic[S]):
    """What somebody asked one object to do; ``asked`` and ``answered`` bound when it was done."""

    asked: float
    answered: float

    @property
    def open(self) -> bool:
        """Whether it has no answer."""
        return math.isinf(self.answered)

    @abc.abstractmethod
    def steps(self, state: S, at: Time) -> Iterator[S]:
        """The states in which it may leave the object, having answered as it did; ``at``: when, at the least and most.

        Of an open one only those that differ: that it did nothing need not be tried.
        """


@attrs.frozen
class Unexplained(Generic[S]):
    """How far the best attempt came."""

    state: S
    taken: tuple[Operation[S], ...]
    left: tuple[Operation[S], ...]
    undecided: bool = False


def explain(operations: Sequence[Operation[S]], state: S, *, steady: bool = True) -> Unexplained[S] | None:
    """None where some order explains all answers.

    ``steady``: nobody's clock shows less than that of who came before.
    """
    return _Search(operations, steady=steady).run(state)


@attrs.frozen
class _Node(Generic[S]):
    taken: int  # a bit for each operation
    latest: float  # when the latest of them was asked: nothing after them was done earlier
    state: S
    ways: Iterator[tuple[int, S]]


class _Search(Generic[S]):
    def __init__(self, operations: Sequence[Operation[S]], *, steady: bool) -> None:
        self._steady = steady
        self._all = sorted(operations, key=lambda operation: operation.asked)
        self._answered = sum(1 << at for at, operation in enumerate(self._all) if not operation.open)

    def run(self, state: S) -> Unexplained[S] | None:
        best, farthest = _Node(0, -math.inf, state, iter(())), -1
        stack = [self._node(0, -math.inf, state)]
        seen = {(0, state)}
        while stack:
            node = stack[-1]
            explained = node.taken & self._answered
            if explained == self._answered:
                return None
            if explained.bit_count() > farthest:
                best, farthest = node, explained.bit_count()
            for at, after in node.ways:
                taken = node.taken | 1 << at
                if (taken, after) not in seen:
                    seen.add((taken, after))
                    stack.append(self._node(taken, max(node.latest, self._all[at].asked), after))
                    break
            else:
                stack.pop()
            if len(seen) > MOST:
                return self._told(best, undecided=True)
        return self._told(best, undecided=False)

    def _told(self, node: _Node[S], *, undecided: bool) -> Unexplained[S]:
        taken = tuple(operation for at, operation in enumerate(self._all) if node.taken >> at & 1)
        left = tuple(operation for at, operation in enumerate(self._all) if not node.taken >> at & 1)
        return Unexplained(node.state, taken, left, undecided)

    def _node(self, taken: int, latest: float, state: S) -> _Node[S]:
        return _Node(taken, latest, state, self._ways(taken, latest, state))

    def _ways(self, taken: int, latest: float, state: S) -> Iterator[tuple[int, S]]:
        """Each operation that may be next, the answered ones first, and each state that it may lead to."""
        could = self._could(taken)
        for wanted_open in (False, True):
            for at in could:
                operation = self._all[at]
                if operation.open is wanted_open:
                    first = math.floor(max(latest, operation.asked) if self._steady else operation.asked)
                    last = FAR if wanted_open else math.floor(operation.answered)
                    for after in operation.steps(state, (first, last)):
                        yield at, after

    def _could(self, taken: int) -> list[int]:
        found: list[int] = []
        first_end = math.inf
        for at, operation in enumerate(self._all):
            if taken >> at & 1:
                continue
            if operation.asked > first_end:
                break
            found.append(at)
            first_end = min(first_end, operation.answered)
        return found
