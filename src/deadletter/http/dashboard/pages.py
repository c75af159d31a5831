"""Pages: templates with everything escaped that is put into them, sent with the headers of the door."""

from __future__ import annotations

import functools
import http
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import RedirectResponse, Response

from ..access import Level
from ..problems import Problem, problem_of
from ..site import Call, Handler
from . import words
from .assets import ASSETS

HEADERS = {
    "Cache-Control": "no-store",  # a page holds payloads
    "Referrer-Policy": "same-origin",  # under no-referrer a browser sends its forms with `Origin: null`
}
_NAV = (
    ("/", "Overview"),
    ("/letters", "Letters"),
    ("/operations", "Operations"),
    ("/pauses", "Pauses"),
    ("/workers", "Workers"),
)


@functools.cache
def environment() -> Environment:
    """The templates."""
    made = Environment(
        loader=PackageLoader("deadletter.http.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(words.FILTERS)
    return made


def render(call: Call, template: str, *, status: int = 200, **context: Any) -> Response:
    """A page; ``context`` is what its template shows."""

    def asset(name: str) -> str:
        return call.link(f"/static/{name}?v={ASSETS[name].tag}")

    path = call.request.scope["path"].removeprefix(call.request.scope.get("root_path", "").rstrip("/"))
    text = (
        environment()
        .get_template(template)
        .render(
            asset=asset,
            link=call.link,
            nav=[(target, name, _stands_at(path, target)) for target, name in _NAV],
            queue=call.site.queue.name,
            may_write=call.grant.level >= Level.WRITE,
            may_admin=call.grant.level >= Level.ADMIN,
            now=datetime.now(UTC),
            told=words.TOLD.get(call.request.query_params.get("told", "")),
            **context,
        )
    )
    # A lone surrogate in a text of a strange store must not take the page down.
    return Response(text.encode("utf-8", "replace"), status, HEADERS, "text/html; charset=utf-8")


def _stands_at(path: str, target: str) -> bool:
    return path == target if target == "/" else path == target or path.startswith(f"{target}/")


def see_other(call: Call, path: str) -> Response:
    """After a form: the page that shows what it did."""
    return RedirectResponse(call.link(path), 303, {"Cache-Control": "no-store"})


def page(handler: Handler) -> Handler:
    """Show what goes wrong as a page, with the same words as the API's problems."""

    @functools.wraps(handler)
    async def shown(call: Call) -> Response:
        try:
            return await handler(call)
        except Exception as error:
            problem = error if isinstance(error, Problem) else problem_of(error)
            if problem is None:
                raise
            return _failure(call, problem)

    return shown


def _failure(call: Call, problem: Problem) -> Response:
    errors: Sequence[Any] = problem.errors
    response = render(
        call,
        "problem.html",
        status=problem.status,
        title=http.HTTPStatus(problem.status).phrase,
        detail=problem.detail,
        errors=errors if len(errors) > 1 else [],
    )
    response.headers.update(problem.headers)
    return response
