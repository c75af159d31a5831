"""Every field that a request may have, in a URL or in a JSON body, in one table.

The fields of a ``Query`` among them, so that URLs of the API and of the dashboard, and bodies, are read alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from ..engine.reading import LONGEST_PAGE
from ..model.record import Reason, State
from ..model.task import Priority
from . import field_kinds as kinds

MOST_LETTERS = 100_000_000  # limit of a bulk call
FASTEST = 100_000  # letters a second
LONGEST_PATIENCE = 60  # seconds
GROUPED_BY = ("fingerprint", "type", "reason", "error_type", "worker", "release")


@attrs.frozen
class Field:
    """One field.

    Attributes:
        name: as it is written.
        schema: its JSON Schema.
        check: takes the JSON value and answers what it means; raises ValueError with the rest of a sentence.
        told: what it means, for people.
        from_text: takes the text of a URL and answers the JSON value; raises ValueError likewise.
        in_url: the JSON Schema of its texts in a URL, where that is another.
        many: may stand in a URL several times; ``from_text`` then takes all of them.
    """

    name: str
    schema: Mapping[str, Any]
    check: Callable[[Any], Any]
    told: str
    from_text: Callable[[Any], Any] = str
    many: bool = False
    in_url: Mapping[str, Any] | None = None


def _switch(name: str, told: str) -> Field:
    return Field(name, {"type": "boolean"}, kinds.switch, told, kinds.switch_text)


_OF_QUERIES = (
    Field("type", *kinds.text(), "a type, or a glob such as email.* (\\* is a literal star)"),
    Field("priority", *kinds.one_of(Priority), "of this priority"),
    Field("state", *kinds.one_of(State), "in this state; dead where it is left out"),
    Field("error_contains", *kinds.text(), "text in the last error's type, message or traceback, in any case"),
    Field("error_type", *kinds.text(), "the last error's type, such as TimeoutError"),
    Field("fingerprint", *kinds.text(), "of this cause, as groups shows it"),
    Field("reason", *kinds.one_of(Reason), "dead for this reason"),
    Field(
        "older_than", kinds.AGE, kinds.age, "died at least so long ago, or before: 604800, 7d, a time", kinds.age_text
    ),
    Field("newer_than", kinds.AGE, kinds.age, "died at most so long ago, or after", kinds.age_text),
    Field("idempotency_key", *kinds.text(), "with this idempotency key"),
    Field(
        "metadata",
        {**kinds.PAIRS, "additionalProperties": kinds.text()[0]},
        kinds.object_,
        "these names have these texts; in a URL NAME=TEXT",
        kinds.pairs_text(str),
        many=True,
        in_url=kinds.PAIRS_IN_URL,
    ),
    Field(
        "payload",
        kinds.PAIRS,
        kinds.object_,
        "these dotted paths have these JSON values; in a URL PATH=VALUE, such as customer.id=7",
        kinds.pairs_text(kinds.json_or_text),
        many=True,
        in_url=kinds.PAIRS_IN_URL,
    ),
    Field("release", *kinds.text(), "the last error happened under this release"),
    Field("ids", kinds.IDS, kinds.ids, "one of these ids; none matches nothing", kinds.listed_text, many=True),
)

_OTHERS = (
    Field("task_type", *kinds.text(), "type by another name"),
    Field("older_than_days", *kinds.number(0, kinds.MOST_DAYS), "died at least so many days ago", kinds.number_text),
    Field(
        "limit", *kinds.whole(1, LONGEST_PAGE), "at most so many on a page; 50 where it is left out", kinds.number_text
    ),
    Field("at_most", *kinds.whole(0, MOST_LETTERS), "change at most so many, oldest death first", kinds.number_text),
    Field("cursor", *kinds.text(), "next_cursor of the page before"),
    Field(
        "patience",
        *kinds.number(0, LONGEST_PATIENCE),
        "look for about so many seconds, then answer with what was found so far and a cursor that goes on; 10 where it"
        " is left out",
        kinds.number_text,
    ),
    Field("by", *kinds.one_of(GROUPED_BY), "what the letters of a group share"),
    Field("task_id", *kinds.text(200), "the letter's id"),
    _switch("reset_attempts", "count attempts from the start again; true where it is left out"),
    Field(
        "edited_payload",
        {"type": "object"},
        kinds.object_,
        'run with this payload instead; {"$redacted": true} keeps a hidden value (wants admin)',
    ),
    Field("edited_type", *kinds.text(200), "run it as this type instead (wants admin)"),
    Field("delay", kinds.AGE, kinds.delay, "not before so many seconds from now, or such as 5m"),
    Field("why", *kinds.text(500), "kept with what happens"),
    Field("rate", *kinds.number(0, FASTEST, above=True), "at most so many a second", kinds.number_text),
    _switch("dry_run", "only say how many match"),
    _switch("everything", "all of them, where there is no condition"),
    Field(
        "cutoff",
        kinds.TIME,
        kinds.time_,
        "leave alone what died after this time; that of an earlier answer",
        kinds.age_text,
    ),
    Field("types", *kinds.text(400), "a type, or a glob such as email.*; * is all"),
    Field("kinds", kinds.KINDS, kinds.kinds, "only these kinds of events", kinds.listed_text, many=True),
)

QUERY: tuple[str, ...] = tuple(field.name for field in _OF_QUERIES)
FIELDS: Mapping[str, Field] = {field.name: field for field in (*_OF_QUERIES, *_OTHERS)}


def taking(*names: str, **written: str) -> Mapping[str, Field]:
    """The fields of one request, by the name they are written under: mostly their own."""
    return {**{name: FIELDS[name] for name in names}, **{name: FIELDS[field] for name, field in written.items()}}
