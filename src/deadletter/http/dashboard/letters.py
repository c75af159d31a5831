"""The list of letters: filters in the URL, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

import anyio
from starlette.responses import RedirectResponse, Response

from ...model.record import Page, State
from ..problems import problem_of
from ..site import Call
from .filters import CHOICES, Filters, of_url
from .pages import page, render

PATIENCE = 10.0  # seconds that a rare text may be looked for: no index finds it
_PAGE = 50


@page
async def letters(call: Call) -> Response:
    """A page of what the URL's filters match."""
    given = call.request.query_params.multi_items()
    if any(not text.strip() for _, text in given):  # as a form sends it; what is left can be shared
        kept = urlencode([(name, text.strip()) for name, text in given if text.strip()])
        return RedirectResponse(call.link("/letters") + (f"?{kept}" if kept else ""), 303)
    filters = of_url(call)
    found, errors = Page(items=()), dict(filters.errors)
    if not errors:
        try:
            with anyio.fail_after(PATIENCE):
                found = await call.site.seen.list(
                    filters.query, cursor=filters.values.get("cursor"), limit=filters.values.get("limit", _PAGE)
                )
        except TimeoutError:
            errors = {"": f"too few letters matched within {PATIENCE:g} s; narrow it by type, cause or time as well"}
        except ValueError as error:
            problem = problem_of(error)
            if problem is None:
                raise
            errors = {one["field"]: one["detail"] for one in problem.errors} or {"": problem.detail}
    return render(
        call,
        "letters.html",
        status=400 if errors else 200,
        filters=filters,
        errors=errors,
        found=found,
        state=str(filters.query.state or State.DEAD),
        tabs=_tabs(filters),
        choices=CHOICES,
        more=_more(call, found),
        types=await _types(call),
        narrowed=filters.query.has_condition,
    )


def _tabs(filters: Filters) -> Sequence[tuple[str, str, bool]]:
    stands = filters.query.state or State.DEAD
    return [
        (str(state), filters.but(state=None if state is State.DEAD else str(state), reason=None), state is stands)
        for state in (State.DEAD, State.PENDING, State.RUNNING, State.SUCCEEDED)
    ]


def _more(call: Call, found: Page) -> str | None:
    """The URL's query of the next page."""
    if found.next_cursor is None:
        return None
    kept = [(name, text) for name, text in call.request.query_params.multi_items() if name not in {"cursor", "told"}]
    return urlencode([*kept, ("cursor", found.next_cursor)])


async def _types(call: Call) -> list[str]:
    """The most frequent types of letters, for the form to offer."""
    by_type = (await call.site.queue.stats()).by_type
    return sorted(by_type, key=lambda type_: (-by_type[type_], type_))[:100]
