"""Style, scripts and vendored libraries: read once, named by what they hold, so that a browser may keep them for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources

import attrs
from starlette.responses import Response

from ..problems import Problem
from ..site import Call

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_NAMES = (
    "app.css",
    "app.js",
    "charts.js",
    "icon.svg",
    "vendor/htmx.min.js",
    "vendor/htmx-ext-sse.min.js",
    "vendor/uplot.min.js",
    "vendor/uplot.min.css",
)


@attrs.frozen
class Asset:
    """One file.

    Attributes:
        body: what it holds.
        media_type: what a browser takes it for.
        tag: changes with what it holds.
    """

    body: bytes
    media_type: str
    tag: str


def _read(name: str) -> Asset:
    body = resources.files("deadletter.http.dashboard").joinpath("static", *name.split("/")).read_bytes()
    return Asset(
        body, f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8", hashlib.blake2b(body, digest_size=6).hexdigest()
    )


ASSETS: Mapping[str, Asset] = {name: _read(name) for name in _NAMES}


async def asset(call: Call) -> Response:
    """One file; raises Problem 404."""
    found = ASSETS.get(str(call.request.path_params["name"]))
    if found is None:
        raise Problem(404, "there is no such file")
    same = call.request.query_params.get("v") == found.tag
    kept = "private, max-age=31536000, immutable" if same else "private, no-cache"
    return Response(found.body, headers={"Content-Type": found.media_type, "Cache-Control": kept})
