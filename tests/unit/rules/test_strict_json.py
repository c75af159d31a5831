"""JSON that strangers write."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.model.errors import InvalidTask
from deadletter.rules.strict_json import MAX_DEPTH, check_json, child, loads_strict, short, too_deep

HOSTILE: list[tuple[str | bytes, str, str]] = [
    ("NaN", "body", "NaN is no JSON"),
    ('{"a": -Infinity}', "body", "-Infinity is no JSON"),
    ('{"a": [1e999]}', "body.a[0]", "inf has no JSON form"),
    ('{"a": 1, "b": {"c": 1, "c": 2}}', "body", 'the key "c" is given twice'),
    ('{"a": 18446744073709551616}', "body.a", "64 bits"),
    ('{"a": ' + "9" * 5_000 + "}", "body.a", "64 bits"),
    ('{"a": -' + "9" * 5_000 + "}", "body.a", "64 bits"),
    ('{"a": "\\ud800"}', "body.a", "lone surrogate"),
    ('{"\\udfff": 1}', "body", "lone surrogate"),
    ("[" * 100_000, "body", "nested deeper than 100"),
    ('{"a":' * 100_000 + "1" + "}" * 100_000, "body", "nested deeper than 100"),
    ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "body" + "[0]" * MAX_DEPTH, "nested deeper than 100"),
    (b"\xff", "body", "byte 0"),
    ("\ud800", "body", "byte 0"),
    ("{", "body", "line 1 column 2"),
    ("", "body", "line 1 column 1"),
    ("\ufeff{}", "body", "BOM"),
    ("1 2", "body", "Extra data"),
]


@pytest.mark.parametrize(("text", "field", "problem"), HOSTILE)
def test_hostile_text_is_refused(text: str | bytes, field: str, problem: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        loads_strict(text, max_bytes=10_000_000)
    assert caught.value.field == field
    assert problem in caught.value.problem


def test_the_size_comes_first() -> None:
    """Bytes are counted, not characters, and nothing is parsed."""
    assert loads_strict('"é"', max_bytes=4) == "é"
    with pytest.raises(InvalidTask, match="line 3: is 4 bytes, more than 3"):
        loads_strict('"é"', max_bytes=3, field="line 3")


def test_numbers_stay_exact() -> None:
    text = f"[{2**64 - 1}, {-(2**63)}, 0.1, -0, 1.0]"
    assert loads_strict(text, max_bytes=100) == [2**64 - 1, -(2**63), 0.1, 0, 1.0]
    assert [type(value) for value in loads_strict("[1, 1.0]", max_bytes=100)] == [int, float]


@given(st.binary(max_size=100) | st.text(max_size=100))
def test_nothing_but_invalid_task_is_raised(text: str | bytes) -> None:
    with contextlib.suppress(InvalidTask):
        check_json(loads_strict(text, max_bytes=50), "again")


@pytest.mark.parametrize(("levels", "deep"), [(1, False), (2, False), (3, True), (5, True)])
def test_too_deep(levels: int, deep: bool) -> None:
    document: Any = []
    for _ in range(levels - 1):
        document = [{}, document, 1] if isinstance(document, list) else [document]
    assert too_deep(document, 2) is deep


def test_paths_and_short_values() -> None:
    assert child("", "a") == "a"
    assert child("a", "b") == "a.b"
    assert child("a", 'b "') == r'a["b \""]'
    assert len(short("x" * 100)) == 80
    assert short(b"x") == "b'x'"
