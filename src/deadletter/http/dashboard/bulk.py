"""Acting on all that match: first what it would touch, then an operation that goes on by itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import anyio
import attrs
from starlette.responses import Response

from ...engine import standing
from ...engine.erasing import states_of
from ...model.operation import OperationKind
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

ACTIONS: tuple[OperationKind, ...] = ("retry-all", "purge", "erase")
_LEVELS: Mapping[str, Level] = {"retry-all": Level.WRITE, "purge": Level.ADMIN, "erase": Level.ADMIN}
_CONDITIONS = frozenset({*QUERY, "task_type", "older_than_days"})
_OPTIONS = frozenset({"action", "exact", "told"})
_SAMPLE = 5
_PATIENCE = 0.5  # seconds that a first count may take in each state
_COUNTING = 30.0  # seconds that an exact one may take, where it was asked for


@attrs.frozen
class Extent:
    """How many tasks match.

    Attributes:
        n: so many, or at least so many.
        exact: whether these are all.
        counted: whether that was all that could be counted in time.
        sample: some of them, newest first.
    """

    n: int
    exact: bool
    sample: Page
    counted: bool = False


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
    )


def _dead(query: Query, action: str) -> Query:
    if action == "erase":
        return query
    if query.state is not State.DEAD:
        raise refused("state", f"only dead letters are retried and purged; these are {query.state}")
    return query


async def _extent(call: Call, query: Query, action: str, *, exact: bool) -> Extent:
    """How many match: what an index knows or 10,000 rows tell; with ``exact`` all are looked at, as far as time allows."""
    seen = call.site.seen
    states = states_of(query) if action == "erase" else [State.DEAD]
    pages = [await seen.list(attrs.evolve(query, state=state), limit=_SAMPLE, patience=_PATIENCE) for state in states]
    sample = Page(items=[record for found in pages for record in found.items][:_SAMPLE])
    known, least = all(found.total is not None for found in pages), sum(found.total_at_least for found in pages)
    if known or not exact:
        return Extent(least, known, sample)
    far = [least]
    everything = not query.has_condition
    with anyio.move_on_after(_COUNTING) as scope:
        count = seen.erase if action == "erase" else seen.retry_all
        found = await count(
            query, dry_run=True, everything=everything, progress=lambda result: far.append(result.matched)
        )
        return Extent(found.matched, True, sample, counted=True)
    assert scope.cancelled_caught  # noqa: S101 - for the type checker
    return Extent(max(far), False, sample, counted=True)


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
        await _unchanged(call, query, form)
    kind: OperationKind = ACTIONS[ACTIONS.index(action)]
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


async def _unchanged(call: Call, query: Query, form: Form) -> None:
    """An erase has no cutoff: refuse it where what is there by now is not what was shown; raises Problem 409."""
    extent = await _extent(call, query, "erase", exact=False)
    if extent.exact and str(extent.n) != form.text("count"):
        raise Problem(409, f"there are {extent.n:,} by now, not {form.text('count')[:20]}; look at them again")
