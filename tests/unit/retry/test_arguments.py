from __future__ import annotations

from datetime import timedelta

import pytest

from deadletter.retry.arguments import LONGEST, number, seconds, whole


def test_ends_of_a_range_belong_to_it() -> None:
    assert (number("n", 0, 0, 1), number("n", 1, 0, 1)) == (0.0, 1.0)
    assert (seconds("d", 0), seconds("d", LONGEST), seconds("d", 2, low=2, high=2)) == (0.0, float(LONGEST), 2.0)
    assert whole("w", 0) == 0


def test_answers_floats() -> None:
    assert isinstance(number("n", 1, 0, 1), float)
    assert isinstance(seconds("d", 1), float)
    assert seconds("d", timedelta(milliseconds=1_500)) == 1.5


def test_a_message_names_argument_value_and_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"^n is 2; give a number from 0 to 1$"):
        number("n", 2, 0, 1)
    with pytest.raises(ValueError, match=r"^d is True; give a timedelta, or seconds from 0 to 60$"):
        seconds("d", True, high=60)
    with pytest.raises(ValueError, match=r"^w is -1; give a whole number from 0 up$"):
        whole("w", -1)
