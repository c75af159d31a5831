"""Acting on all that match: first what it would touch, then an operation that goes on by itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import attrs
from starlette.responses import Response

from ...engine import standing
from ...model.query import Query
from ...model.record import Page, State
from ...model.task import from_ms
from ...views import timestamp
from ..access import Level
from ..fields import FIELDS, QUERY, Field
from ..problems import Problem, refused
from ..site import Call
from .filters import Filters
from .forms import Form, read_form
from .pages import page, render, see_other

ACTIONS = ("retry-all", "purge", "erase")
_LEVELS = {"retry-all": Level.WRITE, "purge": Level.ADMIN, "erase": Level.ADMIN}
_CONDITIONS = frozenset({*QUERY, "task_type", "older_than_days"})
_OPTIONS = frozenset({"action", "exact", "told"})
_SAMPLE = 5
MOST_ERASED = 1_000  # in one request; more is the command line's


@attrs.frozen
class Extent:
    """How many tasks match.

    Attributes:
        n: so many, or at least so many.
        exact: whether these are all.
        sample: some of them, newest first.
    """

    n: int
    exact: bool
    sample: Page


@page
async def review(call: Call) -> Response:
    """What an action would touch; nothing is changed."""
    params = call.request.query_params.multi_items()
    options = {name: text for name, text in params if name in _OPTIONS}
    action = options.get("action", "retry-all")
    if action not in ACTIONS:
        raise refused("action", f"is none of {', '.join(ACTIONS)}")
    filters = Filters.of((name, text) for name, text in params if name not in _OPTIONS)
    query = _dead(filters.checked, action)
    await call.site.queue.open()
    now_ms = (await call.site.queue.backend.inspect()).now_ms  # before counting: what dies meanwhile is not counted
    return render(
        call,
        "review.html",
        filters=filters,
        action=action,
        actions=[(one, call.grant.level >= _LEVELS[one]) for one in ACTIONS],
        extent=await _extent(call, query, action, exact="exact" in options),
        everything=not query.has_condition,
        cutoff=timestamp(from_ms(now_ms)),
        most_erased=MOST_ERASED,
    )


def _dead(query: Query, action: str) -> Query:
    if action == "erase":
        return query
    if query.state is not State.DEAD:
        raise refused("state", f"only dead letters are retried and purged; these are {query.state}")
    return query


async def _extent(call: Call, query: Query, action: str, *, exact: bool) -> Extent:
    """How many match: what an index knows or 10,000 rows tell; with ``exact`` all are looked at."""
    seen = call.site.seen
    if action == "erase":
        pages = [await seen.list(attrs.evolve(query, state=state), limit=_SAMPLE) for state in State]
        whole = all(found.total is not None for found in pages)
        items = [record for found in pages for record in found.items][:_SAMPLE]
        return Extent(sum(found.total_at_least for found in pages), whole, Page(items=items))
    sample = await seen.list(query, limit=_SAMPLE)
    if sample.total is not None:
        return Extent(sample.total, True, sample)
    if not exact:
        return Extent(sample.total_at_least, False, sample)
    counted = await seen.retry_all(query, dry_run=True, everything=True)
    return Extent(counted.matched, True, sample)


@page
async def order(call: Call) -> Response:
    """Begin what was reviewed."""
    form = await read_form(call)
    action = form.chosen("action", ACTIONS)
    call.need(_LEVELS[action], action)
    query = _dead(Filters.of(form.only(_CONDITIONS)).checked, action)
    everything = not query.has_condition
    if action != "retry-all" or everything:
        _typed(form)
    if action == "erase":
        return await _erase(call, query, form)
    kind: Literal["retry-all", "purge"] = "purge" if action == "purge" else "retry-all"
    how = {name: _number(form, name, field) for name, field in (("rate", "rate"), ("limit", "at_most"))}
    why = FIELDS["why"].check(form.text("why")[:500]) if form.text("why") else None
    ordered = await standing.order(
        call.site.seen, kind, query, **how, cutoff=_cutoff(form), everything=everything, why=why
    )
    call.site.operations.start()
    return see_other(call, f"/operations/{ordered.id}")


def _typed(form: Form) -> None:
    """Compare the count that was typed with the one that was shown; raises Problem 400."""
    shown, typed = form.text("count"), form.text("typed").replace(",", "").replace(" ", "")
    if not shown or typed != shown:
        raise Problem(
            400,
            f"typed: {typed[:20] or 'nothing'} is not the number of tasks, {shown[:20]}; go back and type it",
            errors=[{"field": "typed", "detail": "is not the number of tasks"}],
        )


def _number(form: Form, name: str, field: str) -> Any:
    if not form.text(name):
        return None
    known: Field = FIELDS[field]
    try:
        return known.check(known.from_text(form.text(name)))
    except ValueError as error:
        raise refused(name, str(error)) from None


def _cutoff(form: Form) -> datetime | None:
    if not form.text("cutoff"):
        return None
    try:
        at: datetime = FIELDS["cutoff"].check(form.text("cutoff"))
    except ValueError as error:
        raise refused("cutoff", str(error)) from None
    return at


async def _erase(call: Call, query: Query, form: Form) -> Response:
    extent = await _extent(call, query, "erase", exact=False)
    if not extent.exact or extent.n > MOST_ERASED:
        raise Problem(
            409, f"these are more than {MOST_ERASED:,} tasks; erase them on the command line: deadletter erase"
        )
    if str(extent.n) != form.text("count"):
        raise Problem(409, f"there are {extent.n:,} by now, not {form.text('count')[:20]}; look at them again")
    await call.site.seen.erase(query, everything=not query.has_condition)
    return see_other(call, "/letters?told=erased")
