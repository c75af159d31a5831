"""Arguments come back as they were, of the types that were annotated, or are refused by name."""

from __future__ import annotations

import collections
import dataclasses
import enum
import ipaddress
import math
import sys
from collections import abc
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    ParamSpec,
    TypedDict,
    TypeVar,
    Unpack,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.model.errors import InvalidTask, Undecodable, UnserializablePayload
from deadletter.model.task import Task
from deadletter.rules.arguments import CallSignature, repr_arguments
from deadletter.rules.codec import JsonCodec, decode_task, digest, encode_task
from deadletter.rules.typed_json import dump, load

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]

T = TypeVar("T")
P = ParamSpec("P")
CODEC = JsonCodec()
BERLIN = ZoneInfo("Europe/Berlin")
UserId = NewType("UserId", UUID)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Word(str, enum.Enum):
    YES = "yes"


class Shape(enum.Enum):
    SQUARE = (1, 1)


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class TrueOrOne(enum.Enum):
    TRUE = True


@attrs.frozen
class Money:
    amount: Decimal
    currency: str = "EUR"


@attrs.define
class Tree:
    value: int
    children: list[Tree] = attrs.field(factory=list)
    parent: Tree | None = None


@attrs.define
class Counted:
    name: str
    seen: int = attrs.field(init=False, default=0)


@attrs.define
class Untyped:
    anything = attrs.field()


@dataclasses.dataclass
class Order:
    lines: list[Money]
    extra: Any
    total: Decimal = dataclasses.field(init=False, default=Decimal(0))


@dataclasses.dataclass(frozen=True)
class Area:
    side: int
    size: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.side**2)


@attrs.define
class Box(Generic[T]):
    content: T


@attrs.define
class Picky:
    value: int

    def __attrs_post_init__(self) -> None:
        if self.value < 0:
            raise LookupError("negative")


class Dearer(Money):
    pass


class Pair(NamedTuple):
    left: int
    right: Decimal = Decimal(1)


class Options(TypedDict):
    name: str
    limit: NotRequired[Decimal]


class Plain:
    """A class that nobody can take apart."""


COUNTED = Counted("a")
COUNTED.seen = 3
ORDER = Order([Money(Decimal("1.20"))], {"a": [1, None]})
ORDER.total = Decimal("1.20")
TREE = Tree(1, [Tree(2), Tree(3, [Tree(4)])])
FOLD = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)

ROUND: list[tuple[Any, Any]] = [
    (None, None),
    ("a", str),
    (True, bool),
    (2**70, int),
    (-(2**63) - 1, int),
    (math.inf, float),
    (-math.inf, float),
    (1, float),
    (1.0, float),
    (1 + 2j, complex),
    (UUID(int=5), UUID),
    (UUID(int=5), UserId),
    (FOLD, datetime),
    (datetime(2026, 1, 1, 1, 1, 1, 5), datetime),
    (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3))), datetime),
    (b"\x00\xff", bytes),
    (bytearray(b"\x00"), bytearray),
    (Path("/a/b"), Path),
    (PurePosixPath("a"), PurePosixPath),
    (BERLIN, ZoneInfo),
    (ipaddress.ip_address("::1"), ipaddress.IPv6Address),
    (ipaddress.ip_network("10.0.0.0/8"), ipaddress.IPv4Network),
    (Color.RED, Color),
    (Level.LOW, Level),
    (Word.YES, Word),
    (Shape.SQUARE, Shape),
    (Mode.READ | Mode.WRITE, Mode),
    (Mode.READ, Mode),
    ("a", Literal["a", 1, b"b", Color.RED]),
    (1, Literal["a", 1, b"b", Color.RED]),
    (b"b", Literal["a", 1, b"b", Color.RED]),
    (Color.RED, Literal["a", 1, b"b", Color.RED]),
    ({"a": [1, None, {"b": 1.5}]}, Any),
    ([1], list),
    ([[Decimal(1)]], list[list[Decimal]]),
    ([1, 2], abc.Sequence[int]),
    (collections.deque([1]), collections.deque[int]),
    ({Decimal(1), Decimal(2)}, set[Decimal]),
    (frozenset({1, 2}), abc.Set[int]),
    ((1, "a"), tuple[int, str]),
    ((1, 2, 3), tuple[int, ...]),
    ((1, "a"), tuple),
    ((), tuple[()]),
    ({"a": 1}, dict),
    ({1: Decimal(1)}, dict[int, Decimal]),
    ({UUID(int=1): 1}, dict[UUID, int]),
    ({Color.RED: 1, Color.BLUE: 2}, dict[Color, int]),
    ({(1, "a"): None}, dict[tuple[int, str], None]),
    ({2**70: 1, 5: 2}, dict[int, int]),
    ({1: "a", "x": "b"}, dict[int | str, str]),
    (collections.OrderedDict(b=1, a=2), collections.OrderedDict[str, int]),
    (Money(Decimal("1.20")), Money),
    (TREE, Tree),
    (COUNTED, Counted),
    (Untyped([1, "a"]), Untyped),
    (ORDER, Order),
    (Area(3), Area),
    (Box(Decimal(1)), Box[Decimal]),
    (Pair(1), Pair),
    ({"name": "a", "limit": Decimal(1)}, Options),
    ({"name": "a"}, Options),
    (5, Annotated[int, "positive"]),
    (5, Final[int]),
    (None, Decimal | None),
    (Decimal(1), Decimal | None),
    ([Money(Decimal(1)), None], list[Money | None]),
    ("1", int | str),
    (1, int | str),
    (1, int | float),
    (1.0, int | float),
    (math.inf, float | str),
    (2**70, int | str),
    (Decimal(1), Decimal | str),
    ("1", Decimal | str),
    (FOLD, datetime | date | None),
    (date(2026, 1, 1), datetime | date | None),
    (None, datetime | date | None),
    (Money(Decimal(1)), Money | Pair | Options),
    (Pair(1), Money | Pair | Options),
    ({"name": "a"}, Money | Pair | Options),
    ([1], list[int] | list[str] | dict[str, int]),
    (["a"], list[int] | list[str] | dict[str, int]),
    ({"a": 1}, list[int] | list[str] | dict[str, int]),
    ((1, 2), tuple[int, int] | str),
    ("auto", Literal["auto"] | int),
    (Area(1), Area | Box[int]),
    (Box(1), Area | Box[int]),
    ({"$type": "str", "value": 1}, dict[str, Any] | str),
    ([1], Any | None),
    (Money(Decimal(1)), Money | Any),
]


@pytest.mark.parametrize(("value", "annotation"), ROUND)
def test_values_come_back_as_they_were(value: Any, annotation: Any) -> None:
    """Equal, of the same class, through the codec's own bytes."""
    document = CODEC.decode(CODEC.encode({"v": dump(value, annotation, "v")}))["v"]
    again = load(document, annotation, "v")
    assert again == value
    assert type(again) is type(value)


SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(allow_nan=False),
    str: st.text(st.characters(codec="utf-8")),
    bool: st.booleans(),
    bytes: st.binary(),
    Decimal: st.decimals(allow_nan=False),
    UUID: st.uuids(),
    datetime: st.datetimes(timezones=st.none() | st.just(UTC)),
    date: st.dates(),
    time: st.times(),
    timedelta: st.timedeltas(),
    Color: st.sampled_from(Color),
    type(None): st.none(),
}
MANY: tuple[tuple[Any, Callable[[Any], st.SearchStrategy[Any]]], ...] = (
    (list, st.lists),
    (set, st.sets),
    (frozenset, st.frozensets),
)


@st.composite
def typed(draw: st.DrawFn, depth: int = 2) -> tuple[Any, Any]:
    """A type and a value of it."""
    kind = draw(st.sampled_from(list(SCALARS)))
    if depth == 0 or draw(st.booleans()):
        return kind, draw(SCALARS[kind])
    outer = draw(st.sampled_from(["many", "dict", "tuple", "union", "box"]))
    inner, value = draw(typed(depth=depth - 1))
    if outer == "dict":
        return dict[kind, inner], {draw(SCALARS[kind]): value}
    if outer == "tuple":
        return tuple[kind, inner], (draw(SCALARS[kind]), value)
    if outer == "union":
        return inner | kind, value
    if outer == "box":
        return Box[inner], Box(value)
    collection, strategy = draw(st.sampled_from(MANY))
    return collection[kind], draw(strategy(SCALARS[kind]))


@given(typed())
def test_any_type_comes_back(case: tuple[Any, Any]) -> None:
    annotation, value = case
    again = load(dump(value, annotation, "v"), annotation, "v")
    assert again == value
    assert type(again) is type(value)


@given(st.sets(st.decimals(allow_nan=False) | st.decimals(0, 1)))
def test_equal_sets_have_equal_digests(numbers: set[Decimal]) -> None:
    one, two = list(numbers), sorted(numbers, reverse=True)
    digests = {digest("t", {"v": dump(set(order), set[Decimal], "v")}) for order in (one, two)}
    assert len(digests) == 1


def test_nan_comes_back() -> None:
    assert math.isnan(load(dump(math.nan, float, "v"), float, "v"))
    assert load(dump(Decimal("NaN"), Decimal, "v"), Decimal, "v").is_nan()


@pytest.mark.parametrize(
    ("value", "annotation", "again"),
    [
        ((1, 2), list[int], [1, 2]),
        ([1, 2], tuple[int, ...], (1, 2)),
        (Word.YES, str, "yes"),
        (Level.LOW, int, 1),
        (collections.OrderedDict(a=1), dict[str, int], {"a": 1}),
        (Path("a"), PurePosixPath, PurePosixPath("a")),
        (Word.YES, Any, "yes"),
    ],
)
def test_values_come_back_as_their_annotated_type(value: Any, annotation: Any, again: Any) -> None:
    restored = load(CODEC.decode(CODEC.encode({"v": dump(value, annotation, "v")}))["v"], annotation, "v")
    assert restored == again
    assert type(restored) is type(again)


CYCLE = Tree(1)
CYCLE.parent = CYCLE
DEEP = Tree(0)
for _ in range(150):
    DEEP = Tree(1, [DEEP])

MISFITS: list[tuple[Any, Any, str, str]] = [
    ("5", int, "v", "str was given where int is annotated"),
    (True, int, "v", "bool was given where int is annotated"),
    (True, int | str, "v", "bool was given where int | str is annotated"),
    (1, bool, "v", "int was given where bool is annotated"),
    (1.0, int, "v", "float was given where int is annotated"),
    (5, str, "v", "int was given where str is annotated"),
    (None, int, "v", "null was given where int is annotated"),
    (1, None, "v", "int was given where None is annotated"),
    (True, float, "v", "bool was given where float is annotated"),
    (0.1, Decimal, "v", "float was given where Decimal is annotated"),
    ("red", Color, "v", "str was given where Color is annotated"),
    ("b", Literal["a"], "v", "str was given where Literal['a'] is annotated"),
    (True, Literal[1], "v", "bool was given where Literal[1] is annotated"),
    (FOLD, date, "v", "does not come back"),
    (ZoneInfo.from_file(open("/usr/share/zoneinfo/UTC", "rb")), ZoneInfo, "v", "does not come back") if False else (Decimal("sNaN"), Decimal, "v", "does not come back"),
    ((1,), Any, "v", "use a list, or annotate its type"),
    ({1}, Any, "v", "use a sorted list, or annotate its type"),
    ({"a": [Decimal(1)]}, Any, "v", "or annotate its type (at a[0])"),
    ([{"a": Decimal(1)}], list[Any], "v[0]", "or annotate its type (at a)"),
    (Plain(), Plain, "v", "a Plain cannot be stored; annotate an attrs class"),
    (print, Callable[[], None], "v", "cannot be stored"),
    ("abc", list[str], "v", "str was given where list[str] is annotated"),
    ({1}, list[int], "v", "set was given where list[int] is annotated"),
    ([1], set[int], "v", "list was given where set[int] is annotated"),
    ([1, [2, "3"]], list[int | list[int]], "v[1]", "list was given where int | list[int] is annotated"),
    ([[1], [2, "3"]], list[list[int]], "v[1][1]", "str was given where int is annotated"),
    ({"3"}, set[int], "v[0]", "str was given where int is annotated"),
    ((1, 2), tuple[int], "v", "tuple was given where tuple[int] is annotated"),
    ((1, "2"), tuple[int, int], "v[1]", "str was given"),
    ({1}, tuple[int, ...], "v", "set was given"),
    ([("a", 1)], dict[str, int], "v", "list was given where dict[str, int] is annotated"),
    ({"a": "1"}, dict[str, int], "v['a']", "str was given where int is annotated"),
    ({"a": 1}, dict[int, int], "v", 'the key "a": str was given where int is annotated'),
    ({1: 1}, dict, "v", "the key 1: "),
    ({1: 1, "1": 2}, dict[int | str, int], "v", "the key 1 does not come back"),
    ({math.nan: 1}, dict[float, int], "v", "the key nan does not come back"),
    ({Box(1): 1} if False else {FOLD: 1, FOLD.replace(fold=0): 2}, dict[datetime, int], "v", "") if False else ({"\ud800": 1}, dict[str, int], "v", "lone surrogate"),
    ("\ud800", str, "v", "lone surrogate"),
    (Money(1), Money, "v.amount", "int was given where Decimal is annotated"),  # type: ignore[arg-type]
    (Dearer(Decimal(1)), Money, "v", "Dearer was given where Money is annotated"),
    (Money(Decimal(1)), Tree, "v", "Money was given where Tree is annotated"),
    (Untyped((1,)), Untyped, "v.anything", "use a list, or annotate its type"),
    (Box(1), Box, "v", "StructureHandlerNotFoundError"),
    ({"limit": Decimal(1)}, Options, "v", "the field 'name' is missing"),
    ({"name": "a", "color": 1}, Options, "v", 'has no field "color"'),
    ((1, Decimal(1)), Pair, "v", "tuple was given where Pair is annotated"),
    (CYCLE, Tree, "v", "holds itself"),
    (DEEP, Tree, "v" + ".children[0]" * 50, "nested deeper than 100 levels"),
]


@pytest.mark.parametrize(("value", "annotation", "field", "problem"), MISFITS)
def test_what_is_not_of_its_type_is_refused(value: Any, annotation: Any, field: str, problem: str) -> None:
    with pytest.raises(UnserializablePayload) as caught:
        dump(value, annotation, "v")
    assert caught.value.field == field
    assert problem in caught.value.problem
