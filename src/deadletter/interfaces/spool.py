"""Where captures wait while the store is away."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import attrs

from ..model.row import Finding, NewRow


@attrs.frozen
class Spooled:
    """A capture that waits, and its place in the line. ``row`` is None where it can no longer be read."""

    n: int
    row: NewRow | None


class Spool(abc.ABC):
    """A local line of captures, shared by threads and processes, each call one durable step.

    ``url`` (without a password) and ``queue`` say where a capture belongs: those of other places are left alone.
    Calls block for some milliseconds; they raise BackendError that names the path.
    """

    path: str

    @abc.abstractmethod
    def put(self, url: str, queue: str, row: NewRow, now_ms: int) -> None:
        """Keep a capture; safe to repeat. Raises BackendError where the spool is full."""

    @abc.abstractmethod
    def count(self, url: str, queue: str) -> int:
        """How many wait, those included that the store refused."""

    @abc.abstractmethod
    def due(self, url: str, queue: str, now_ms: int) -> bool:
        """Whether any waits that may be given back now."""

    @abc.abstractmethod
    def lease(self, url: str, queue: str, owner: str, now_ms: int, lease_ms: int) -> bool:
        """Take or extend the right to give back; False while another owner has it."""

    @abc.abstractmethod
    def release(self, url: str, queue: str, owner: str) -> None:
        """Give that right up."""

    @abc.abstractmethod
    def take(self, url: str, queue: str, after: int, now_ms: int) -> list[Spooled]:
        """The oldest that wait behind place ``after``: at most 100, of some megabytes. They stay until removed."""

    @abc.abstractmethod
    def remove(self, places: Sequence[int]) -> None:
        """Forget captures that the store has."""

    @abc.abstractmethod
    def refuse(self, place: int, why: str, until_ms: int) -> None:
        """Leave one alone until then: the store did not take it."""

    @abc.abstractmethod
    def findings(self, url: str, queue: str, now_ms: int) -> list[Finding]:
        """What an operator should know: what waits, since when, what was refused, how full it is, who may read it."""
