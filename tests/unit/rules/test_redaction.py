from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.model.errors import InvalidTask
from deadletter.model.record import Failure, State, TaskRecord
from deadletter.model.task import Origin, Task
from deadletter.rules.redaction import (
    DEFAULT_PATHS,
    MASK,
    Redactor,
    is_hidden_place,
    merge_edit,
    redactor,
    refuse_redacted,
)

HIDDEN = {"$redacted": True}
NOW = datetime(2026, 1, 1, tzinfo=UTC)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
payloads = st.dictionaries(st.sampled_from(["a", "b", "c", "password"]), json_values, max_size=4)


@pytest.mark.parametrize(
    ("path", "payload", "seen"),
    [
        ("card", {"card": 1, "x": {"card": 2}}, {"card": HIDDEN, "x": {"card": 2}}),
        (
            "customer.card.number",
            {"customer": {"card": {"number": 1, "n": 2}}},
            {"customer": {"card": {"number": HIDDEN, "n": 2}}},
        ),
        (
            "*.email",
            {"email": 1, "a": [{"b": {"email": {"x": 1}}}]},
            {"email": HIDDEN, "a": [{"b": {"email": HIDDEN}}]},
        ),
        (
            "a.*.b",
            {"a": {"b": 1, "x": {"y": {"b": 2}}}, "b": 3},
            {"a": {"b": HIDDEN, "x": {"y": {"b": HIDDEN}}}, "b": 3},
        ),
        ("a.*", {"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": HIDDEN, "c": HIDDEN}, "d": 2}),
        ("*", {"a": 1, "b": [2]}, {"a": HIDDEN, "b": HIDDEN}),
        ("*.*.b", {"b": 1, "a": {"b": 1}}, {"b": HIDDEN, "a": {"b": HIDDEN}}),
        ("items.card", {"items": [{"card": 1}, {"x": 2}]}, {"items": [{"card": HIDDEN}, {"x": 2}]}),
        ("items[*].card", {"items": [{"card": 1}]}, {"items": [{"card": HIDDEN}]}),
        ("items[].card", {"items": [[{"card": 1}]]}, {"items": [[{"card": HIDDEN}]]}),
        ("items.1", {"items": ["a", "b"]}, {"items": ["a", HIDDEN]}),
        ("items.*", {"items": ["a", "b"]}, {"items": [HIDDEN, HIDDEN]}),
        (
            "*.Api-Key",
            {"API_KEY": "x", "headers": {"api-key": "y"}},
            {"API_KEY": HIDDEN, "headers": {"api-key": HIDDEN}},
        ),
        ("a.b", {"a": ({"b": 1},)}, {"a": [{"b": HIDDEN}]}),
        ("a", {"a": None}, {"a": HIDDEN}),
    ],
)
def test_a_path_hides_what_lies_there(path: str, payload: dict[str, Any], seen: dict[str, Any]) -> None:
    before = repr(payload)
    assert Redactor([path]).payload(payload) == seen
    assert repr(payload) == before, "the stored payload is left alone"


@pytest.mark.parametrize("paths", [(), ("other.name",), DEFAULT_PATHS])
def test_where_nothing_is_hidden_the_payload_is_the_same_object(paths: tuple[str, ...]) -> None:
    payload = {"a": [{"b": 1}]}
    assert redactor(paths).payload(payload) is payload


@pytest.mark.parametrize("name", ["password", "passwd", "secret", "token", "api_key", "Authorization", "cookie"])
def test_the_default_paths_hide_what_is_mostly_secret(name: str) -> None:
    assert redactor(DEFAULT_PATHS).payload({"x": {name: "y"}}) == {"x": {name: HIDDEN}}


def test_a_redactor_is_kept_per_paths() -> None:
    assert redactor(("a", "b")) is redactor(("a", "b"))


@pytest.mark.parametrize("path", ["", "a..b", ".a", "a.", "a\nb", "[*]", "x" * 200, 5, None])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(InvalidTask, match="redact: "):
        Redactor([path])


def test_what_is_hidden_already_stays_and_is_no_value() -> None:
    redact = Redactor(["a"])
    payload = {"a": HIDDEN}
    assert redact.payload(payload) is payload
    assert redact.hidden_values(payload) == []


def nested(depth: int) -> dict[str, Any]:
    value: Any = {"password": "deep secret"}
    for _ in range(depth):
        value = {"a": [value]}
    assert isinstance(value, dict)
    return value


def test_a_depth_of_20_000_is_no_harm() -> None:
    payload = nested(10_000)
    redact = redactor(DEFAULT_PATHS)
    hidden = redact.payload(payload)
    assert redact.hidden_values(payload) == ["deep secret"]
    with pytest.raises(InvalidTask, match=r"payload: a\.0\.a.*\.\.\. is the place"):
        refuse_redacted(hidden)
    merged = merge_edit(payload, hidden)
    refuse_redacted(merged)
    assert redact.hidden_values(merged) == ["deep secret"]
    # Taken apart by a loop: the interpreter would compare and free it by recursion.
    for value in (payload, hidden, merged):
        inner: Any = value
        while "a" in inner:
            inner = inner.pop("a").pop()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("s3cret", "login with s3cret failed"),
        ('it\'s "so"', 'ValueError("it\'s \\"so\\"")'),
        ("line\nbreak", "got 'line\\nbreak'"),
        ("grüße", 'body {"x": "gr\\u00fc\\u00dfe"}'),
        (4111111111111111, "card 4111111111111111 declined"),
        (1234.5, "amount 1234.5"),
        ({"a": ["s3cret"], "b": ({"c": "s3cret"},)}, "s3cret"),
        ("k" * 8 + "-" + "j" * 5_000, "key kkkkkkkk-" + "j" * 1_000),
    ],
)
def test_hidden_values_are_masked_in_texts(value: Any, text: str) -> None:
    redact = Redactor(["x"])
    values = redact.hidden_values({"x": value})
    masked = redact.text(text, values)
    assert MASK in masked
    assert redact.text(masked, values) == masked or "redacted" in values
    for scrap in ("s3cret", "so", "break", "00fc", "4111", "1234", "kkkk"):
        assert scrap not in masked


@pytest.mark.parametrize("value", ["abc", 123, True, None, [], "", 0])
def test_short_values_mask_nothing(value: Any) -> None:
    """They would mask half of every text."""
    assert Redactor(["x"]).hidden_values({"x": value}) == []


def test_a_value_inside_the_mask_masks_no_mask() -> None:
    redact = Redactor(["x", "y"])
    values = redact.hidden_values({"x": "long secret", "y": "redacted"})
    assert redact.text("long secret, redacted", values) == f"{MASK}, {MASK}"


def test_the_longest_value_goes_first() -> None:
    redact = Redactor(["x", "y"])
    assert redact.text("secretive", redact.hidden_values({"x": "secret", "y": "secretive"})) == MASK


def record(**changes: Any) -> TaskRecord:
    fields: dict[str, Any] = {
        "type": "charge",
        "payload": {"card": "4111-1111", "n": 1},
        "idempotency_key": "charge-4111-1111",
        "metadata": {"tenant": "x", "card": "4111-1111"},
        "origin": Origin(system="celery", raw=b"4111-1111"),
    }
    failure = Failure(
        attempt=1, at=NOW, error_type="E", message="4111-1111 declined", traceback="E: 4111-1111 declined\n"
    )
    return TaskRecord(
        task=Task(**fields | changes), state=State.DEAD, attempts=1, due_at=NOW, created_at=NOW, history=[failure]
    )


def test_a_record_hides_its_values_everywhere() -> None:
    hidden = Redactor(["card"]).record(record())
    assert "4111" not in repr(hidden)
    assert hidden.task.payload == {"card": HIDDEN, "n": 1}
    assert hidden.task.idempotency_key == f"charge-{MASK}"
    assert hidden.task.metadata == {"tenant": "x", "card": MASK}
    assert hidden.task.origin == Origin(system="celery")
    assert hidden.failure == attrs.evolve(
        record().history[0], message=f"{MASK} declined", traceback=f"E: {MASK} declined\n"
    )


def test_a_record_without_key_and_origin_hides_its_values() -> None:
    hidden = Redactor(["card"]).record(record(idempotency_key=None, origin=None))
    assert hidden.task.idempotency_key is None
    assert hidden.task.origin is None


def test_a_key_full_of_values_stays_a_key() -> None:
    """A mask is longer than what it hides, and a key has a longest length."""
    key = Redactor(["card"]).record(record(payload={"card": "abcd"}, idempotency_key="abcd" * 250)).task.idempotency_key
    assert key is not None
    assert len(key) == 1_000
    assert "abcd" not in key


def test_a_record_that_hides_nothing_is_the_same_object() -> None:
    whole = record()
    assert Redactor(["email"]).record(whole) is whole


def test_an_edit_keeps_hidden_values_and_changes_the_rest() -> None:
    stored = {"card": {"number": "4111"}, "items": [{"x": "a"}, {"x": "b"}], "n": 1}
    edited = {"card": HIDDEN, "items": [{"x": HIDDEN}, {"x": "c"}], "n": 2}
    before = json.dumps([stored, edited])
    assert merge_edit(stored, edited) == {"card": {"number": "4111"}, "items": [{"x": "a"}, {"x": "c"}], "n": 2}
    assert json.dumps([stored, edited]) == before


def test_an_edit_without_hidden_values_is_taken_as_it_is() -> None:
    edited = {"a": 1}
    assert merge_edit({"b": 2}, edited) is edited


@pytest.mark.parametrize(
    ("stored", "edited", "place"),
    [
        ({}, {"a": HIDDEN}, "a keeps"),
        ({"a": 1}, {"a": {"b": HIDDEN}}, r"a\.b keeps"),
        ({"a": [1]}, {"a": [1, HIDDEN]}, r"a\.1 keeps"),
        ({"a": {"0": 1}}, {"a": [HIDDEN]}, r"a\.0 keeps"),
        ({}, {"a": {"b": [HIDDEN]}}, r"a\.b\.0 keeps"),
        ({}, {"a" * 500: HIDDEN}, r"aaa\.\.\. keeps"),
        ({"a": 1}, HIDDEN, "it is itself"),
    ],
)
def test_an_edit_that_keeps_what_is_not_there_is_refused(stored: Any, edited: Any, place: str) -> None:
    with pytest.raises(InvalidTask, match=f"payload: .*{place}"):
        merge_edit(stored, edited)


@pytest.mark.parametrize(
    ("payload", "place"), [({"a": [1, {"b": HIDDEN}]}, r"a\.1\.b"), ({"a": HIDDEN}, "a"), (HIDDEN, "it")]
)
def test_a_hidden_place_is_refused_elsewhere(payload: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidTask, match=f"payload: {place} is the place of a hidden value"):
        refuse_redacted(payload)


@pytest.mark.parametrize("value", [{"$redacted": 1}, {"$redacted": True, "x": 1}, {"$redacted": False}, {}, [], True])
def test_what_only_looks_like_a_hidden_place_is_a_value(value: Any) -> None:
    assert not is_hidden_place(value)
    refuse_redacted({"a": value})


@given(payloads, st.sampled_from(["*.password", "a.*", "*.b", "a.b", "*", "b.0"]))
def test_a_view_given_back_unedited_changes_nothing(payload: dict[str, Any], path: str) -> None:
    view = Redactor([path]).payload(payload)
    assert merge_edit(payload, view) == payload
    assert Redactor([path]).payload(view) is view
