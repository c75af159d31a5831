"""Inputs without end from a seed: those of the corpus, changed byte by byte or value by value.

Each number gives its input by itself, so that any one of a million can be made again alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import orjson

NASTY_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 0.1, 1e308, -0.0, 5e-324),
    *(
        "",
        " ",
        "\0",
        "\ud7ff",
        "\u2028",
        "\x1b[31m",
        "a" * 1001,
        "*",
        "\\*",
        "..",
        "a.b",
        "=1+1",
        "{{7*7}}",
        "<script>",
    ),
    *("inf", "nan", "-0", "1e999", "0x1", "١", "9" * 400, "9" * 4400, "-" + "9" * 30, "1" * 19, "dead", "normal"),
    *("2026-01-31T12:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "2026-01-31T12:00:00"),
    *(
        "2026-03-29T02:30:00+01:00[Europe/Berlin]",
        "2026-01-01T00:00:00+00:00[../x]",
        "[",
        "AA==",
        "AAA",
        "=",
        "$redacted",
    ),
    *(
        [],
        {},
        [[]],
        {"": ""},
        {"$redacted": True},
        {"$type": "int", "value": 1},
        {"$type": [], "value": {}},
        [1, "1", None],
    ),
)
NASTY_BYTES = (
    *(
        b"\0",
        b"\xff",
        b"\xfe\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\x1b[2J",
        b"%00",
        b"\\u0000",
        b"\\ud800",
    ),
    *(
        b"1e999",
        b"-1e-999",
        b"NaN",
        b"Infinity",
        b"9" * 4400,
        b"[" * 300,
        b'{"a":' * 120,
        b"*" * 50,
        b"\\*",
        b"://",
        b"@",
        b":",
    ),
    *(
        b"?shards=0",
        b"&durability=wait:x",
        b"%",
        b"[::1",
        b"=",
        b",",
        b"7d",
        b"1h30m",
        b"none",
        b'"',
        b"}",
        b"]",
        b"\x1f",
    ),
)


class Mutator:
    """Makes inputs out of a corpus."""

    def __init__(self, corpus: Sequence[bytes], seed: int, *, head: int = 0) -> None:
        self._corpus = corpus
        self._documents = [self._document(data[head:]) for data in corpus]
        self._seed = seed
        self._head = head

    @staticmethod
    def _document(data: bytes) -> Any:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            return None

    def make(self, number: int) -> bytes:
        """The input of this number."""
        dice = random.Random(f"{self._seed}:{number}")
        at = dice.randrange(len(self._corpus))
        document = self._documents[at]
        if isinstance(document, dict | list) and dice.random() < 0.7:
            changed = document
            for _ in range(dice.choice((1, 1, 2, 4))):
                changed = self._changed(changed, dice, 6)
            head = self._corpus[at][: self._head] if dice.random() < 0.5 else dice.randbytes(self._head)
            try:
                return head + orjson.dumps(changed)
            except TypeError:  # an integer that JSON does not hold
                return head
        return self._scrambled(self._corpus[at], dice)

    def _changed(self, value: Any, dice: random.Random, depth: int) -> Any:
        if not isinstance(value, dict | list) or depth == 0 or dice.random() < 0.1:
            return dice.choice(NASTY_VALUES)
        if isinstance(value, list):
            return self._changed_list(value, dice, depth)
        names = list(value)
        what = dice.randrange(8)
        if not names or what == 0:
            return {**value, dice.choice(("a", "b", "", "$type", "x" * 300, *names)): dice.choice(NASTY_VALUES)}
        name = dice.choice(names)
        if what == 1:
            return {key: part for key, part in value.items() if key != name}
        return {**value, name: self._changed(value[name], dice, depth - 1)}

    def _changed_list(self, value: list[Any], dice: random.Random, depth: int) -> list[Any]:
        if not value or dice.random() < 0.2:
            return [*value, dice.choice(NASTY_VALUES)]
        at = dice.randrange(len(value))
        if dice.random() < 0.2:
            return value[:at] + value[at + 1 :]
        return [*value[:at], self._changed(value[at], dice, depth - 1), *value[at + 1 :]]

    def _scrambled(self, data: bytes, dice: random.Random) -> bytes:
        for _ in range(dice.choice((0, 1, 1, 2, 4, 8))):
            at, end = sorted((dice.randint(0, len(data)), dice.randint(0, len(data))))
            what = dice.randrange(6)
            if what == 0 and data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
            elif what == 1:
                data = data[:at] + dice.choice(NASTY_BYTES) + data[at:]
            elif what == 2:
                data = data[:at] + data[end:]
            elif what == 3:
                data = data[:end] + data[at:end] * dice.choice((1, 2, 20)) + data[end:]
            elif what == 4:
                other = dice.choice(self._corpus)
                data = data[:at] + other[dice.randint(0, len(other)) :]
            else:
                data = data[:at] + dice.randbytes(dice.randint(1, 4)) + data[end:]
            data = data[:20_000]
        return data
