from __future__ import annotations

import fnmatch
import itertools
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.model.errors import InvalidQuery
from deadletter.model.query import Query, decode_cursor, encode_cursor, glob_match, is_glob, literal
from deadletter.model.record import Failure, Reason, State, TaskRecord
from deadletter.model.row import Scan
from deadletter.model.task import Priority, Task, to_ms

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HUGE = "x" * 10_000_000
TEXTS = ["type", "error_contains", "error_type", "fingerprint", "release", "idempotency_key"]


def letter(**changes: Any) -> TaskRecord:
    fields: dict[str, Any] = {
        "task": Task(
            type="email.welcome",
            id="a-1",
            priority=Priority.HIGH,
            idempotency_key="k",
            metadata={"tenant": "x", "more": "y"},
            payload={
                "customer": {"id": 7, "tags": ["a", {"b": None}], "vip": True},
                "amount": 1.5,
                "list": [1, 2],
            },
        ),
        "state": State.DEAD,
        "attempts": 3,
        "due_at": NOW,
        "created_at": NOW - 3 * HOUR,
        "died_at": NOW - 2 * HOUR,
        "reason": Reason.REJECTED,
        "history": [
            Failure(attempt=1, at=NOW, error_type="builtins.Early", message="early"),
            Failure(
                attempt=3,
                at=NOW,
                error_type="httpx.ConnectError",
                message="STRASSE 5 away",
                traceback="Traceback ...\nhttpx.ConnectError: Gateway\n",
                fingerprint="f" * 16,
                release="r1",
            ),
        ],
    }
    return TaskRecord(**fields | changes)


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({}, True),
        ({"type": "email.welcome"}, True),
        ({"type": "email.*"}, True),
        ({"type": "email"}, False),
        ({"priority": "high"}, True),
        ({"priority": Priority.LOW}, False),
        ({"state": None}, True),
        ({"state": "pending"}, False),
        ({"error_contains": "straße 5"}, True),
        ({"error_contains": "GATEWAY"}, True),
        ({"error_contains": "connecterror"}, True),
        ({"error_contains": "early"}, False),
        ({"error_contains": ".*"}, False),
        ({"error_type": "httpx.ConnectError"}, True),
        ({"error_type": "ConnectError"}, False),
        ({"fingerprint": "f" * 16}, True),
        ({"fingerprint": "f"}, False),
        ({"reason": "rejected"}, True),
        ({"reason": Reason.EXPIRED}, False),
        ({"release": "r1"}, True),
        ({"release": "r2"}, False),
        ({"idempotency_key": "k"}, True),
        ({"idempotency_key": "K"}, False),
        ({"metadata": {"tenant": "x"}}, True),
        ({"metadata": {"tenant": "x", "more": "z"}}, False),
        ({"metadata": {"absent": "x"}}, False),
        ({"ids": ["b", "a-1"]}, True),
        ({"ids": {"b"}}, False),
        ({"ids": []}, False),
        ({"type": "email.*", "reason": "expired"}, False),
        ({"older_than": NOW - 2 * HOUR}, True),
        ({"older_than": NOW - 2.1 * HOUR}, False),
        ({"newer_than": NOW - 2 * HOUR}, True),
        ({"newer_than": NOW - 1.9 * HOUR}, False),
        ({"payload": {"customer.id": 7}}, True),
        ({"payload": {"customer.id": 7.0}}, True),
        ({"payload": {"customer.id": "7"}}, False),
        ({"payload": {"customer.vip": True}}, True),
        ({"payload": {"customer.vip": 1}}, False),
        ({"payload": {"list.0": 1}}, True),
        ({"payload": {"list.0": True}}, False),
        ({"payload": {"list.2": 1}}, False),
        ({"payload": {"list.-1": 2}}, False),
        ({"payload": {"list.x": 1}}, False),
        ({"payload": {"list": [1, 2]}}, True),
        ({"payload": {"list": (1, 2)}}, True),
        ({"payload": {"list": [1]}}, False),
        ({"payload": {"list": [1, 3]}}, False),
        ({"payload": {"list": 1}}, False),
        ({"payload": {"amount": [1.5]}}, False),
        ({"payload": {"amount": {"x": 1}}}, False),
        ({"payload": {"amount.x": 1}}, False),
        ({"payload": {"customer.tags": ["a", {"b": None}]}}, True),
        ({"payload": {"customer.tags.1.b": None}}, True),
        ({"payload": {"customer.tags.1": {"b": None}}}, True),
        ({"payload": {"customer.tags.1": {"b": False}}}, False),
        ({"payload": {"customer.tags.1": {"c": None}}}, False),
        ({"payload": {"customer.absent": None}}, False),
        ({"payload": {"customer.id": 7, "amount": 2}}, False),
    ],
)
def test_a_letter_matches_where_every_condition_holds(conditions: dict[str, Any], holds: bool) -> None:
    query = Query(**conditions)
    assert query.matches(letter()) is holds
    assert query.matches(letter()) is holds, "and the second time"


def test_what_is_no_letter_is_as_old_as_its_creation() -> None:
    query = Query(state="pending", older_than=NOW - 2.5 * HOUR)
    assert query.matches(letter(state=State.PENDING))
    assert query.matches(letter(state=State.PENDING, died_at=None))
    assert not query.matches(letter(state=State.PENDING, created_at=NOW))


def test_a_letter_without_a_time_of_death_is_as_old_as_its_creation() -> None:
    assert Query(older_than=NOW - 2.5 * HOUR).matches(letter(died_at=None))


@pytest.mark.parametrize(
    "condition", [{"error_contains": "x"}, {"error_type": "x"}, {"fingerprint": "x"}, {"release": "x"}]
)
def test_a_task_that_never_failed_matches_no_failure(condition: dict[str, Any]) -> None:
    assert not Query(**condition).matches(letter(history=[]))


@pytest.mark.parametrize("age", [3600, 3600.0, HOUR])
def test_a_duration_is_made_absolute_once(age: Any) -> None:
    query = Query(older_than=age, newer_than=2 * HOUR)
    with pytest.raises(InvalidQuery, match="older_than: .*resolved"):
        query.matches(letter())
    with pytest.raises(InvalidQuery, match=r"newer_than: .*resolved"):
        query.scan_fields()
    resolved = query.resolved(NOW)
    assert (resolved.older_than, resolved.newer_than) == (NOW - HOUR, NOW - 2 * HOUR)
    assert resolved.resolved(NOW + HOUR) == resolved
    assert resolved.matches(letter())


def test_a_time_in_another_zone_is_the_same_time() -> None:
    east = timezone(timedelta(hours=9))
    assert Query(older_than=NOW.astimezone(east)) == Query(older_than=NOW)


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({}, False),
        ({"state": None}, False),
        ({"state": "pending"}, False),
        ({"metadata": {}, "payload": {}}, False),
        ({"ids": []}, True),
        ({"type": "*"}, True),
        ({"older_than": 0}, True),
        ({"release": "r"}, True),
    ],
)
def test_a_condition_is_anything_but_the_state(conditions: dict[str, Any], said: bool) -> None:
    assert Query(**conditions).has_condition is said


def test_a_scan_is_narrowed_by_what_an_index_can_answer() -> None:
    query = Query(
        type="email\\*",
        priority="low",
        error_contains="Straße",
        error_type="E",
        fingerprint="f",
        reason="expired",
        older_than=NOW,
        newer_than=NOW - HOUR,
        release="r",
        idempotency_key="k",
        ids=["a"],
        metadata={"a": "b"},
        payload={"a": 1},
    )
    assert query.scan_fields() == {
        "state": "dead",
        "type": "email*",
        "priority": 2,
        "text": "strasse",
        "error_type": "E",
        "fingerprint": "f",
        "reason": "expired",
        "release": "r",
        "until_ms": to_ms(NOW),
        "since_ms": to_ms(NOW - HOUR),
    }
    assert Scan(**query.scan_fields()).type == "email*"


def test_a_scan_is_narrowed_by_nothing_that_was_not_asked() -> None:
    assert Query().scan_fields() == {"state": "dead"}
    assert Query(state=None, type="email.*").scan_fields() == {}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *itertools.product(TEXTS, ["", HUGE, 5, b"x"]),
        *itertools.product(["priority", "state", "reason"], ["urgent", HUGE, 5, [], True, math.nan]),
        *itertools.product(["older_than", "newer_than"], [math.nan, math.inf, -1, 1e300, 10**5000, "1h", True, []]),
        ("newer_than", NOW.replace(tzinfo=None)),
        ("older_than", datetime.min.replace(tzinfo=timezone(HOUR))),
        ("ids", "abc"),
        ("ids", b"abc"),
        ("ids", 5),
        ("ids", [5]),
        ("ids", [HUGE]),
        ("ids", ["a"] * 100_001),
        ("metadata", "x"),
        ("metadata", {"x": 5}),
        ("metadata", {5: "x"}),
        ("metadata", {str(n): "x" for n in range(101)}),
        ("payload", [1]),
        ("payload", {5: 1}),
        ("payload", {"": 1}),
        ("payload", {HUGE: 1}),
        ("payload", {"x": math.nan}),
        ("payload", {"x": [math.inf]}),
        ("payload", {"x": object()}),
        ("payload", {"x": {5: 1}}),
        ("payload", {"x": nested(100_000)}),
        ("payload", {"x": {"y": {"$redacted": True}}}),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 50 else type(value).__name__,
)  # fmt: skip
def test_nonsense_is_refused_by_the_field_it_stands_in(field: str, value: Any) -> None:
    with pytest.raises(InvalidQuery, match=f"^{field}: ") as caught:
        Query(**{field: value})
    assert len(str(caught.value)) < 300


def test_a_query_can_be_evolved_and_compared() -> None:
    assert attrs.evolve(Query(type="a"), state="pending") == Query(type="a", state=State.PENDING)


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "", True),
        ("a*", "a", True),
        ("*a", "ba", True),
        ("a*a", "a", False),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "acb", False),
        ("*b*b*", "b", False),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("a\\b", "a\\b", True),
        ("a\\**", "a*x", True),
        ("[a]?", "[a]?", True),
        ("[a]?", "ab", False),
        ("**", "x", True),
        ("a*", "a" * 1_001, False),
        ("A*", "ab", False),
        ("a*", "b", False),
    ],
)
def test_a_glob_knows_only_stars(pattern: str, text: str, matches: bool) -> None:
    assert glob_match(pattern, text) is matches


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_a_glob_agrees_with_the_stdlib(pattern: str, text: str) -> None:
    assert glob_match(pattern, text) is fnmatch.fnmatchcase(text, pattern)


@given(st.text("a*\\", max_size=8))
def test_a_pattern_is_either_a_glob_or_one_text(pattern: str) -> None:
    only = literal(pattern)
    assert (only is None) is is_glob(pattern)
    if only is not None:
        assert glob_match(pattern, only)


def test_a_hostile_glob_takes_no_time() -> None:
    """A backtracking matcher would need longer than the universe has."""
    assert not glob_match("*a" * 400 + "b", "a" * 1_000)


def test_a_glob_of_10_megabytes_is_refused() -> None:
    with pytest.raises(InvalidQuery, match="type: a glob of 10000000 characters"):
        glob_match(HUGE, "x")


@given(
    st.integers(min_value=-(10**17), max_value=10**17),
    st.from_regex(r"[A-Za-z0-9._:-]{1,200}", fullmatch=True),
)
def test_a_cursor_comes_back(time_ms: int, task_id: str) -> None:
    cursor = encode_cursor((time_ms, task_id))
    assert decode_cursor(cursor) == (time_ms, task_id)
    assert cursor.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "cursor",
    [
        *["", "x", "!!!!", "é", "Mg", "MiAxIGE", "_____w", HUGE, None, 5, b"MQ"],
        *[encode_cursor((1, "a b")), encode_cursor((10**19, "a"))],
    ],
    ids=lambda value: str(value)[:10],
)
def test_what_no_page_gave_out_is_no_cursor(cursor: Any) -> None:
    with pytest.raises(InvalidQuery, match="^cursor: "):
        decode_cursor(cursor)


@given(st.text(max_size=40))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        after = decode_cursor(text)
    except InvalidQuery:
        return
    assert decode_cursor(encode_cursor(after)) == after
