"""Functions whose arguments are fuzzed: every kind of annotation that can be stored."""

from __future__ import annotations

import collections
import dataclasses
import enum
import ipaddress
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs


class Color(enum.Enum):
    RED = "red"
    ONE = 1
    PAIR = (1, 2)


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Options(TypedDict):
    name: str
    size: NotRequired[int]


@attrs.frozen
class Item:
    id: int | str
    price: Decimal | None = None
    tags: frozenset[str] = frozenset()


@dataclasses.dataclass
class Order:
    items: list[Item]
    at: datetime
    parent: Order | None = None


def numbers(a: int, b: float = 0.5, c: bool = False, d: Decimal | None = None, e: complex | None = None) -> int: ...


def texts(a: str, b: bytes = b"", c: UUID | None = None, d: PurePosixPath | None = None, *rest: str) -> str: ...


def times(
    a: datetime, b: date | None = None, c: time | None = None, d: timedelta | None = None, **more: ZoneInfo
) -> date: ...


def choices(a: Color, b: Mode = Mode.READ, c: Literal["x", 1, True] | None = None) -> Color: ...


def containers(
    a: list[int],
    b: dict[int, str] | None = None,
    c: set[float] | None = None,
    d: tuple[int, ...] = (),
    *more: Sequence[Any],
) -> list[Any]: ...


def unions(
    a: int | str | list[int] | dict[str, int], b: Item | Point | Options | None = None, *rest: Item | Order
) -> Any: ...


def classes(
    a: Item, b: Order | None = None, c: Point | None = None, d: Options | None = None, **more: Mapping[str, Item]
) -> Item: ...


def anything(a: Any, b: Any = None, *rest: Any, **more: Any) -> Any: ...


def nets(
    a: ipaddress.IPv4Address | ipaddress.IPv6Network,
    b: collections.deque[int] | None = None,
    c: collections.OrderedDict[str, int] | None = None,
) -> ipaddress.IPv4Address: ...


FUNCTIONS = (numbers, texts, times, choices, containers, unions, classes, anything, nets)
