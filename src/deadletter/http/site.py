"""What the routes share: the queue behind them, one request, and what an endpoint is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

import attrs
from starlette.requests import Request
from starlette.responses import Response

from ..engine import standing
from ..engine.queue import DeadLetterQueue
from ..model.query import Query
from ..model.record import TaskRecord
from ..views import Viewer, item
from . import samples
from .access import Access, Grant, Level
from .asking import query_of
from .audience import Audience
from .background import Background
from .fields import Field
from .problems import Problem


@attrs.frozen(eq=False)
class Site:
    """An application's queue, and how it is shown.

    Attributes:
        queue: for what names one letter, edits among it.
        seen: for reading and bulk calls: redacted, and conditions match only what is shown.
        viewer: what is hidden.
        access: who may do what.
        operations: carries operations out, from when one is ordered or found until none is left.
        audience: who listens to its events.
        samples: writes the counters down for the dashboard's charts.
    """

    queue: DeadLetterQueue
    seen: DeadLetterQueue
    viewer: Viewer
    access: Access
    operations: Background
    audience: Audience
    samples: Background

    @classmethod
    def of(cls, queue: DeadLetterQueue, access: Access) -> Site:
        """The site of a queue."""
        viewer = Viewer(queue.options.hidden_paths)
        seen = viewer.queue(queue)
        operations = Background(partial(standing.work, queue, seen))
        return cls(queue, seen, viewer, access, operations, Audience(queue), Background(partial(samples.keep, queue)))

    @property
    def most_bytes(self) -> int:
        """The largest body: an edited payload as JSON text may take more bytes than it is stored in."""
        return 2 * self.queue.options.max_payload_bytes + 65_536

    def item(self, record: TaskRecord, *, whole: bool = True) -> dict[str, Any]:
        """The record as JSON, without what is hidden."""
        return item(record, self.viewer.redactor(record), whole=whole)


@attrs.frozen
class Call:
    """One request that was let in.

    Attributes:
        site: whose request it is.
        request: as Starlette has it.
        grant: what it may do.
        values: what its URL and body say, by the fields of its endpoint.
    """

    site: Site
    request: Request
    grant: Grant
    values: Mapping[str, Any]

    @property
    def query(self) -> Query:
        """The conditions; raises Problem 400."""
        return query_of(self.values)

    def need(self, level: Level, what: str) -> None:
        """Refuse what wants more than was granted; raises Problem 403."""
        if self.grant.level < level:
            raise Problem(
                403, f"{what} wants a token with the scope {level.word}; this one has {self.grant.level.word}"
            )

    def link(self, path: str) -> str:
        """A path of ours as the client must ask for it, wherever the application is mounted."""
        return f"{self.request.scope.get('root_path', '').rstrip('/')}{path}"


Handler: TypeAlias = Callable[[Call], Awaitable[Response]]


@attrs.frozen(kw_only=True)
class Endpoint:
    """One method of one path.

    Attributes:
        method, path: what it answers to; the path as Starlette writes it.
        handler: makes the answer.
        summary: what it does, in a line.
        level: what it wants; None where anybody may ask.
        url: the fields of its query; None where the handler reads it itself.
        body: the fields of its JSON body; None where it has none.
        required: those that must be given.
        answer: the schema of its JSON answer; or a media type.
        status: of its answer.
        told: in the OpenAPI document.
        may_respond_async: it obeys Prefer: respond-async.
        lenient: take empty fields of a URL as not given: those of a form.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    summary: str
    level: Level | None = Level.READ
    url: Mapping[str, Field] | None = attrs.field(factory=dict)
    body: Mapping[str, Field] | None = None
    required: tuple[str, ...] = ()
    answer: str = "application/json"
    status: int = 200
    told: bool = True
    may_respond_async: bool = False
    lenient: bool = False
