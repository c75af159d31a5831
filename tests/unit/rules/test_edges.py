"""The exact edge of a rule: the last value that is still on this side, and what is on the other."""

from __future__ import annotations

import dataclasses
import enum
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import attrs
import pytest

from deadletter.model.errors import InvalidTask, UnserializablePayload
from deadletter.model.row import DEAD, PENDING, RUNNING, SUCCEEDED, Row
from deadletter.model.task import Task
from deadletter.rules import changes
from deadletter.rules.arguments import plain_arguments, repr_arguments
from deadletter.rules.codec import JsonCodec, digest, encode_task, record_from_row
from deadletter.rules.duration_text import parse_duration
from deadletter.rules.masking import MASK, Mask, may_touch_mask
from deadletter.rules.redaction import DEFAULT_PATHS, check_paths, marked_paths, path_mark, redactor
from deadletter.rules.strict_json import LARGEST, SMALLEST, loads_strict
from deadletter.rules.typed_json import dump, load


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: int
    twice: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "twice", 2 * self.a)


@dataclasses.dataclass
class Open:
    a: int
    seen: int = dataclasses.field(init=False, default=0)


class Slots:
    __slots__ = ("inner",)

    def __init__(self, inner: object) -> None:
        self.inner = inner


def row(state: str = DEAD) -> Row:
    return Row("t1", "mail", 1, state, created_ms=1, due_ms=1, ended_ms=1, format=1)


def takes(value: object) -> None: ...


@pytest.mark.parametrize(("length", "shown"), [(198, 200), (199, 200)])
def test_a_repr_of_200_characters_is_whole_and_a_longer_one_is_cut(length: int, shown: int) -> None:
    text = repr_arguments(takes, ("x" * length,), {})["value"]
    assert len(text) == shown
    assert text.endswith("...") is (length == 199)


def test_what_is_inside_arguments_is_found() -> None:
    pair = dataclasses.make_dataclass("Pair", ["left", "right"])
    found = plain_arguments(
        lambda a, b, c, d, e, f: None,
        (Slots({"card": 1}), pair("l", [b"\xff"]), ("t", {"s"}), Color.RED, None, 1.5),
        {},
    )
    assert found["a"] == {"inner": {"card": 1}}
    assert found["b"] == {"left": "l", "right": ["\\xff"]}
    assert found["c"] == ["t", ["s"]]
    assert (found["e"], found["f"]) == (None, 1.5)


def test_arguments_that_fit_no_signature_are_numbered_from_one() -> None:
    assert plain_arguments(lambda: None, ("x", "y"), {"z": 1}) == {"argument 1": "x", "argument 2": "y", "z": 1}


def test_a_member_in_a_literal_is_stored_by_its_value() -> None:
    assert dump(Color.RED, Literal[Color.RED], "v") == "red"
    assert load("red", Literal[Color.RED], "v") is Color.RED


def test_a_frozen_dataclass_works_out_the_rest_and_an_open_one_keeps_its_state() -> None:
    assert dump(Frozen(2), Frozen, "v") == {"a": 2}
    assert load({"a": 2}, Frozen, "v").twice == 4
    changed = Open(1)
    changed.seen = 5
    assert load(dump(changed, Open, "v"), Open, "v").seen == 5


@pytest.mark.parametrize("number", [SMALLEST, LARGEST])
def test_a_number_that_json_holds_is_never_read_from_text(number: int) -> None:
    assert dump(number, int, "v") == number
    with pytest.raises(InvalidTask):
        load(str(number), int, "v")
    beyond = number + (1 if number > 0 else -1)
    assert load(dump(beyond, int, "v"), int, "v") == beyond


@pytest.mark.parametrize(("length", "cut"), [(60, False), (61, True)])
def test_a_text_in_a_message_is_cut_beyond_60_characters(length: int, cut: bool) -> None:
    with pytest.raises(ValueError, match="is no duration") as caught:
        parse_duration("x" * length)
    told = str(caught.value).partition(" is no duration")[0]
    assert told == (f"'{'x' * 57}'..." if cut else f"'{'x' * 60}'")


@pytest.mark.parametrize("payload", [{"a": {1}}, {"a": object()}])
def test_a_digest_names_what_has_no_form(payload: dict[str, Any]) -> None:
    with pytest.raises(UnserializablePayload, match=r"^payload\.a"):
        digest("mail", payload)


def test_of_what_was_before_its_edits_the_last_20_are_kept() -> None:
    earlier = [{"n": n} for n in range(25)]
    body = encode_task(JsonCodec(), Task(type="mail", payload={}), max_payload_bytes=10_000, earlier=earlier)
    stored = row()
    stored.body = body
    assert record_from_row(JsonCodec(), stored, queue="q").earlier == earlier[5:]


@pytest.mark.parametrize("paths", ["abc", ["$defaults"], ["a", "$b"]])
def test_paths_that_would_read_as_something_else_are_refused(paths: Any) -> None:
    with pytest.raises(InvalidTask, match="is no list of paths"):
        check_paths(paths)


@pytest.mark.parametrize(
    "change", [changes.cancel(row(PENDING), "op", 5), changes.purge(row(), "op", 5), changes.erase(row(), "op", 5)]
)
def test_who_gives_no_reason_has_none(change: Any) -> None:
    assert change.why == ""


def test_a_star_may_stand_for_no_level_and_for_several() -> None:
    hides = redactor(("*.a", "*.*.b", "c.*"))
    shown = hides.payload({"a": 1, "b": 2, "x": {"a": 3, "b": 4, "y": {"a": 5}}, "c": {"d": 6}})
    hidden = {"$redacted": True}
    assert shown == {"a": hidden, "b": hidden, "x": {"a": hidden, "b": hidden, "y": {"a": hidden}}, "c": {"d": hidden}}


class Surrogate:
    def __repr__(self) -> str:
        return "\ud800"


def test_a_repr_that_is_no_unicode_is_escaped() -> None:
    assert repr_arguments(takes, (Surrogate(),), {}) == {"value": "\\ud800"}


def test_what_is_deeper_than_eight_levels_becomes_its_text() -> None:
    def nested(levels: int) -> Any:
        return "end" if levels == 0 else [nested(levels - 1)]

    found = plain_arguments(takes, (nested(10),), {})["value"]
    for _ in range(8):
        assert isinstance(found, list)
        [found] = found
    assert found == "[['end']]"


def test_no_more_than_2000_values_are_looked_at() -> None:
    found = plain_arguments(takes, ([[n] for n in range(3_000)],), {})["value"]
    assert 990 < len(found) < 2_001
    assert found[0] == [0]


@pytest.mark.parametrize(
    ("value", "annotation", "document"),
    [
        ("1", str | Decimal, "1"),
        (Decimal(1), str | Decimal, {"$type": "Decimal", "value": "1"}),
        (1, float | int, 1),
        (1.5, int | float, 1.5),
        ("x", int | str, "x"),
        ([1], list[int] | str, [1]),
    ],
)
def test_a_member_of_a_union_is_tagged_only_where_another_looks_the_same(
    value: Any, annotation: Any, document: Any
) -> None:
    assert dump(value, annotation, "v") == document
    again = load(document, annotation, "v")
    assert (again, type(again)) == (value, type(value))


def test_the_key_that_is_given_twice_is_named() -> None:
    with pytest.raises(InvalidTask, match='the key "b" is given twice'):
        loads_strict('{"a": 1, "b": 2, "b": 3}', max_bytes=100)


def nest(levels: int, wrap: Any) -> Any:
    inner: Any = 1
    for _ in range(levels):
        inner = wrap(inner)
    return inner


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["lists", "objects"])
def test_a_payload_of_100_levels_is_stored_and_a_deeper_one_is_refused_by_its_path(wrap: Any) -> None:
    codec = JsonCodec()
    deepest = Task(type="mail", payload={"a": nest(99, wrap)})
    assert codec.decode(encode_task(codec, deepest, max_payload_bytes=10_000))["p"] == deepest.payload
    with pytest.raises(UnserializablePayload, match=r"^payload\.a.*100 levels"):
        encode_task(codec, Task(type="mail", payload={"a": nest(100, wrap)}), max_payload_bytes=10_000)


class Point(NamedTuple):
    x: int
    y: int = 0


@attrs.frozen
class Box:
    size: int


@pytest.mark.parametrize(
    ("value", "annotation", "document"),
    [
        (Point(1), Point | Box, {"x": 1, "y": 0}),
        (Box(2), Point | Box, {"size": 2}),
        ((1, 2), tuple[int, ...] | Box, [1, 2]),
        ({"a": 1}, dict[str, int] | list[int], {"a": 1}),
    ],
)
def test_classes_and_containers_of_a_union_are_told_apart_by_their_fields(
    value: Any, annotation: Any, document: Any
) -> None:
    assert dump(value, annotation, "v") == document
    assert load(document, annotation, "v") == value


def test_a_field_with_a_default_may_be_left_out_of_a_member_of_a_union() -> None:
    assert load({"x": 1}, Point | Box, "v") == Point(1)


def test_what_expired_or_was_put_aside_says_by_which_error() -> None:
    pending = row(PENDING)
    pending.expires_ms = 1
    failure = changes.expire(pending, "op").failure
    assert failure is not None
    assert (failure.error_type, failure.message) == (
        "deadletter.Expired",
        "no attempt ended before its expires_in had passed",
    )


def test_a_replay_without_a_reason_has_none() -> None:
    assert changes.replay(row(), "op").why == ""


def test_the_paths_of_a_mark_are_its_lines() -> None:
    assert marked_paths(path_mark(("a", "b.c"), defaults=False)) == ("a", "b.c")
    assert marked_paths(path_mark(("a",), defaults=True)) == (*DEFAULT_PATHS, "a")
    assert marked_paths("") == ()


def test_a_key_that_is_no_name_stands_in_brackets() -> None:
    with pytest.raises(InvalidTask, match=r'^payload\["a b"\]'):
        encode_task(JsonCodec(), Task(type="mail", payload={"a b": {1}}), max_payload_bytes=1_000)


def test_what_can_be_read_is_readable_and_replayable() -> None:
    stored = row()
    stored.body = b'{"p":{}}'
    record = record_from_row(JsonCodec(), stored, queue="q")
    assert (record.readable, record.replayable) == (True, True)


@pytest.mark.parametrize(("text", "touches"), [("x]", True), ("[x", True), ("redacted", True), ("x", False)])
def test_a_text_that_may_stand_across_a_mask_is_told(text: str, touches: bool) -> None:
    assert may_touch_mask(text) is touches


def test_a_value_that_overlaps_itself_is_hidden_to_its_end() -> None:
    assert Mask(["aaaaaa"]).text("see aaaaaaa here") == f"see {MASK} here"


@pytest.mark.parametrize("said", ["1234567", "1,234,567", "'1234567'"])
def test_a_number_is_hidden_however_it_is_written(said: str) -> None:
    assert "567" not in Mask([1234567]).text(f"it is {said} here")


def test_the_steps_of_an_operation_are_fenced_by_its_token() -> None:
    held = row(RUNNING)
    held.token = "mine"
    on = changes.go_on(held, "op", b"b", 5)
    assert (on.was, on.to, on.token, on.lease_ms, on.body) == (RUNNING, RUNNING, "mine", 5, b"b")
    back = changes.put_back(held, "op", b"b")
    assert (back.was, back.to, back.token, back.body) == (RUNNING, PENDING, "mine", b"b")
    off = changes.call_off(held, "op", b"b", 9)
    assert (off.was, off.to, off.token, off.keep_ms, off.body) == (RUNNING, SUCCEEDED, "mine", 9, b"b")
    late = changes.amend(held, "op", b"b", 9)
    assert (late.was, late.to, late.keep_ms, late.body) == (SUCCEEDED, SUCCEEDED, 9, b"b")
