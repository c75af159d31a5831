from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.model.errors import InvalidTask
from deadletter.model.task import EPOCH, Origin, Priority, Task, from_ms, seconds, to_ms

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_a_task_needs_only_a_type() -> None:
    task = Task(type="email")
    assert (task.payload, task.priority, task.max_retries, task.delay) == ({}, Priority.NORMAL, None, 0)
    assert (task.idempotency_key, task.timeout, task.expires_in, task.on_uncertain) == (None, None, None, None)
    assert (task.metadata, task.origin) == ({}, None)
    assert len(task.id) == 36


def test_ids_are_distinct_and_sorted_by_time() -> None:
    ids = [Task(type="x").id for _ in range(1_000)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "grüße <b>"),
        ("type", "x" * 200),
        ("id", "A-z0.9_:"),
        ("priority", Priority.LOW),
        ("max_retries", 0),
        ("max_retries", 1_000_000),
        ("idempotency_key", "k" * 1_000),
        ("idempotency_key", "}{:*\0"),
        ("delay", 1.5),
        ("delay", timedelta(days=1)),
        ("delay", NOW),
        ("timeout", 0.1),
        ("expires_in", timedelta(seconds=1)),
        ("on_uncertain", "dead"),
        ("metadata", {"traceparent": "00-x"}),
        ("origin", Origin(system="celery", queue="q", native_id="1", raw=b"\0")),
    ],
)
def test_a_valid_value_is_kept(field: str, value: Any) -> None:
    assert getattr(Task(**{"type": "x", field: value}), field) == value


def test_a_plain_str_becomes_a_priority() -> None:
    assert Task(type="x", priority="high").priority is Priority.HIGH


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", ""),
        ("type", "x" * 201),
        ("type", "a\nb"),
        ("type", "\ud800"),
        ("type", 5),
        ("id", ""),
        ("id", "x" * 201),
        ("id", "a b"),
        ("id", "a\n"),
        ("id", "é"),
        ("id", 5),
        ("payload", [1]),
        ("payload", Unspeakable()),
        ("priority", "urgent"),
        ("priority", []),
        ("max_retries", -1),
        ("max_retries", 1_000_001),
        ("max_retries", True),
        ("max_retries", 1.5),
        ("idempotency_key", ""),
        ("idempotency_key", "k" * 1_001),
        ("idempotency_key", "\ud800"),
        ("idempotency_key", 5),
        ("delay", -1),
        ("delay", math.nan),
        ("delay", math.inf),
        ("delay", 10**5_000),
        ("delay", True),
        ("delay", "5"),
        ("delay", NOW.replace(tzinfo=None)),
        ("timeout", 0),
        ("timeout", -1),
        ("expires_in", timedelta(0)),
        ("expires_in", timedelta(days=100_000)),
        ("on_uncertain", "drop"),
        ("metadata", "x"),
        ("metadata", {"x": 1}),
        ("metadata", {1: "x"}),
    ],
    ids=lambda value: (
        value if isinstance(value, str) and value.isprintable() and len(value) < 50 else type(value).__name__
    ),
)
def test_an_invalid_value_is_refused_by_its_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidTask, match=f"^{field}: ") as caught:
        Task(**{"type": "x", field: value})
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 250


def test_an_origin_is_an_origin() -> None:
    with pytest.raises(TypeError, match="origin"):
        Task(type="x", origin="celery")  # type: ignore[arg-type]


def test_a_task_is_hashed_by_its_id_and_compared_by_all() -> None:
    task = Task(type="x", payload={"a": 1})
    assert hash(task) == hash(attrs.evolve(task, payload={}))
    assert task != attrs.evolve(task, payload={})
    assert task == attrs.evolve(task)


def test_a_task_is_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Task(type="x").type = "y"  # type: ignore[misc]


@given(st.floats(min_value=0, max_value=1e9))
def test_a_duration_is_seconds(length: float) -> None:
    assert seconds("x", length) == length


@given(st.integers(min_value=-(10**12), max_value=10**13))
def test_a_time_survives_its_milliseconds(at_ms: int) -> None:
    assert to_ms(from_ms(at_ms)) == at_ms
    assert from_ms(at_ms).tzinfo is UTC


def test_milliseconds_count_from_the_epoch() -> None:
    assert to_ms(EPOCH + timedelta(seconds=1, microseconds=999)) == 1_000


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_delay_that_not_every_time_zone_can_show_is_refused(at: str) -> None:
    with pytest.raises(InvalidTask, match="^delay: .* is out of range; give a time from 1 to 9999"):
        Task(type="a", delay=datetime.fromisoformat(at))


@pytest.mark.parametrize("fields", [{"system": None}, {"system": "s", "queue": 5}, {"system": "s", "raw": "text"}])
def test_an_origin_is_text_and_bytes(fields: Any) -> None:
    with pytest.raises(InvalidTask, match=r"^origin\."):
        Origin(**fields)
