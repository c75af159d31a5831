"""Feeds a target, and says which input broke it."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import attrs

from .corpus import inputs
from .mutator import Mutator
from .targets import TARGETS

LONGEST = 2.0  # seconds of processor time for one input; a thousandth of it is usual
WITH_HEAD = ("arguments",)  # their first byte chooses, the rest is a document


class Hang(BaseException):
    """An input took too long. No Exception, so that nothing on the way takes it for its own."""


@attrs.frozen
class Broken:
    """An input that a target does not bear.

    Attributes:
        line: what plays it again.
        data: the input.
        told: how it failed.
    """

    line: str
    data: bytes
    told: str


def one(target: str, data: bytes) -> str | None:
    """What is wrong with a target on this input; None where nothing is."""
    try:
        with _limited():
            TARGETS[target](data)
    except Hang:
        return f"it takes more than {LONGEST:g} s:\n{traceback.format_exc(limit=-4)}"
    except BaseException:
        return traceback.format_exc(limit=-6)
    return None


def mutated(target: str, seed: int, numbers: range, *, until: float = float("inf")) -> tuple[int, Broken | None]:
    """Feed the inputs of these numbers; how many were fed, and the first that broke the target."""
    mutator = Mutator(inputs(target), seed, head=int(target in WITH_HEAD))
    fed = 0
    for number in numbers:
        data = mutator.make(number)
        told = one(target, data)
        fed += 1
        if told is not None:
            return fed, Broken(f"python -m tests.fuzz {target} --seed {seed} --number {number}", data, told)
        if fed % 500 == 0 and time.monotonic() > until:
            break
    return fed, None


@contextmanager
def _limited() -> Iterator[None]:
    def over(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def free_seed() -> int:
    """A seed that nobody chose."""
    return int.from_bytes(os.urandom(4), "big")
