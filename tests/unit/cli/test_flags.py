from __future__ import annotations

import attrs
import pytest

from deadletter import Query
from deadletter.cli.exits import BadUse
from deadletter.cli.flags import Where, json_object, length


def test_every_condition_of_a_query_is_a_flag() -> None:
    fields = {field.name for field in attrs.fields(Query) if not field.name.startswith("_")}
    assert {field.name for field in attrs.fields(Where)} == fields


def test_no_flags_are_the_default_query() -> None:
    assert Where().query() == Query()


def test_flags_become_a_query() -> None:
    where = Where(
        type="email.*",
        priority="high",
        state="pending",
        older_than="1h30m",
        payload=("customer.id=7", 'name="7"', "city=Bern", "ok=true"),
        metadata=("tenant=a=b",),
        ids=("x", "y"),
    )
    assert where.query() == Query(
        type="email.*",
        priority="high",
        state="pending",
        older_than=5400,
        payload={"customer.id": 7, "name": "7", "city": "Bern", "ok": True},
        metadata={"tenant": "a=b"},
        ids=("x", "y"),
    )


@pytest.mark.parametrize("text", ["x", "=7", ""])
def test_a_condition_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(BadUse, match="^--payload: .*write NAME=VALUE"):
        Where(payload=(text,)).query()


@pytest.mark.parametrize("text", ["{", "[1]", "NaN", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": 1e999}'])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(BadUse, match="^--payload"):
        json_object("--payload", text)


def test_a_duration_flag_names_itself() -> None:
    assert length("--delay", None) is None
    assert length("--delay", "5m") == 300
    with pytest.raises(BadUse, match="^--delay: 'soon' is no duration"):
        length("--delay", "soon")
