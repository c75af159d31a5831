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
from deadletter.rules.masking import MASK
from deadletter.rules.redaction import (
    DEFAULT_PATHS,
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
    assert not redact.mask(payload)


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
    assert redact.mask(payload).text("a deep secret") == f"a {MASK}"
    with pytest.raises(InvalidTask, match=r"payload: a\.0\.a.*\.\.\. is the place"):
        refuse_redacted(hidden)
    merged = merge_edit(payload, hidden)
    refuse_redacted(merged)
    assert redact.mask(merged).text("a deep secret") == f"a {MASK}"
    # Taken apart by a loop: the interpreter would compare and free it by recursion.
    for value in (payload, hidden, merged):
        inner: Any = value
        while "a" in inner:
            inner = inner.pop("a").pop()


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
    key = (
        Redactor(["card"]).record(record(payload={"card": "abcd"}, idempotency_key="abcd-" * 200)).task.idempotency_key
    )
    assert key is not None
    assert len(key) == 1_000
    assert "abcd" not in key
    assert key.startswith(f"{MASK}-{MASK}")


def test_a_record_that_hides_nothing_is_the_same_object() -> None:
    whole = record()
    assert Redactor(["email"]).record(whole) is whole


def test_what_a_payload_repeats_of_a_hidden_value_is_hidden_there_too() -> None:
    payload = {"card": "4111-1111", "url": "https://x/?c=4111-1111", "n": 41111111, "list": ["4111-1111", "4111"]}
    hidden = Redactor(["card"]).record(record(payload=payload)).task.payload
    assert hidden == {"card": HIDDEN, "url": HIDDEN, "n": HIDDEN, "list": [HIDDEN, "4111"]}
    assert merge_edit(payload, hidden) == payload, "given back it keeps what is stored"


def test_what_was_hidden_before_an_edit_stays_hidden_in_old_failures() -> None:
    edited = attrs.evolve(record(payload={"card": "5500-0000"}), earlier=({"card": "4111-1111"},))
    hidden = Redactor(["card"]).record(edited)
    assert "4111" not in repr(hidden)
    assert hidden.earlier == ()
    assert Redactor(["email"]).record(edited).earlier == (), "an edit's old payload is no view's business"


def test_where_the_payload_cannot_be_read_no_message_is_shown() -> None:
    """Another codec wrote it: what of the message is hidden nobody here can tell."""
    unread = Failure(attempt=1, at=NOW, error_type="deadletter.Undecodable", message="is the codec the right one?")
    whole = attrs.evolve(record(payload={}), readable=False, history=[*record().history, unread])
    hidden = Redactor(["card"]).record(whole)
    assert [(failure.message, failure.traceback) for failure in hidden.history] == [
        (MASK, MASK),
        ("is the codec the right one?", ""),
    ]
    assert redactor(()).record(whole) is whole


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
        ({"a": HIDDEN}, {"a": HIDDEN}, "a keeps"),
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
