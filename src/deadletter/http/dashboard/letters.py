"""The list of letters: filters in the URL, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import urlencode

import attrs
from starlette.responses import RedirectResponse, Response

from ...engine.reading import LONGEST_PAGE
from ...model.record import Page, Searched, State
from ..problems import problem_of
from ..site import Call
from .filters import CHOICES, CONTINUED, Filters, of_url
from .pages import page, render

PATIENCE = 1.0  # seconds that one request looks for a rare text: no index finds it, and the next goes on
_PAGE = 50
_OWN = ("cursor", "told", *CONTINUED)


@attrs.frozen
class Looking:
    """A search that has not filled its page yet.

    Attributes:
        searched: how far it came.
        url: the URL's query that goes on.
    """

    searched: Searched
    url: str

    @property
    def percent(self) -> int | None:
        """How far, in per cent; None where the store cannot tell."""
        if self.searched.looked_at is None or not self.searched.of:
            return None
        return min(99, self.searched.looked_at * 100 // self.searched.of)


@attrs.frozen
class Sum:
    """How many match: ``n``, or at least so many, or so many so far."""

    n: int
    word: Literal["exactly", "at least", "so far"]


@page
async def letters(call: Call) -> Response:
    """A page of what the URL's filters match."""
    given = call.request.query_params.multi_items()
    if any(not text.strip() for _, text in given):  # as a form sends it; what is left can be shared
        kept = urlencode([(name, text.strip()) for name, text in given if text.strip()])
        return RedirectResponse(call.link("/letters") + (f"?{kept}" if kept else ""), 303)
    filters = of_url(call)
    found, errors = Page(items=()), dict(filters.errors)
    before = _before(dict(given))
    if not errors:
        limit = filters.values.get("limit", _PAGE)
        try:
            found = await call.site.seen.list(
                filters.query,
                cursor=filters.values.get("cursor"),
                limit=max(1, limit - before),
                patience=PATIENCE,
            )
        except ValueError as error:
            problem = problem_of(error)
            if problem is None:
                raise
            errors = {one["field"]: one["detail"] for one in problem.errors} or {"": problem.detail}
    whole = "cursor" not in filters.values or "whole" in dict(given)
    return render(
        call,
        "letters.html",
        status=400 if errors else 200,
        filters=filters,
        errors=errors,
        found=found,
        sum=_sum(found, before, whole=whole),
        looking=_looking(call, found, before, whole=whole),
        state=str(filters.query.state or State.DEAD),
        tabs=_tabs(filters),
        choices=CHOICES,
        more=_more(call, found),
        types=await _types(call),
        narrowed=filters.query.has_condition,
    )


def _before(given: Mapping[str, str]) -> int:
    """How many letters of this page the requests before found."""
    text = given.get("found", "")
    return min(int(text), LONGEST_PAGE - 1) if text.isdecimal() and len(text) < 5 else 0


def _sum(found: Page, before: int, *, whole: bool) -> Sum:
    if found.total is not None:
        return Sum(found.total, "exactly")
    n = before + len(found.items)
    if found.searched is not None:
        return Sum(n, "so far")
    if found.next_cursor is None and whole:
        return Sum(n, "exactly")
    return Sum(max(n, found.total_at_least), "at least")


def _looking(call: Call, found: Page, before: int, *, whole: bool) -> Looking | None:
    """How the search goes on, of which this page shows what was found so far."""
    if found.searched is None:
        return None
    own = [("found", str(before + len(found.items))), *([("whole", "1")] if whole else [])]
    return Looking(found.searched, urlencode([*_kept(call), ("cursor", str(found.next_cursor)), *own]))


def _tabs(filters: Filters) -> Sequence[tuple[str, str, bool]]:
    stands = filters.query.state or State.DEAD
    return [
        (str(state), filters.but(state=None if state is State.DEAD else str(state), reason=None), state is stands)
        for state in (State.DEAD, State.PENDING, State.RUNNING, State.SUCCEEDED)
    ]


def _more(call: Call, found: Page) -> str | None:
    """The URL's query of the next page."""
    if found.next_cursor is None or found.searched is not None:
        return None
    return urlencode([*_kept(call), ("cursor", found.next_cursor)])


def _kept(call: Call) -> list[tuple[str, str]]:
    return [(name, text) for name, text in call.request.query_params.multi_items() if name not in _OWN]


async def _types(call: Call) -> list[str]:
    """The most frequent types of letters, for the form to offer."""
    by_type = (await call.site.queue.stats()).by_type
    return sorted(by_type, key=lambda type_: (-by_type[type_], type_))[:100]
