"""Arguments come back as they were, of the types that were annotated, or are refused by name."""

from __future__ import annotations

import collections
import dataclasses
import enum
import ipaddress
import math
import subprocess
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
    Required,
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
from typing_extensions import TypeAliasType

from deadletter.model.errors import InvalidTask, Undecodable, UnserializablePayload
from deadletter.model.row import PENDING, Row
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


class Word(str, enum.Enum):  # noqa: UP042 - the older way, which cattrs would take for a str
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
            error = LookupError("negative")
            error.add_note("a note of the user's own")
            raise error


@attrs.frozen(eq=False)
class Twin:
    """Keys that are written alike, and equal whatever is read."""

    side: int = attrs.field(converter=lambda _: 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Twin)

    def __hash__(self) -> int:
        return id(self)


class Dearer(Money):
    pass


class Pair(NamedTuple):
    left: int
    right: Decimal = Decimal(1)


class Options(TypedDict):
    name: str
    limit: NotRequired[Decimal]


class Partial(TypedDict, total=False):
    size: int
    must: Required[int]


class Derived(Partial):
    color: str


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
    (datetime(2026, 1, 1, 1, 1, 1, 5), datetime),  # noqa: DTZ001 - naive
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
    ({1: "a", None: "b"}, dict[int | None, str]),
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
    ({"must": 1, "color": "red"}, Derived),
    ({"must": 1, "size": 2, "color": "red"}, Derived),
    (Box(Box(Decimal(1))), Box[Box[Decimal]]),
    (5, Annotated[int, "positive"]),
    (5, Final[int]),
    (5, TypeAliasType("Number", int)),
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
for _ in range(60):
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
    (Decimal("sNaN"), Decimal, "v", "does not come back"),
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
    ({("a",): 1}, dict[tuple[int], int], "v", "does not come back"),
    ({1: 1}, dict, "v", "the key 1 does not come back"),
    ({1: 1, "1": 2}, dict[int | str, int], "v", "the key 1 does not come back"),
    ({math.nan: 1}, dict[float, int], "v", "the key nan does not come back"),
    ({"\ud800": 1}, dict[str, int], "v", "lone surrogate"),
    ({Twin(1): 1, Twin(2): 2}, dict[Twin, int], "v", "two keys would both be"),
    ("\ud800", str, "v", "lone surrogate"),
    (Money(1), Money, "v.amount", "int was given where Decimal is annotated"),  # type: ignore[arg-type]
    (Dearer(Decimal(1)), Money, "v", "Dearer was given where Money is annotated"),
    (Money(Decimal(1)), Tree, "v", "Money was given where Tree is annotated"),
    (Untyped((1,)), Untyped, "v.anything", "use a list, or annotate its type"),
    (Box(1), Box, "v", "StructureHandlerNotFoundError"),
    ({"color": "red"}, Derived, "v", "the field 'must' is missing"),
    ({"name": "a", "limit": 1}, Options, "v.limit", "int was given where Decimal is annotated"),
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


UNFIT: list[tuple[Any, Any, str, str]] = [
    ("False", bool, "v", "str was given where bool is annotated"),
    (1.9, int, "v", "float was given where int is annotated"),
    ("5", int, "v", "str was given where int is annotated"),
    ("9" * 5_000, int, "v", "str was given where int is annotated"),
    (5, str, "v", "int was given where str is annotated"),
    ("1.5", float, "v", "str was given where float is annotated"),
    (True, float, "v", "bool was given where float is annotated"),
    (1, UUID, "v", "int was given where UUID is annotated"),
    ("x", UUID, "v", '"x" is no UUID'),
    ("x", Decimal, "v", '"x" is no Decimal'),
    ("1e9999999999", timedelta, "v", "is no timedelta"),
    ("999999999999999", timedelta, "v", "is no timedelta"),
    ("2026-01-01T00:00:00+00:00[../../etc/passwd]", datetime, "v", "is no datetime"),
    ("?", bytes, "v", "is no bytes"),
    ("green", Color, "v", '"green" is not one of "red", "blue"'),
    (1, TrueOrOne, "v", "1 is not one of True"),
    (99, Mode, "v", ""),
    (True, Mode, "v", "True is not one of 1, 2"),
    ("b", Literal["a", 1], "v", '"b" is not one of "a", 1'),
    (None, int, "v", "null was given where int is annotated"),
    ("abc", list[str], "v", "str was given where list[str] is annotated"),
    ({"a": 1}, list[int], "v", "dict was given where list[int] is annotated"),
    ([1, "2"], tuple[int, int], "v[1]", "str was given"),
    ([1], tuple[int, int], "v", "list was given where tuple[int, int] is annotated"),
    (1, tuple[int, ...], "v", "int was given"),
    ([1], dict[str, int], "v", "list was given where dict[str, int] is annotated"),
    ({"x": 1}, dict[int, int], "v", 'the key "x" is no int'),
    ([], Money, "v", "list was given where Money is annotated"),
    ({}, Money, "v.amount", "the field 'amount' is missing; give it"),
    ({"amount": "1", "x y": 1}, Money, "v", 'has no field "x y"; leave it out'),
    ({"value": -1}, Picky, "v", "LookupError: negative"),
    ({"value": 1, "children": [{"value": "2"}]}, Tree, "v.children[0].value", "str was given where int is annotated"),
    ({}, Money | Pair, "v", "fits none or several of Money, Pair"),
    ({"$type": "os.system", "value": {}}, Money | Pair, "v", "fits none or several of Money, Pair"),
    ({"$type": ["Money"], "value": {}}, Money | Pair, "v", "fits none or several"),
    ({"$type": "Money", "value": {}}, Money | Pair, "v.amount", "is missing"),
    (5, Plain, "v", "a Plain cannot be stored"),
]


@pytest.mark.parametrize(("document", "annotation", "field", "problem"), UNFIT)
def test_nothing_is_coerced_when_read(document: Any, annotation: Any, field: str, problem: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        load(document, annotation, "v")
    assert caught.value.field == field
    assert problem in caught.value.problem


def test_a_union_is_chosen_by_its_fields() -> None:
    """People may leave the tag out where one member fits."""
    assert load({"amount": "1"}, Money | Pair, "v") == Money(Decimal(1))
    assert load({"$type": "Money", "value": {"amount": "1"}}, Money | Pair, "v") == Money(Decimal(1))


def test_two_classes_of_one_name_are_told_apart() -> None:
    def another() -> Any:
        @attrs.frozen
        class Money:
            amount: int
            currency: str = "EUR"

        Money.__module__ = "elsewhere"
        return Money

    other = another()
    for value in (Money(Decimal(1)), other(1)):
        assert load(dump(value, Money | other, "v"), Money | other, "v") == value
    assert dump(other(1), Money | other, "v")["$type"] == "elsewhere.Money"


def test_nested_unions_take_linear_time() -> None:
    """Members are told apart by their outermost level: 2^60 steps would never end."""

    document: dict[str, Any] = {"next": None}
    for _ in range(60):
        document = {"next": document}
    with pytest.raises(InvalidTask, match="fits none or several"):
        load(document, Left | Right, "v")


@attrs.frozen
class Left:
    next: Left | Right | None


@attrs.frozen
class Right:
    next: Left | Right | None


def test_deep_documents_end_in_a_sentence() -> None:
    document: Any = {"value": 1}
    for _ in range(20_000):
        document = {"value": 1, "children": [document]}
    with pytest.raises(InvalidTask, match="nested too deep"):
        load(document, Tree, "v")


class Explosive:
    """A class with a repr of its own mind."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


# calls


def charge(customer: int, amount: Decimal, *notes: str, urgent: bool = False, **more: UserId) -> set[Money]:
    raise NotImplementedError


def plain(a, b=(1, 2), /, c=None, *rest, d: int = None, **more):  # type: ignore  # noqa: PGH003, RUF013
    raise NotImplementedError


def unpacked(*pair: *tuple[int, str], **options: Unpack[Options]) -> None:
    raise NotImplementedError


def passing(value: T, function: Unknown, wrong: 1 / 0, *args: P.args, **kwargs: P.kwargs) -> T:  # type: ignore[valid-type]
    raise NotImplementedError


CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (charge, (1, Decimal("9.99")), {"urgent": False}),
    (charge, (1, Decimal(1), "a", "b"), {"urgent": True, "customer_id": UserId(UUID(int=1))}),
    (plain, (1, [2], {"x": None}, 4, 5), {"d": 6, "a": 7}),
    (plain, (1, (1, 2), None), {"d": None}),
    (unpacked, (1, "a"), {"name": "n", "limit": Decimal(1)}),
    (passing, (1, 2, 3, "more"), {"key": [1]}),
]


@pytest.mark.parametrize(("func", "args", "kwargs"), CALLS)
def test_calls_come_back(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    signature = CallSignature.of(func)
    task = Task(type="t", payload=dump_given(signature, args, kwargs))
    body = encode_task(CODEC, task, max_payload_bytes=10_000)
    payload = decode_task(CODEC, row(task, body)).payload
    assert signature.load(payload) == (args, kwargs)


def dump_given(signature: CallSignature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The payload of a call, which leaves out what is a default already."""
    given_args = args if args != (1, (1, 2), None) else args[:1]
    return signature.dump(given_args, kwargs)


def row(task: Task, body: bytes) -> Any:
    return Row(id=task.id, type=task.type, priority=1, state=PENDING, body=body)


def test_a_payload_reads_like_the_call() -> None:
    payload = CallSignature.of(charge).dump((1, Decimal("9.99"), "a"), {"urgent": True, "by": UserId(UUID(int=1))})
    assert payload == {
        "customer": 1,
        "amount": "9.99",
        "notes": ["a"],
        "urgent": True,
        "more": {"by": "00000000-0000-0000-0000-000000000001"},
    }


def test_what_follows_a_gap_is_still_passed() -> None:
    """A payload by hand may leave out a positional argument that has a default."""
    assert CallSignature.of(plain).load({"a": 1, "rest": [9]}) == ((1, (1, 2), None, 9), {"d": None})


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"customer": 1}, "payload.amount"),
        ({"customer": 1, "amount": "1", "other": 1}, "payload.other"),
        ({"customer": "1", "amount": "1"}, "payload.customer"),
        ({"customer": 1, "amount": "1", "notes": ["a", 2]}, "payload.notes[1]"),
        ({"customer": 1, "amount": "1", "more": {"by": "x"}}, "payload.more['by']"),
        ({"customer": 1, "amount": "1", "more": {"amount": str(UUID(int=1))}}, "payload.more['amount']"),
    ],
)
def test_payloads_that_fit_no_call(payload: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        CallSignature.of(charge).load(payload)
    assert caught.value.field == field


def test_arguments_are_refused_by_name() -> None:
    signature = CallSignature.of(plain)
    with pytest.raises(UnserializablePayload, match="b: tuple would come back as a list; use a list, or annotate"):
        signature.dump((1, (1, 2)), {})
    with pytest.raises(UnserializablePayload, match="amount: float was given where Decimal is annotated"):
        CallSignature.of(charge).dump((1, 9.99), {})


def test_a_call_that_does_not_fit() -> None:
    with pytest.raises(UnserializablePayload, match=r"arguments: missing .*'amount'; call it as charge\(customer"):
        CallSignature.of(charge).dump((1,), {})


def test_names_of_an_enclosing_function_are_found() -> None:
    local = Box[int]

    def inner(value: local) -> local:
        return local(value.content)

    signature = CallSignature.of(inner)
    assert signature.load(signature.dump((Box(1),), {})) == ((Box(1),), {})


def test_callables_without_annotations() -> None:
    class Callback:
        def __call__(self, value: int) -> None:
            """Do nothing."""

    assert CallSignature.of(Callback()).dump((5,), {}) == {"value": 5}


@attrs.frozen
class Account:
    number: int

    def close(self, why: str) -> None:
        """Close it."""

    @staticmethod
    def open(self: int) -> None:  # noqa: PLW0211
        """Open it."""


class Service:
    def close(self) -> None:
        """Close it."""


def test_self_is_an_argument() -> None:
    signature = CallSignature.of(Account.close)
    assert signature.load(signature.dump((Account(7), "x"), {})) == ((Account(7), "x"), {})
    assert CallSignature.of(Account.open).dump((7,), {}) == {"self": 7}


def test_a_self_that_cannot_be_stored() -> None:
    @attrs.frozen
    class Local:
        def close(self) -> None:
            """Close it."""

    with pytest.raises(UnserializablePayload, match="self: Service has no JSON form"):
        CallSignature.of(Service.close).dump((Service(),), {})
    with pytest.raises(UnserializablePayload, match="self: Local has no JSON form"):
        CallSignature.of(Local.close).dump((Local(),), {})


def test_results_by_the_return_annotation() -> None:
    signature = CallSignature.of(charge)
    money = {Money(Decimal(1)), Money(Decimal(2))}
    assert signature.load_result(signature.dump_result(money)) == money
    assert CallSignature.of(plain).load_result(CallSignature.of(plain).dump_result([1, None])) == [1, None]
    with pytest.raises(UnserializablePayload, match="result: list was given"):
        signature.dump_result([1])
    with pytest.raises(InvalidTask, match="result: "):
        signature.load_result(b'{"result":5}')
    with pytest.raises(Undecodable):
        signature.load_result(b"?")


def test_reprs_stand_in_for_arguments() -> None:
    reprs = repr_arguments(charge, (Explosive(), "x" * 500), {"\ud800": "\ud800"})
    assert reprs["customer"] == "<Explosive whose repr raises RuntimeError>"
    assert len(reprs["amount"]) == 200
    assert reprs["amount"].endswith("...")


def test_reprs_of_a_call_that_does_not_fit() -> None:
    assert repr_arguments(charge, (1,), {"x": "\ud800"}) == {"argument 1": "1", "x": "'\\ud800'"}
    assert len(repr_arguments(charge, tuple(range(100)), {"customer": 1})) == 50


def test_cattrs_is_loaded_late() -> None:
    code = "import sys; import deadletter.rules.arguments; sys.exit('cattrs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
