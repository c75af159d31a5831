"""Filters: the same fields as the API's, in the URL of a page, so that a view can be shared and bookmarked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

import attrs

from ...model.query import Query
from ...model.record import Reason, State
from ...model.task import Priority
from ..asking import from_url, query_of
from ..fields import QUERY, taking
from ..problems import Problem
from ..site import Call

FIELDS = taking(*QUERY, "task_type", "older_than_days", "cursor", "limit")
LABELS: Mapping[str, str] = {
    "type": "type",
    "priority": "priority",
    "state": "state",
    "error_contains": "text",
    "error_type": "error",
    "fingerprint": "cause",
    "reason": "reason",
    "older_than": "died before",
    "newer_than": "died within",
    "idempotency_key": "key",
    "metadata": "metadata",
    "payload": "payload",
    "release": "release",
    "ids": "ids",
    "task_type": "type",
    "older_than_days": "days and older",
}
CONTINUED = ("found", "whole")  # what a page says to itself where its search goes on
_OWN = frozenset({"told", "cursor", "limit"})
CHOICES = {
    "priority": [str(word) for word in Priority],
    "reason": [str(word) for word in Reason],
    "state": [State.DEAD, State.PENDING, State.RUNNING, State.SUCCEEDED],
}

Pairs = list[tuple[str, str]]


@attrs.frozen
class Chip:
    """One filter that is set: its name, its text, and the URL's query without it."""

    label: str
    text: str
    without: str


@attrs.frozen
class Filters:
    """What a URL, or a form, asks for.

    Attributes:
        pairs: names and texts of the conditions, in their order; nothing empty.
        query: what they mean; as the default where they cannot be meant.
        values: those of ``cursor`` and ``limit`` among them.
        errors: what cannot be meant, by field.
    """

    pairs: Pairs
    query: Query
    values: Mapping[str, Any]
    errors: Mapping[str, str]

    @classmethod
    def of(cls, given: Iterable[tuple[str, str]]) -> Filters:
        """The filters in names and texts; unknown names are told among the errors."""
        texts = [(name, text.strip()) for name, text in given if text.strip() and name not in ("told", *CONTINUED)]
        pairs = [(name, text) for name, text in texts if name not in _OWN]
        try:
            values = from_url(texts, FIELDS)
            return cls(pairs, query_of(values), values, {})
        except Problem as problem:
            errors = {error["field"]: error["detail"] for error in problem.errors} or {"": problem.detail}
            return cls(pairs, Query(), {}, errors)

    @property
    def checked(self) -> Query:
        """The query; raises Problem 400 where a filter cannot be meant."""
        if self.errors:
            told = [{"field": field, "detail": detail} for field, detail in self.errors.items()]
            raise Problem(400, "; ".join(f"{field}: {detail}" for field, detail in self.errors.items()), errors=told)
        return self.query

    @property
    def url(self) -> str:
        """The URL's query."""
        return urlencode(self.pairs)

    def text(self, name: str) -> str:
        """What stands in a field of the form."""
        return ", ".join(text for known, text in self.pairs if known == name)

    def but(self, **others: str | None) -> str:
        """The URL's query with other conditions; None leaves one out."""
        kept = [(name, text) for name, text in self.pairs if name not in others]
        return urlencode([*kept, *((name, text) for name, text in others.items() if text is not None)])

    @property
    def chips(self) -> list[Chip]:
        """What is set, without the state, which has tabs of its own."""
        return [
            Chip(LABELS.get(name, name), text, urlencode([*self.pairs[:at], *self.pairs[at + 1 :]]))
            for at, (name, text) in enumerate(self.pairs)
            if name != "state"
        ]


def of_url(call: Call) -> Filters:
    """The filters in a page's URL."""
    return Filters.of(call.request.query_params.multi_items())
