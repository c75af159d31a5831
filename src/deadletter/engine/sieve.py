"""Which rows a query means, without making a record of each row that it does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..model.errors import Undecodable
from ..model.query import Query, glob_match, is_glob
from ..model.row import Row
from ..model.task import from_ms
from ..rules.codec import JsonCodec
from ..rules.machine import brought
from ..rules.masking import may_touch_mask

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

_IN_TASK = ("idempotency_key", "metadata", "payload")
_IN_FAILURE = ("error_contains", "release")
_PLAIN = re.compile(r"[A-Za-z0-9 ._:@+-]+")
_LARGE = 10**15  # a float of more may be written with an exponent
_RANK = {"high": 0, "normal": 1, "low": 2}


class Sieve:
    """Judges rows as ``Query.matches`` judges their records; the query is resolved, of one state, and names no ids.

    Attributes:
        body: rows must bring their body to be judged.
        history: how much of it they must bring.
        lean: their other columns may be those of a lean scan.
        countable: the columns that a Scan narrows by decide, so that a store can count.
    """

    def __init__(self, queue: DeadLetterQueue, wanted: Query) -> None:
        self._queue = queue
        self._wanted = wanted
        of_task = any(getattr(wanted, name) is not None for name in _IN_TASK)
        of_failure = any(getattr(wanted, name) is not None for name in _IN_FAILURE)
        viewed = queue.masked and (of_task or of_failure)  # what a viewer may not see must not answer guesses
        self.body = of_task or viewed
        self.history = int(of_failure or viewed)
        self.lean = not viewed
        self.countable = not self.body and not self.history and not (wanted.type is not None and is_glob(wanted.type))
        self._tests = [*_tests(wanted), *([self._holds_task] if of_task else [])]
        self._signs = _signs(wanted, masked=viewed) if type(queue.codec) is JsonCodec else ()
        if viewed:
            # What is shown holds no more than what is stored, but for masks, which the text does not touch where it is
            # among the fields: so what is not stored need not be made a record of.
            text = self.fields.get("text")
            rough = [self._bears_signs, *([] if text is None else [_text_test(text)])]
            self._tests = [*rough, lambda row: wanted.matches(queue.record(row))]

    @property
    def fields(self) -> dict[str, Any]:
        """What a Scan may be narrowed by, to the millisecond."""
        fields = self._queue.scan_fields(self._wanted)
        newer = self._wanted.newer_than
        if isinstance(newer, datetime) and from_ms(fields["since_ms"]) < newer:
            fields["since_ms"] += 1
        return fields

    def of(self, rows: Iterable[Row]) -> list[Row]:
        """Those that the query means."""
        return [row for row in rows if self._holds(row)]

    def _holds(self, row: Row) -> bool:
        return all(test(row) for test in self._tests)

    def _bears_signs(self, row: Row) -> bool:
        body = row.body
        return body is None or all(sign in body for sign in self._signs)

    def _holds_task(self, row: Row) -> bool:
        if not self._bears_signs(row):
            return False
        try:
            return self._wanted.matches_task(self._queue.decode(row))
        except Undecodable:  # it is shown with an empty payload, which may be what is asked for
            return self._wanted.matches_task(self._queue.record(row).task)


def _signs(wanted: Query, *, masked: bool) -> tuple[bytes, ...]:
    """Bytes that stand in the JSON of every task that is meant: to look for them takes a tenth of decoding it.

    ``masked``: what is meant is what is shown, which holds masks that are not stored.
    """
    named = [
        *(wanted.metadata or {}).items(),
        *((path.split(".")[-1], v) for path, v in (wanted.payload or {}).items()),
    ]
    if wanted.idempotency_key is not None:
        named.append(("k", wanted.idempotency_key))
    if masked:
        named = [(name, value) for name, value in named if not may_touch_mask(str(value))]
    return tuple(sign for name, value in named if (sign := _sign(name, value)) is not None)


def _sign(name: str, value: object) -> bytes | None:
    if isinstance(value, str) and _PLAIN.fullmatch(value):  # nothing in it can be written in two ways
        text = f'"{value}"'
    elif isinstance(value, int | float) and value == int(value) and 1 <= abs(value) < _LARGE and value is not True:
        text = str(int(value))  # stored as 7, or as 7.0; while 0 may be -0.0
    else:
        return None
    if _PLAIN.fullmatch(name) and not name.isdigit():  # which may be a place in a list
        text = f'"{name}":{text}'
    return text.encode()


def _tests(wanted: Query) -> Iterator[Callable[[Row], bool]]:
    """Tests of columns, which a backend need not narrow by, and of the last failure."""
    if wanted.priority is not None:
        rank = _RANK[wanted.priority]
        yield lambda row: row.priority == rank
    if wanted.reason is not None:
        yield lambda row: row.reason == wanted.reason
    if wanted.fingerprint is not None:
        yield lambda row: row.fingerprint == wanted.fingerprint
    if wanted.error_type is not None:
        yield lambda row: row.error_type == wanted.error_type
    pattern, older, newer = wanted.type, wanted.older_than, wanted.newer_than
    if pattern is not None:
        yield lambda row: glob_match(pattern, row.type)
    if isinstance(older, datetime):
        yield lambda row: from_ms(row.time_ms) <= older
    if isinstance(newer, datetime):
        yield lambda row: from_ms(row.time_ms) >= newer
    if wanted.release is not None:
        yield lambda row: any(failure.release == wanted.release for failure in brought(row.history, 1))
    if wanted.error_contains is not None:
        yield _text_test(wanted.error_contains.casefold())


def _text_test(needle: str) -> Callable[[Row], bool]:
    def test(row: Row) -> bool:
        return any(
            needle in part.casefold()
            for failure in brought(row.history, 1)
            for part in (failure.error_type, failure.message, failure.traceback)
        )

    return test
