"""A command's hold on its queue."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import attrs

from ..backends import backend_from_url
from ..engine.alerting import MonitorInfo, monitor_seen
from ..engine.queue import DeadLetterQueue
from ..model.errors import InvalidSetting
from ..model.record import TaskRecord
from ..model.row import Inspection
from ..settings import load_app, queue_options
from ..views import Viewer, item
from .exits import BadUse
from .flags import Flags, Target
from .output import emit, say
from .remote import RemoteQueue, is_server

_MAY_CREATE = "create="


@attrs.frozen
class Session:
    """A queue, and how its user wants to see it.

    Attributes:
        queue: for changes; a server's where it is over HTTP.
        seen: for reading and bulk calls: redacted, unless revealed.
        viewer: what this process hides.
        json: whether to answer in JSON.
    """

    queue: DeadLetterQueue
    seen: DeadLetterQueue
    viewer: Viewer
    json: bool

    def item(self, record: TaskRecord, *, whole: bool = True) -> dict[str, Any]:
        """The record as JSON."""
        return item(record, self.viewer.redactor(record), whole=whole)

    async def remark_if_unknown(self) -> None:
        """Say where the store knows other queues, and not the one that was asked for: its name may be mistyped."""
        found = await self.queue.backend.inspect()
        known = user_queues(found)
        if known and self.queue.name not in known:
            say(f"queue {self.queue.name!r} was never used here; this store holds {', '.join(known)}")

    async def monitor(self) -> MonitorInfo | None:
        """Who monitors the queue; None where nobody ever did."""
        queue: object = self.queue
        return await (queue.monitor() if isinstance(queue, RemoteQueue) else monitor_seen(self.queue))

    def answer(self, document: dict[str, Any], plainly: Callable[[], object]) -> None:
        """Print a single answer: the document in JSON, else what ``plainly`` prints."""
        if self.json:
            emit(document)
        else:
            plainly()


def user_queues(found: Inspection) -> list[str]:
    """The queues of a store that a user can have named; those of our own hold a control character."""
    return [name for name in found.queues if name.isprintable()]


def make_queue(target: Target, *, create: bool = False) -> DeadLetterQueue:
    """The queue that flags and environment name; without ``create`` a SQLite file that does not exist is refused."""
    app = target.app or (os.environ.get("DEADLETTER_APP") if target.url is None and target.queue is None else None)
    if app:
        return _app_queue(app, target)
    options = queue_options({**os.environ, "DEADLETTER_URL": ""} if target.url is not None else os.environ)
    if target.url is not None:
        options["backend"] = target.url
    if target.queue is not None:
        options["name"] = target.queue
    if not create:
        options["backend"] = _reading(options["backend"])
    try:
        return DeadLetterQueue(**options)
    except InvalidSetting as error:
        said = {"url": "--url" if target.url is not None else "DEADLETTER_URL", "spool": "DEADLETTER_SPOOL"}
        raise InvalidSetting(said.get(error.name, error.name), error.problem) from None


def _app_queue(app: str, target: Target) -> DeadLetterQueue:
    # An app that reads the environment goes where the flags say; one that does not is refused, not obeyed in silence.
    if target.url is not None:
        os.environ["DEADLETTER_URL"] = target.url
    if target.queue is not None:
        os.environ["DEADLETTER_QUEUE"] = target.queue
    queue = load_app(app, setting="--app" if target.app else "DEADLETTER_APP")
    if target.url is not None and backend_from_url(target.url).url != queue.backend.url:
        raise BadUse(f"--url: {app} is on {queue.backend.url} whatever it says; leave out --url, or --app")
    if target.queue is not None and queue.name != target.queue:
        raise BadUse(f"--queue: {app} is queue {queue.name!r} whatever it says; leave out --queue, or --app")
    return queue


@contextlib.asynccontextmanager
async def session(
    flags: Flags | None, *, create: bool = False, connect: bool = True, server: bool = False
) -> AsyncIterator[Session]:
    """Open the queue for one command (without ``connect`` at its first use) and close it after.

    ``server``: the command works over HTTP, too.
    """
    flags = flags or Flags()
    url = server_url(flags)
    if url is not None:
        if not server:
            raise BadUse(f"--url: this command works on a store, and {url} is a server; give the store's URL")
        async with _remote(url, flags) as desk:
            yield desk
        return
    queue = make_queue(flags, create=create)
    try:
        if connect:
            await queue.open()
        viewer = Viewer(queue.options.hidden_paths, reveal=flags.reveal)
        if flags.reveal:
            say("--reveal: hidden values are shown, and conditions match them")
        yield Session(queue, viewer.queue(queue), viewer, flags.json)
    finally:
        await queue.aclose()


def server_url(target: Target) -> str | None:
    """The URL of a server, where flags and environment name one and no store."""
    if target.url is None and (target.app or target.queue or os.environ.get("DEADLETTER_APP")):
        return None
    url = target.url or os.environ.get("DEADLETTER_URL") or ""
    return url if is_server(url) else None


@contextlib.asynccontextmanager
async def _remote(url: str, flags: Flags) -> AsyncIterator[Session]:
    if flags.reveal:
        raise BadUse("--reveal: a server shows no hidden values; give the store's URL")
    if flags.queue is not None or flags.app is not None:
        raise BadUse("--queue, --app: a server serves the queue that it was started with; leave them out")
    remote = RemoteQueue.from_env(url)
    try:
        await remote.open()
        # Everything it shows was redacted by the server: here nothing is hidden a second time.
        queue = cast("DeadLetterQueue", remote)
        yield Session(queue, queue, Viewer((), reveal=True), flags.json)
    finally:
        await remote.aclose()


def _reading(url: str) -> str:
    if not url.startswith("sqlite:") or _MAY_CREATE in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}{_MAY_CREATE}0"
