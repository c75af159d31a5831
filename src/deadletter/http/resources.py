"""From endpoints to routes: methods, access, what a request says, and ETags, the same for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from . import once
from .access import Grant, Level
from .asking import from_document, from_url, read_json
from .door import grant_of
from .problems import Problem, refused
from .site import Call, Endpoint, Site

_NOBODY = Grant(Level.READ, "nobody")  # whoever asks an open endpoint


def routes(site: Site, endpoints: Iterable[Endpoint]) -> list[Route]:
    """One route for each path, in the order in which the paths are first named."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    return [Route(path, Resource(site, methods)) for path, methods in by_path.items()]


@attrs.frozen(eq=False)
class Resource:
    """All methods of one path, as an ASGI application."""

    site: Site
    methods: Mapping[str, Endpoint]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; raises Problem."""
        request = Request(scope, receive)
        endpoint = self.methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            allowed = self._allowed()
            raise Problem(405, f"{request.method[:20]} is nothing here; try {allowed}", headers={"Allow": allowed})
        response = await self._answer(endpoint, request)
        if endpoint.level is not None:
            response.headers["Deadletter-Queue"] = quote(self.site.queue.name, safe="")
        await response(scope, receive, send)

    def _allowed(self) -> str:
        names = [*self.methods, *(["HEAD"] if "GET" in self.methods else [])]
        return ", ".join(sorted(names))

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        grant = _NOBODY if endpoint.level is None else grant_of(request.scope)
        call = Call(self.site, request, grant, {})
        if endpoint.level is not None:
            call.need(endpoint.level, "this")
        values = {}
        if endpoint.url is not None:
            values = from_url(request.query_params.multi_items(), endpoint.url, blank_is_unset=endpoint.lenient)
        if endpoint.body is not None:
            document = await read_json(request, most=self.site.most_bytes)
            values |= from_document(document, endpoint.body)
            for name in endpoint.required:
                if name not in values:
                    raise refused(name, "is missing; give it")
            call = attrs.evolve(call, values=values)
            if endpoint.level is not Level.READ:
                return await once.answer(call, endpoint.handler, document)
            return await endpoint.handler(call)
        response = await endpoint.handler(attrs.evolve(call, values=values))
        return _unless_known(request, response) if endpoint.method == "GET" else response


def _unless_known(request: Request, response: Response) -> Response:
    """With a weak ETag; 304 where the client has it already."""
    body = getattr(response, "body", None)  # a stream has none
    if response.status_code != 200 or not isinstance(body, bytes) or "cache-control" in response.headers:
        return response
    response.headers["Cache-Control"] = "private, no-cache"
    tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    response.headers["ETag"] = tag
    known = request.headers.get("if-none-match", "")[:2000]
    if known.strip() == "*" or tag in (one.strip() for one in known.split(",")):
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "private, no-cache"})
    return response
