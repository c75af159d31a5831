"""A sieve judges rows as a query judges their records, without making them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadletter import DeadLetterQueue, Query
from deadletter.engine.sieve import Sieve
from deadletter.model.record import EDITED
from deadletter.model.row import FailureRow, Row
from deadletter.model.task import from_ms
from deadletter.rules.codec import JsonCodec
from deadletter.views import Viewer

NOW_MS = 1_800_000_000_000
DLQ = DeadLetterQueue("memory://")

numbers = st.sampled_from([0, -0.0, 1, 7, 7.0, -7, 1.5, 10**15, 10**15 + 1, 1e16, 1e22, 2**53, True, False, None])
texts = st.sampled_from(["", "a", "7", "a b", 'qu"ote', "back\\slash", "größe", "a/b", "\x7f", "deep.er"])
names = texts.filter(bool)
scalars = numbers | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2))
payloads = st.dictionaries(st.sampled_from(["a", "b"]), values | st.fixed_dictionaries({"c": values}))


@st.composite
def rows(draw: st.DrawFn) -> Row:
    document = {"p": draw(payloads)}
    if draw(st.booleans()):
        document |= {"k": draw(names), "m": {"tenant": draw(texts)}}
    failures = [
        FailureRow(attempt=1, error_type=type_, message=message, traceback="T\n", fingerprint="f", release=release)
        for type_, message, release in draw(
            st.lists(st.tuples(st.sampled_from(["E", "F", EDITED]), texts, st.sampled_from([None, "r1"])), max_size=3)
        )
    ]
    last = next((failure for failure in reversed(failures) if failure.error_type != EDITED), None)
    body = draw(st.sampled_from([JsonCodec().encode(document)] * 8 + [None, b"no json"]))
    return Row(
        "id",
        draw(st.sampled_from(["email.send", "email.bounce", "sms"])),
        draw(st.integers(0, 2)),
        "dead",
        created_ms=NOW_MS,
        ended_ms=NOW_MS + draw(st.integers(0, 3)),
        reason=draw(st.sampled_from(["rejected", "permanent"])),
        fingerprint=last.fingerprint if last else None,
        error_type=last.error_type if last else None,
        release=draw(st.sampled_from([None, "r1"])),
        redact=draw(st.sampled_from(["", "a", "a.c"])),
        body=body,
        history=failures,
    )


times = st.sampled_from([from_ms(NOW_MS + n) + timedelta(microseconds=us) for n in range(4) for us in (0, 1, 999)])
queries = st.builds(
    Query,
    type=st.sampled_from([None, None, "sms", "email.*"]),
    priority=st.sampled_from([None, None, "high", "low"]),
    reason=st.sampled_from([None, None, "rejected"]),
    error_type=st.sampled_from([None, None, "E"]),
    fingerprint=st.sampled_from([None, None, "f"]),
    release=st.sampled_from([None, None, "r1"]),
    older_than=st.none() | times,
    newer_than=st.none() | times,
    error_contains=st.sampled_from([None, None, "A", "größe"]),
    idempotency_key=st.none() | names,
    metadata=st.none() | st.fixed_dictionaries({"tenant": names}),
    payload=st.none()
    | st.dictionaries(st.sampled_from(["a", "b", "a.c"]), values.filter(lambda v: v != {}), max_size=1),
)


@settings(max_examples=250)
@given(query=queries, row=rows())
def test_it_judges_a_row_as_the_query_judges_its_record(query, row):
    expected = query.matches(DLQ.record(row))
    assert (Sieve(DLQ, query).of([row]) == [row]) is expected
    fields = Sieve(DLQ, query).fields
    if expected:
        assert fields.get("since_ms", 0) <= row.time_ms <= fields.get("until_ms", row.time_ms)


def twins(value):
    """Values that are equal to it, but may be written otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [value]
    return [value, float(value), *([int(value), -value] if value == int(value) and value == 0 else [])]


@settings(max_examples=150)
@given(query=queries, row=rows())
def test_through_a_view_it_judges_what_is_shown(query, row):
    """What a view hides matches nothing, in a payload or in a text."""
    seen = Viewer().queue(DLQ)
    assert (Sieve(seen, query).of([row]) == [row]) is query.matches(seen.record(row))


@given(value=values, name=names, payload=payloads)
def test_a_payload_is_found_by_each_value_in_it(value, name, payload):
    """The bytes that are looked for first stand in every body with the value, however that is written."""
    for stored in twins(value):
        for asked in twins(value):
            document = {"p": payload | {"a": {name: stored}, "l": [stored]}}
            row = Row("id", "t", 1, "dead", ended_ms=NOW_MS, body=JsonCodec().encode(document))
            if "." not in name:
                assert Sieve(DLQ, Query(payload={f"a.{name}": asked})).of([row]) == [row]
            assert Sieve(DLQ, Query(payload={"l.0": asked})).of([row]) == [row]


@pytest.mark.parametrize(
    ("query", "countable", "history", "body"),
    [
        (Query(), True, 0, False),
        (Query(type="a", priority="high", newer_than=5), True, 0, False),
        (Query(type="a.*"), False, 0, False),
        (Query(release="1"), False, 1, False),
        (Query(error_contains="x", payload={"a": 1}), False, 1, True),
    ],
)
def test_it_asks_for_no_more_than_it_needs(query, countable, history, body):
    sieve = Sieve(DLQ, query)
    assert (sieve.countable, sieve.history, sieve.body) == (countable, history, body)


def test_another_codec_decides_alone_what_its_bytes_mean():
    class Backwards(JsonCodec):
        def encode(self, document):
            return super().encode(document)[::-1]

        def decode(self, body):
            return super().decode(body[::-1])

    queue = DeadLetterQueue("memory://", codec=Backwards())
    row = Row("id", "t", 1, "dead", ended_ms=NOW_MS, body=queue.codec.encode({"p": {"a": "abc"}}))
    assert Sieve(queue, Query(payload={"a": "abc"})).of([row]) == [row]
