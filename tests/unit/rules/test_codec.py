"""What is stored comes back equal, or is refused by its path."""

from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.interfaces.codec import Codec
from deadletter.model.errors import InvalidTask, Undecodable, UnserializablePayload
from deadletter.model.record import Failure, Reason, State
from deadletter.model.row import DEAD, PENDING, SUCCEEDED, FailureRow, Row
from deadletter.model.task import Origin, Priority, Task, from_ms
from deadletter.rules.codec import (
    JsonCodec,
    decode_task,
    digest,
    encode_task,
    failure_from_row,
    key_hash,
    record_from_row,
    task_document,
)
from deadletter.rules.strict_json import MAX_DEPTH, loads_strict

CODEC = JsonCodec()
BIG = 1_000_000

TEXT = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=5)


class Color(enum.Enum):
    RED = "red"


class Grade(enum.IntEnum):
    A = 1


class Broken(enum.StrEnum):
    HALF = "\ud800"


class Fancy(str):
    __slots__ = ()


class Heavy(float):
    __slots__ = ()


class Listing(list[int]):
    pass


class Forgetful(Mapping[str, int]):
    """A mapping that equals nothing."""

    def __getitem__(self, key: str) -> int:
        return {"a": 1}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


@attrs.frozen
class Point:
    x: int


def nested(levels: int) -> dict[str, Any]:
    """A payload of that many levels, itself included."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def row(body: bytes | None, **fields: Any) -> Row:
    return Row(**{"id": "t1", "type": "mail", "priority": 1, "state": PENDING, "body": body, **fields})


def encode(task: Task) -> bytes:
    return encode_task(CODEC, task, max_payload_bytes=BIG)


@given(OBJECTS)
def test_documents_come_back_equal(document: dict[str, Any]) -> None:
    assert CODEC.decode(CODEC.encode(document)) == document


@given(OBJECTS)
def test_strict_reading_agrees_with_the_codec(document: dict[str, Any]) -> None:
    """What strangers send is read as the codec stores it."""
    body = CODEC.encode(document)
    assert loads_strict(body, max_bytes=BIG) == document
    assert loads_strict(json.dumps(document), max_bytes=BIG) == document


REFUSED: list[tuple[Any, str, str]] = [
    ((1, 2), "", "use a list"),
    ({1}, "", "sorted list"),
    (b"x", "", "base64"),
    (Decimal("1.5"), "", "str(value)"),
    (datetime(2026, 1, 1, tzinfo=UTC), "", "isoformat"),
    (date(2026, 1, 1), "", "isoformat"),
    (timedelta(1), "", "total_seconds"),
    (UUID(int=1), "", "str(value)"),
    (Path("a"), "", "str(value)"),
    (Color.RED, "", ".value"),
    (Fancy("a"), "", "plain text"),
    (Heavy(1.5), "", "plain number"),
    (Listing([1]), "", "plain list"),
    (Point(1), "", "a dict of plain values"),
    (object(), "", "a dict of plain values"),
    (math.nan, "", "None or text"),
    (math.inf, "", "None or text"),
    (2**64, "", "64 bits"),
    (-(2**63) - 1, "", "64 bits"),
    ("\ud800", "", "lone surrogate"),
    ({"\ud800": 1}, "", "lone surrogate"),
    ({1: 1}, "", "use a str"),
    ({"a b": [0, {"c": math.nan}]}, '["a b"][1].c', "None or text"),
]


@pytest.mark.parametrize(("value", "path", "advice"), REFUSED)
def test_refused_by_path_and_with_advice(value: Any, path: str, advice: str) -> None:
    task = Task(type="t", payload={"items": [None, value]})
    with pytest.raises(UnserializablePayload) as caught:
        encode(task)
    assert caught.value.field == f"payload.items[1]{path}"
    assert advice in caught.value.problem


def test_what_only_orjson_refuses_is_refused() -> None:
    for refused in (lambda: CODEC.encode({"p": Broken.HALF}), lambda: digest("t", {"p": Broken.HALF})):
        with pytest.raises(UnserializablePayload, match="surrogates"):
            refused()


def test_a_null_is_no_nan() -> None:
    assert decode_task(CODEC, row(encode(Task(type="t", payload={"a": None})))).payload == {"a": None}


@pytest.mark.parametrize(
    "value", [OrderedDict(b=1, a=2), MappingProxyType({"a": OrderedDict(b=1)}), {"g": Grade.A}, {"g": Forgetful()}]
)
def test_mappings_and_equal_enums_are_taken(value: Mapping[str, Any]) -> None:
    """What equals its JSON form is no surprise when it comes back."""
    stored = CODEC.decode(CODEC.encode({"p": value}))["p"]
    assert stored == value or isinstance(value["g"], Forgetful)


def test_depth_is_counted_without_brackets_in_text() -> None:
    assert CODEC.encode({"p": nested(MAX_DEPTH)})
    assert CODEC.encode({"p": {"a": "[{" * 300}})
    assert CODEC.encode({"p": {"a": [[] for _ in range(300)]}})
    with pytest.raises(UnserializablePayload, match="100 levels") as caught:
        encode(Task(type="t", payload=nested(MAX_DEPTH + 1)))
    assert caught.value.field == "payload" + ".a" * MAX_DEPTH


def test_endless_payloads_are_refused() -> None:
    """A cycle and 100,000 levels end in the same sentence, not in a RecursionError."""
    cycle: dict[str, Any] = {}
    cycle["a"] = cycle
    for payload in (cycle, nested(100_000)):
        with pytest.raises(UnserializablePayload, match="100 levels"):
            encode(Task(type="t", payload=payload))
        with pytest.raises(UnserializablePayload, match="100 levels"):
            digest("t", payload)


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_unreadable_bytes(body: bytes) -> None:
    with pytest.raises(Undecodable):
        CODEC.decode(body)
    with pytest.raises(Undecodable, match="'t1'"):
        decode_task(CODEC, row(body))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"p": 1},
        {"p": {}, "r": "many"},
        {"p": {}, "t": 0},
        {"p": {}, "m": {"a": 1}},
        {"p": {}, "m": 5},
        {"p": {}, "o": 5},
        {"p": {}, "o": {}},
        {"p": {}, "o": {"s": "celery", "r": "?"}},
        {"p": {}, "o": {"s": None}},
    ],
)
def test_unusable_documents(document: dict[str, Any]) -> None:
    """A body of the wrong shape names its task, whatever part of it is wrong."""
    with pytest.raises(Undecodable, match="'t1'"):
        decode_task(CODEC, row(orjson.dumps(document)))


@pytest.mark.parametrize("earlier", [7, [7], {"a": 1}])
def test_what_was_before_an_edit_and_is_no_payload_is_shown_as_unreadable(earlier: Any) -> None:
    record = record_from_row(CODEC, row(orjson.dumps({"p": {}, "e": earlier}), state=DEAD), queue="q")
    assert (record.readable, record.replayable, record.earlier) == (False, False, ())


def test_no_body() -> None:
    with pytest.raises(Undecodable, match="without its payload"):
        decode_task(CODEC, row(None))


class Locked(Codec):
    """A codec whose key is gone."""

    def encode(self, document: Mapping[str, Any]) -> bytes:
        raise UnserializablePayload("elsewhere", "no key")

    def decode(self, body: bytes) -> dict[str, Any]:
        raise RuntimeError("no key")


def test_a_codec_of_the_users_may_raise_anything() -> None:
    with pytest.raises(Undecodable, match="'t1'.*no key"):
        decode_task(Locked(), row(b"x"))
    with pytest.raises(UnserializablePayload, match="elsewhere: no key"):
        encode_task(Locked(), Task(type="t"), max_payload_bytes=BIG)


FULL = Task(
    type="mail",
    id="t1",
    payload={"a": 1},
    priority=Priority.LOW,
    max_retries=3,
    idempotency_key="k",
    timeout=timedelta(seconds=1.5),
    expires_in=60,
    on_uncertain="dead",
    metadata={"tenant": "x"},
    origin=Origin(system="celery", queue="q", native_id="7", raw=b"\x00\xff"),
)


def test_a_whole_task_comes_back() -> None:
    again = decode_task(CODEC, row(encode(FULL), priority=2))
    assert again == attrs.evolve(FULL, timeout=1.5, expires_in=60.0)


def test_a_small_task_has_a_small_body() -> None:
    task = Task(type="mail", id="t1", payload={"a": 1}, delay=30)
    body = encode(task)
    assert body == b'{"p":{"a":1}}'
    assert decode_task(CODEC, row(body)) == attrs.evolve(task, delay=0)


@pytest.mark.parametrize("origin", [Origin(system="rq"), Origin(system="rq", raw=b"")])
def test_origin_with_gaps(origin: Origin) -> None:
    task = Task(type="mail", id="t1", origin=origin)
    assert decode_task(CODEC, row(encode(task))) == task


def test_keys_of_newer_writers_are_ignored() -> None:
    body = orjson.dumps({**task_document(FULL), "zz": 1})
    assert decode_task(CODEC, row(body)).idempotency_key == "k"


def test_a_task_built_past_the_validators_is_whole() -> None:
    """Every field is set, and none is shared between tasks."""
    one, two = (decode_task(CODEC, row(b'{"p":{}}')) for _ in range(2))
    assert one == Task(type="mail", id="t1")
    assert one.metadata is not two.metadata
    assert hash(one) == hash(two)


def test_size_is_measured_on_the_payload() -> None:
    task = Task(type="t", payload={"a": "x" * 92}, metadata={"m": "y" * 50})
    assert encode_task(CODEC, task, max_payload_bytes=100)
    with pytest.raises(InvalidTask, match="is 100 bytes, more than max_payload_bytes=99; store it elsewhere"):
        encode_task(CODEC, task, max_payload_bytes=99)


@given(OBJECTS, OBJECTS)
def test_digests_tell_payloads_apart(one: dict[str, Any], two: dict[str, Any]) -> None:
    same = orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(two, option=orjson.OPT_SORT_KEYS)
    assert (digest("t", one) == digest("t", two)) is same
    assert digest("t", one) == digest("t", dict(reversed(one.items())))


def test_digests_are_what_they_were() -> None:
    """Stored digests must mean the same in every version."""
    assert digest("mail", {"b": 1, "a": [True]}) == "ebda4fd235621ece3dc53596d9061b58de11e00e49ed4b179eff38ea979af4fb"
    assert key_hash("default", "mail", "k") == "76f688cffc831a4ca3018e865612f7a2ba304acb3244dededfc57de043aff16c"


@given(st.tuples(TEXT, TEXT, TEXT), st.tuples(TEXT, TEXT, TEXT))
def test_key_hashes_keep_neighbours_apart(one: tuple[str, str, str], two: tuple[str, str, str]) -> None:
    assert (key_hash(*one) == key_hash(*two)) is (one == two)
    assert key_hash("a", "bc", "d") != key_hash("ab", "c", "d")


def test_a_digest_refuses_what_the_codec_refuses() -> None:
    with pytest.raises(UnserializablePayload, match=r"payload\.a: "):
        digest("t", {"a": b""})


FAILURE = FailureRow(attempt=2, at_ms=5_000, duration_ms=1_500, error_type="ValueError", message="no", worker="w")


def test_a_failure() -> None:
    assert failure_from_row(FAILURE) == Failure(
        attempt=2, at=from_ms(5_000), duration=1.5, error_type="ValueError", message="no", worker="w"
    )
    assert failure_from_row(FailureRow(attempt=1)).duration is None


def test_a_dead_letter() -> None:
    letter = row(
        encode(FULL),
        state=DEAD,
        ended_ms=9_000,
        keep_until_ms=10_000,
        expires_ms=1,
        reason="rejected",
        history=[FAILURE],
        redact="a\nb.c",
        attempts=2,
    )
    record = record_from_row(CODEC, letter, queue="q")
    assert record.task.payload == {"a": 1}
    assert (record.state, record.reason, record.queue) == (State.DEAD, Reason.REJECTED, "q")
    assert (record.died_at, record.expires_at) == (from_ms(9_000), from_ms(10_000))
    assert record.redact == ("a", "b.c")
    assert record.failure == failure_from_row(FAILURE)
    assert record.replayable


def test_a_pending_task() -> None:
    record = record_from_row(CODEC, row(b'{"p":{}}', due_ms=3_000, expires_ms=4_000, keep_until_ms=1), queue="q")
    assert (record.due_at, record.expires_at, record.died_at) == (from_ms(3_000), from_ms(4_000), None)
    assert record.reason is None
    assert record.redact == ()


def test_a_task_that_ended_has_no_payload() -> None:
    record = record_from_row(CODEC, row(None, state=SUCCEEDED, ended_ms=9), queue="q")
    assert (record.task.payload, record.died_at, record.expires_at) == ({}, None, None)


def test_a_letter_with_reprs_cannot_be_replayed() -> None:
    task = Task(type="mail", id="t1", payload={"a": "<object>"})
    body = encode_task(CODEC, task, max_payload_bytes=BIG, replayable=False)
    record = record_from_row(CODEC, row(body, state=DEAD), queue="q")
    assert record.task == task
    assert not record.replayable


@pytest.mark.parametrize("reason", ["not_replayable", "undecodable"])
def test_a_reason_that_forbids_replay(reason: str) -> None:
    assert not record_from_row(CODEC, row(b'{"p":{}}', state=DEAD, reason=reason), queue="q").replayable


def test_a_broken_letter_is_shown() -> None:
    """What is broken is quarantined, not hidden."""
    record = record_from_row(CODEC, row(b"\x00", state=DEAD, reason="undecodable"), queue="q")
    assert (record.id, record.task.payload, record.replayable) == ("t1", {}, False)
    assert record.reason == Reason.UNDECODABLE


def test_a_reason_of_a_newer_version_is_unknown() -> None:
    assert record_from_row(CODEC, row(b'{"p":{}}', state=DEAD, reason="bored"), queue="q").reason is None


@given(st.binary(max_size=200))
def test_records_survive_any_body(body: bytes) -> None:
    assert record_from_row(CODEC, row(body, state=DEAD), queue="q").id == "t1"
