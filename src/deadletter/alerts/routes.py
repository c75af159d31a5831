"""Who is told what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import attrs

from ..engine.alerting import KINDS
from ..model.errors import InvalidTask
from ..model.query import glob_match
from ..model.task import Priority


def _texts(value: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(value)


def _names(value: str | Iterable[str]) -> tuple[str, ...]:
    return _texts(value) or ()


@attrs.frozen(kw_only=True)
class Route:
    """Alerts that go to channels of their own.

    The first route that matches an alert decides; what none matches goes to every channel. A route with ``types`` or
    ``priorities`` matches deaths alone.

    Attributes:
        channels: names of channels; none of them: nobody is told.
        types: task types or globs (only ``*``).
        priorities: ``high``, ``normal``, ``low``.
        kinds: kinds of alerts, such as ``"daily_summary"``.
        urgent: sent in quiet hours, too.

    Raises:
        InvalidTask: for a kind or priority that there is none of.
    """

    channels: tuple[str, ...] = attrs.field(converter=_names)
    types: tuple[str, ...] | None = attrs.field(default=None, converter=_texts)
    priorities: tuple[str, ...] | None = attrs.field(default=None, converter=_texts)
    kinds: tuple[str, ...] | None = attrs.field(default=None, converter=_texts)
    urgent: bool = False

    def __attrs_post_init__(self) -> None:
        for kind in self.kinds or ():
            if kind not in KINDS:
                raise InvalidTask("kinds", f"{kind!r:.60} is not one of {', '.join(KINDS)}")
        for priority in self.priorities or ():
            if priority not in set(Priority):
                raise InvalidTask("priorities", f"{priority!r:.60} is not one of {', '.join(Priority)}")

    @property
    def key(self) -> str:
        """Names it in what is stored: a changed route is another one."""
        return hashlib.blake2b(repr(self).encode(), digest_size=6).hexdigest()

    @property
    def of_deaths(self) -> bool:
        """Whether it asks what a task was."""
        return self.types is not None or self.priorities is not None

    def takes(self, kind: str, type_: str | None = None, priority: str | None = None) -> bool:
        """Whether it matches: with a type and priority a death, else an alert about the queue."""
        if self.kinds is not None and kind not in self.kinds:
            return False
        if type_ is None:
            return not self.of_deaths
        if self.types is not None and not any(glob_match(glob, type_) for glob in self.types):
            return False
        return self.priorities is None or priority in self.priorities


class Routing:
    """All routes, and the channels that there are.

    Raises:
        InvalidTask: for a route to a channel that there is none of.
    """

    def __init__(self, routes: Sequence[Route], channels: Sequence[str]) -> None:
        self._routes = tuple(routes)
        self._channels = tuple(channels)
        self._by_key = {route.key: route for route in routes}
        for route in routes:
            for name in route.channels:
                if name not in channels:
                    raise InvalidTask("routes", f"{name!r:.60} is no channel here; there are {', '.join(channels)}")

    @property
    def by_priority(self) -> bool:
        """Whether the priority of a dead task must be known."""
        return any(route.priorities is not None for route in self._routes)

    def of_death(self, type_: str, priority: str | None) -> str:
        """The key of the route of a death."""
        return next((route.key for route in self._routes if route.takes("task_dead", type_, priority)), "")

    def of_kind(self, kind: str) -> str:
        """The key of the route of an alert about the queue."""
        return next((route.key for route in self._routes if route.takes(kind)), "")

    def channels(self, key: str) -> Sequence[str]:
        """Whom a route tells; every channel where it is known no more."""
        route = self._by_key.get(key)
        return self._channels if route is None else route.channels

    def urgent(self, key: str) -> bool:
        """Whether a route knows no quiet hours."""
        route = self._by_key.get(key)
        return route is not None and route.urgent
