from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from deadletter import InvalidTask, Retention


def test_it_says_what_it_was_given() -> None:
    told = Retention(count=5, age=60, by_type={"email.*": Retention(age=timedelta(days=1))})
    assert (told.count, told.age, told.by_type["email.*"].age) == (5, timedelta(minutes=1), timedelta(days=1))
    assert told == Retention(count=5, age=timedelta(seconds=60), by_type=dict(told.by_type))
    assert hash(told) == hash(attrs.evolve(told))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        told.count = 6  # type: ignore[misc]


def test_its_rules_are_a_copy() -> None:
    given = {"a": Retention(count=1)}
    told = Retention(by_type=given)
    given.clear()
    assert told.glob("a") == "a"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"count": -1}, "count"),
        ({"count": 1.5}, "count"),
        ({"count": True}, "count"),
        ({"count": "9"}, "count"),
        ({"age": -1}, "age"),
        ({"age": "7d"}, "age"),
        ({"age": float("nan")}, "age"),
        ({"by_type": ["a"]}, "by_type"),
        ({"by_type": {3: Retention()}}, "by_type"),
        ({"by_type": {"": Retention()}}, "by_type"),
        ({"by_type": {"a" * 1001: Retention()}}, "by_type"),
        ({"by_type": {"a": 100}}, "by_type"),
        ({"by_type": {"a": Retention(by_type={"b": Retention()})}}, "by_type"),
    ],
)
def test_what_cannot_be_meant_is_named(given: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        Retention(**given)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("type_", "glob"),
    [("email.welcome", "email.welcome"), ("email.bill", "email.*"), ("emails", None), ("*", r"\*"), ("x", None)],
)
def test_a_type_obeys_the_first_that_matches(type_: str, glob: str | None) -> None:
    told = Retention(by_type={name: Retention() for name in ("email.welcome", "email.*", "*.bill", r"\*")})
    assert told.glob(type_) == glob


@pytest.mark.parametrize(
    ("told", "limits"),
    [
        (Retention(), False),
        (Retention(by_type={"a": Retention(count=1)}), False),
        (Retention(count=0), True),
        (Retention(age=0), True),
    ],
)
def test_whether_it_limits_anything_itself(told: Retention, limits: bool) -> None:
    assert told.limits is limits
