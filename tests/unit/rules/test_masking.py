from __future__ import annotations

import html
import json
import textwrap
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.rules.error_text import cut, plain
from deadletter.rules.masking import MASK, Mask, may_touch_mask


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("s3cret", "login with s3cret failed"),
        ("s3cret", "login with S3CRET failed"),
        ('it\'s "s3cret"', 'ValueError("it\'s \\"s3cret\\"")'),
        ("it's s3cret", repr({"error": repr({"card": "it's s3cret", '"': 1})})),
        ("s3cret\nbreak", "got 's3cret\\nbreak'"),
        ("s3cret\nbreak", "  | got s3cret\n  | break\n"),
        ("s3cret\0x", plain(ValueError("s3cret\0x"))),
        ("grüße", 'body {"x": "gr\\u00fc\\u00dfe"}'),
        ("grüße", f"{'grüße'.encode()!r}"),
        ("grüße", urlencode({"x": "grüße"})),
        ("s3cret&more", f"<b>{html.escape('s3cret&more')}</b>"),
        ("s3cret/a b", quote("s3cret/a b")),
        ("s3cret/a b", quote("s3cret/a b", safe="")),
        ("s3cret/a b", quote_plus("s3cret/a b")),
        ("s3cret  a b", "got s3cret a b"),
        (" s3cret ", "got s3cret, a word"),
        ("4111 1111 1111 1111", "card 4111111111111111 declined"),
        (4111111111111111, "card 4111111111111111 declined"),
        (4111111111111111, "card 4,111,111,111,111,111 declined"),
        (1234.5, "amount 1234.5"),
        (41112222.0, "amount 41112222"),
        ({"a": ["s3cret"], "b": ({"c": "s3cret"},)}, "s3cret"),
        ([1, 2, {"s3cret": True}], "bad items [1, 2, {'s3cret': True}]"),
        ([1, 2, {"s3cret": True}], 'bad items [1,2,{"s3cret":true}]'),
        ("k" * 8 + "-" + "j" * 5_000, "key kkkkkkkk-" + "j" * 1_000),
        ("'s3cret'", "declined s3cret"),
        ("'s3cret-and-more...", "declined s3cret-and-more-of-it"),
        ("s3cret-4111-5500", f"{'s3cret-4111-5500'[:12]}... was declined"),
        ("s3cret-4111-5500", f"{'s3cret-4111-5500'[:12]!r}… was declined"),
    ],
)
def test_a_hidden_value_is_masked_in_every_form(value: Any, text: str) -> None:
    mask = Mask([value])
    masked = mask.text(text)
    assert MASK in masked
    assert mask.text(masked) == masked
    for scrap in ("s3cret", "break", "00fc", "grü", "%c3", "4111", "111,1", "1234", "kkkk", "jjjj"):
        assert scrap not in masked.lower()


@pytest.mark.parametrize("value", ["ab", "a-b", 12, True, None, [], "", 0])
def test_short_values_mask_nothing(value: Any) -> None:
    """They would mask half of every text."""
    mask = Mask([value])
    assert not mask
    assert mask.text("ab a-b 12 True 0") == "ab a-b 12 True 0"
    assert not mask.touches("ab a-b 12")


def test_three_characters_are_masked_as_a_word() -> None:
    mask = Mask(["123", 456])
    text = "cvv 123, (456) at 1.123, x123, 1234, line 123, in f\nValueError: 123"
    assert mask.text(text) == f"cvv {MASK}, ({MASK}) at 1.123, x123, 1234, line 123, in f\nValueError: {MASK}"


def test_a_value_inside_the_mask_masks_no_mask() -> None:
    assert Mask(["long secret", "redacted"]).text("long secret, redacted") == f"{MASK}, {MASK}"


def test_values_that_overlap_leave_nothing_between_them() -> None:
    assert Mask(["secret", "secretive", "tive-one"]).text("a secretive-one.") == f"a {MASK}."


@pytest.mark.parametrize("at", range(1, 20))
def test_a_cut_through_a_value_leaves_no_part_of_it(at: int) -> None:
    """A message keeps both ends: its cut may go right through what is hidden."""
    value = "4111-2222-3333-4444"
    head, tail = cut("x" * 1_950 + value + "y" * 4_000, 2_000), cut("x" * 4_000 + value + "y" * (980 - at), 2_000)
    for text in (head, tail, cut("x" * (985 - at) + value + "y" * 4_000, 2_000)):
        masked = Mask([value]).text(text)
        assert not any(value[n : n + 4] in masked for n in range(len(value) - 3))


def test_a_long_value_is_masked_wherever_16_characters_of_it_stand() -> None:
    value = "".join(chr(0x4E00 + n) for n in range(500))
    mask = Mask([value])
    for start in range(0, 400, 7):
        assert mask.text(f"<{value[start : start + 16]}>") == f"<{MASK}>"
    assert mask.text(value[3:17]) == value[3:17]


def test_many_and_large_values_take_no_time() -> None:
    """Each is found by what the text holds, not looked for one by one; pytest-timeout would tell."""
    lines = "\n".join(f"line-{n:06}" for n in range(50_000))
    mask = Mask([lines, "a" * 200_000, list(range(10_000, 40_000))])
    text = "x line-004711 y " + "a" * 15_000 + " 23456"
    assert mask.text(text) == f"x {MASK} y {MASK} {MASK}"


def test_what_is_too_deep_to_stand_in_a_message_is_masked_by_its_parts() -> None:
    deep: Any = "s3cret"
    for _ in range(2_000):
        deep = [deep]
    mask = Mask([deep])
    assert mask.text("[['s3cret']] s3cret") == f"{MASK} {MASK}"
    while isinstance(deep, list):  # taken apart by a loop: the interpreter would free it by recursion
        deep = deep.pop()


def test_what_is_no_text_is_touched_by_its_json() -> None:
    mask = Mask(["4711"])
    assert mask.touches(14711)
    assert mask.touches("x4711")
    assert not any(map(mask.touches, (None, True, 471, "")))
    assert not Mask([]).touches("x")


@pytest.mark.parametrize(
    ("text", "may"), [("refused", False), ("[r", True), ("d]", True), ("EDACT", True), ("x", False)]
)
def test_what_may_be_found_across_a_mask(text: str, may: bool) -> None:
    assert may_touch_mask(text) is may


def test_characters_that_grow_in_lower_case_move_no_place() -> None:
    assert Mask(["s3cret"]).text("İİ s3cret ẞ") == f"İİ {MASK} ẞ"


secrets = st.text(min_size=4, max_size=60).filter(lambda text: len(text.strip()) >= 4)
shown = st.sampled_from(
    [str, repr, json.dumps, ascii, quote, html.escape, lambda text: repr([text]), lambda text: json.dumps({"a": text})]
)


@given(st.lists(secrets, min_size=1, max_size=3), shown, st.text(alphabet="<> \n", max_size=20))
def test_no_form_of_a_value_survives(values: list[str], show: Any, around: str) -> None:
    mask = Mask(values)
    text = plain("".join(f"{around}{show(value)}{around}" for value in values))
    masked = mask.text(text)
    skeleton = f"{MASK}<> \n[]{{}}\"'a: ".lower()
    for value in values:
        if value.lower() not in skeleton:
            assert value not in masked
    assert masked == mask.text(masked) or any(value.lower() in skeleton for value in values)


@given(secrets, st.integers(10, 40))
def test_a_wrapped_value_shows_no_whole_line_of_it(value: str, width: int) -> None:
    wrapped = textwrap.indent(value, "  | ")
    masked = Mask([value]).text(wrapped)
    assert not any(len(line.strip()) >= 4 and line.strip() in masked for line in value.splitlines()) or MASK in masked
