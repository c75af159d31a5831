"""Who is at work, what waits for them, and what they may not claim."""

from __future__ import annotations

import attrs
from starlette.responses import Response

from ...model.query import glob_match
from ...model.record import Stats
from ..access import Level
from ..fields import FIELDS
from ..problems import refused
from ..site import Call
from .forms import read_form
from .pages import page, render, see_other


@attrs.frozen
class TypeLine:
    """One type of task: what waits, what is late, what is dead, who knows it, what pauses it."""

    type: str
    pending: int
    overdue: int
    dead: int
    known: bool
    paused: str | None


def lines(stats: Stats, *, most: int = 500) -> list[TypeLine]:
    """A line for each type that is there, those that want attention first."""
    known = {type_ for worker in stats.workers for type_ in worker.types}
    names = {*stats.pending_by_type, *stats.by_type, *stats.overdue, *known}
    made = [
        TypeLine(
            name,
            stats.pending_by_type.get(name, 0),
            stats.overdue.get(name, 0),
            stats.by_type.get(name, 0),
            name in known,
            next((glob for glob in stats.paused if glob_match(glob, name)), None),
        )
        for name in names
    ]
    return sorted(made, key=lambda line: (-line.overdue, -line.dead, -line.pending, line.type))[:most]


@page
async def workers(call: Call) -> Response:
    """Workers and types."""
    stats = await call.site.queue.stats()
    return render(call, "workers.html", stats=stats, lines=lines(stats))


@page
async def pauses(call: Call) -> Response:
    """What is paused, and a form to pause more."""
    stats = await call.site.queue.stats()
    types = sorted({*stats.by_type, *stats.pending_by_type})[:100]
    suggested = call.request.query_params.get("types", "")[:400]
    return render(call, "pauses.html", pauses=await call.site.queue.paused(), types=types, suggested=suggested)


@page
async def pause(call: Call) -> Response:
    """No worker claims these types until they are resumed."""
    call.need(Level.WRITE, "a pause")
    form = await read_form(call)
    given = {name: form.text(name) for name in ("types", "why")}
    for name, text in given.items():
        try:
            FIELDS[name].check(text)
        except ValueError as error:
            raise refused(name, str(error)) from None
    await call.site.queue.pause(given["types"], why=given["why"])
    return see_other(call, "/pauses?told=paused")


@page
async def resume(call: Call) -> Response:
    """These types are claimed again."""
    call.need(Level.WRITE, "a resume")
    form = await read_form(call)
    await call.site.queue.resume(form.text("types"))
    return see_other(call, "/pauses?told=resumed")
