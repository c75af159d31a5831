from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deadletter.rules.fingerprint import fingerprint, normalise, text_fingerprint


def caught(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def function(source: str, filename: str = "/srv/app/billing.py") -> Callable[..., object]:
    space: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), space)
    call: Callable[..., object] = space["charge"]
    return call


CHARGE = "def charge(text): raise ValueError(text)"


def cause(text: str = "declined", *, source: str = CHARGE, filename: str = "/srv/app/billing.py") -> str:
    call = function(source, filename)
    return fingerprint("billing", caught(lambda: call(text)))


def test_it_is_16_hexadecimal_digits() -> None:
    assert len(cause()) == 16
    int(cause(), 16)


def test_it_is_the_same_in_every_process_and_version() -> None:
    """It is stored: another algorithm would split every group at an upgrade."""
    assert text_fingerprint("billing", "worker_lost", "vanished") == "2690109e14a72618"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("card 17 declined", "card 4 declined"),
        ("took 3.5 s", "took 1e-9 s"),
        ("at 12:30:45", "at 9:01"),
        ("of 1,000,000", "of 5"),
        ("<Foo object at 0x7f12ab>", "<Foo object at 0x7fffffffff12>"),
        ("task 018f3c1e-7d0b-7c3a-9b5e-0123456789ab gone", "task ffffffff-ffff-7fff-bfff-ffffffffffff gone"),
        ("commit deadbeefcafe gone", "commit abcdefabcd gone"),
        ("no user 'bob'", 'no user "bob\'s"'),
        ("no user 'bob'", "no user 'it\\'s bob'"),
        ("no user 'bob' here", "no user 'Bob and Ann' here"),
        ("unknown key `a`", "unknown key `b c`"),
        ("not “this”", "not “that one”"),
        ("mail bob@example.com bounced", "mail ann.o+x@b.co bounced"),
        ("GET https://a.example/x?y=z failed", "GET https://b.example/ failed"),
        ("host 10.0.0.1:80 down", "host ::1 down"),
        ("host 10.0.0.1 down", "host fe80::1%eth0 down"),
        ("no file /home/bob/x.txt here", "no file ~/y here"),
        ("no file C:\\a\\b here", "no file ./b here"),
        ("ids [1, 2, 3] unknown", "ids [4] unknown"),
        ("key=abc1 bad", "key=b2 bad"),
        ("order ord-12a late", "order ord-9 late"),
        ("order 1 late", "order\n 2  late"),
        ("balance -5 too low", "balance 12 too low"),
        (f"no user '{'x' * 600}", f"no user '{'y' * 9_000}"),
        (f"no user '{'x' * 90}' in the list of users", f"no user '{'x' * 300}' in the list of users"),
        ("12 " + "word " * 90, "1234567890 " + "word " * 90),
    ],
)
def test_values_in_a_message_split_no_group(one: str, other: str) -> None:
    assert cause(one) == cause(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("card declined", "gateway away"),
        ("can't connect", "can't read"),
        ("and/or", "and"),
        ("", "x"),
        ("it wasn't 'x' but red", "it wasn't 'x' but blue"),
    ],
)
def test_other_words_are_another_cause(one: str, other: str) -> None:
    assert cause(one) != cause(other)


def test_lines_and_folders_that_moved_split_no_group() -> None:
    moved = "import os\n\n\n# more\n" + CHARGE.replace("raise", "\n  raise")
    assert cause() == cause(source=moved, filename="/srv/releases/2/app/billing.py")


@pytest.mark.parametrize(
    "other",
    [
        cause(source=CHARGE.replace("ValueError", "TypeError")),
        cause(source="def refund(text): raise ValueError(text)\ndef charge(text): refund(text)"),
        cause(filename="/srv/app/shipping.py"),
        fingerprint("shipping", caught(lambda: function(CHARGE)("declined"))),
    ],
    ids=["error type", "function", "file", "task type"],
)
def test_another_type_or_place_is_another_cause(other: str) -> None:
    assert cause() != other


def test_notes_take_no_part() -> None:
    def noted(text: str) -> str:
        error = caught(lambda: function(CHARGE)("declined"))
        error.add_note(text)
        return fingerprint("billing", error)

    assert noted("one") == noted("another")


def test_an_error_without_traceback_is_told_by_its_message() -> None:
    error = ValueError("worker 5 vanished")
    assert fingerprint("t", error) == text_fingerprint("t", "ValueError", "worker 6 vanished")
    assert fingerprint("t", error) != text_fingerprint("t", "ValueError", "expired")


def test_a_lone_surrogate_has_a_fingerprint() -> None:
    assert text_fingerprint("t", "E", "\ud800") != text_fingerprint("t", "E", "x")


def test_a_group_is_told_by_what_is_in_it() -> None:
    def grouped(*errors: Exception) -> str:
        return fingerprint("t", ExceptionGroup("unhandled errors in a TaskGroup", list(errors)))

    one = grouped(ValueError("card 1 declined"), KeyError("x"))
    assert one == grouped(KeyError("y"), ExceptionGroup("g", [ValueError("card 2 declined")]), KeyError("z"))
    assert one != grouped(ValueError("card 1 declined"), TypeError("x"))


def test_the_first_causes_of_a_large_group_tell_it() -> None:
    errors = [ValueError(n) for n in range(10_000)]
    assert fingerprint("t", ExceptionGroup("g", errors)) == fingerprint("t", ExceptionGroup("g", errors[:1]))


@given(st.text(max_size=120))
@example("'")
@example('"\\')
@example("#'a' 5't")
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(st.text(max_size=60), st.integers(0), st.integers(0))
def test_a_number_after_any_words_splits_no_group(words: str, one: int, other: int) -> None:
    assert normalise(f"{words} {one}") == normalise(f"{words} {other}")


@given(st.text(st.sampled_from("a1'\"`/\\.:@-+#, \n%~“«[("), max_size=500))
def test_no_digit_survives(text: str) -> None:
    assert not any(character.isdigit() for character in normalise(text))


@pytest.mark.parametrize(
    "unit", ["a", "'", '"', "\\", "/", "a@", "a:", "1", ".", "#", "# ", "a.", "'a\\", "`", "-+", "a://"]
)
def test_hostile_text_takes_no_time(unit: str) -> None:
    """10 MB of it is cut first, and 500 characters are one pass: together some ms where a second is allowed."""
    huge = unit * 10_000_000
    started = time.perf_counter()
    normalise(huge)
    for number in range(10):
        normalise(chr(ord("A") + number) + huge[:500])
    assert time.perf_counter() - started < 1
