"""A queue behind ``deadletter serve``, for commands: the same calls, over HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import anyio
import attrs
import orjson

from ..engine.alerting import MonitorInfo
from ..model.errors import (
    BackendError,
    BackendUnavailable,
    Conflict,
    InvalidQuery,
    InvalidTask,
    MissingExtra,
    TaskNotFound,
)
from ..model.query import Query
from ..model.record import (
    BulkResult,
    Failure,
    FailureGroup,
    Page,
    Pause,
    Searched,
    State,
    Stats,
    TaskRecord,
    WorkerInfo,
)
from ..model.row import Inspection
from ..model.task import Task
from .exits import BadUse
from .output import say

if TYPE_CHECKING:
    import httpx2

_SCHEMES = ("http", "https")
_LONGEST = 300.0  # seconds that the server may look for what matches
_LOOK = 0.25  # seconds between looks at an operation


def is_server(url: str) -> bool:
    """Whether a URL is that of a server, and not of a store."""
    return url.partition(":")[0].lower() in _SCHEMES


@attrs.frozen
class Place:
    """Where it is, as commands ask a queue's backend."""

    url: str

    async def inspect(self) -> Inspection:
        """Nothing: a server tells of its own queue alone."""
        return Inspection(backend="http", version="", now_ms=0, durability="")


class RemoteQueue:
    """A queue on a server. What it shows is redacted there.

    Args:
        url: of the server, with the path that it is mounted under.
        token: sent as Bearer.
        transport: how requests are sent; another in tests.
    """

    masked = True
    spooler = None

    def __init__(self, url: str, token: str | None = None, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise BadUse("--url: a token in a URL ends up in logs; put it in DEADLETTER_TOKEN")
        if not parts.hostname or parts.query or parts.fragment:
            raise BadUse(f"--url: {url} is no server; write it like http://127.0.0.1:5002")
        try:
            import httpx2
        except ModuleNotFoundError:
            raise MissingExtra("http", "--url http://...") from None
        self.backend = Place(url.rstrip("/"))
        self.name = "default"
        self._errors = (httpx2.HTTPError, httpx2.InvalidURL)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx2.AsyncClient(
            headers={**headers, "Accept": "application/json"},
            timeout=httpx2.Timeout(10, read=_LONGEST),
            transport=transport,
        )

    @classmethod
    def from_env(cls, url: str) -> RemoteQueue:
        """With the token of DEADLETTER_TOKEN."""
        return cls(url, os.environ.get("DEADLETTER_TOKEN") or None)

    async def open(self) -> None:
        """Ask once: whether it is there, lets us in, and how its queue is called."""
        await self._ask("GET", "/api/dlq/pauses")

    async def probe(self) -> None:
        """Ask whether it is there; needs no token."""
        await self._send("GET", "/healthz")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def list(
        self, query: Query, *, cursor: str | None = None, limit: int = 50, patience: float | None = None
    ) -> Page:
        """See DeadLetterQueue.list; without ``patience`` the server has its own."""
        given = {"cursor": cursor, "patience": patience}
        body = {**_conditions(query), "limit": limit} | {n: value for n, value in given.items() if value is not None}
        page = await self._ask("POST", "/api/dlq/search", body)
        searched = page.get("searched")
        made = None if searched is None else _made(Searched, searched, "back_to")
        return Page(**{**page, "items": [_record(item) for item in page["items"]], "searched": made})

    async def get(self, id: str) -> TaskRecord:
        """See DeadLetterQueue.get."""
        return _record(await self._ask("GET", f"/api/dlq/items/{quote(id, safe='')}", about=id))

    async def groups(self, query: Query, *, by: str = "fingerprint") -> Sequence[FailureGroup]:
        """See DeadLetterQueue.groups."""
        found = await self._ask("GET", "/api/dlq/groups", url=[*_in_url(query), ("by", by)])
        return [_made(FailureGroup, group, "first_seen", "last_seen") for group in found["groups"]]

    async def stats(self) -> Stats:
        """See DeadLetterQueue.stats."""
        found = await self._ask("GET", "/api/dlq/stats")
        return Stats(**{**found, "workers": [_made(WorkerInfo, worker, "last_seen") for worker in found["workers"]]})

    async def retry(self, id: str, **edits: Any) -> None:
        """See DeadLetterQueue.retry."""
        body = {name: value for name, value in edits.items() if value is not None}
        await self._ask("POST", "/api/dlq/retry", {"task_id": id, **body}, about=id)

    async def cancel(self, id: str) -> bool:
        """See DeadLetterQueue.cancel."""
        try:
            await self._ask("POST", "/api/dlq/cancel", {"task_id": id}, about=id)
        except Conflict:
            return False
        return True

    async def retry_all(self, query: Query, **how: Any) -> BulkResult:
        """See DeadLetterQueue.retry_all."""
        progress, options = _apart(how)
        body = {**_conditions(query), **options}
        if options.get("dry_run"):
            return _bulk(await self._ask("POST", "/api/dlq/retry-all", body))
        return await self._carried_out("POST", "/api/dlq/retry-all", progress, body=body)

    async def purge(self, query: Query, **how: Any) -> BulkResult:
        """See DeadLetterQueue.purge."""
        progress, options = _apart(how)
        url = [*_in_url(query), *((name, _text(value)) for name, value in options.items())]
        if not options.get("dry_run"):
            return await self._carried_out("DELETE", "/api/dlq/purge", progress, url=url)
        answer = await self._send("DELETE", "/api/dlq/purge", url=url)
        cutoff = datetime.fromisoformat(answer.headers["deadletter-cutoff"])
        return BulkResult(**orjson.loads(answer.content), failed=0, cutoff=cutoff)

    async def erase(self, query: Query, **how: Any) -> BulkResult:
        """See DeadLetterQueue.erase; what the server hides does not match."""
        progress, options = _apart(how)
        body = {**_conditions(query), **options}
        if options.get("dry_run"):
            return _bulk(await self._ask("POST", "/api/dlq/erase", body))
        return await self._carried_out("POST", "/api/dlq/erase", progress, body=body)

    async def pause(self, types: str, *, why: str) -> Pause:
        """See DeadLetterQueue.pause."""
        found = _pauses(await self._ask("POST", "/api/dlq/pause", {"types": types, "why": why}))
        return next(pause for pause in found if pause.types == types)

    async def resume(self, types: str) -> Sequence[Pause]:
        """See DeadLetterQueue.resume."""
        before = await self.paused()
        left = {pause.types for pause in _pauses(await self._ask("POST", "/api/dlq/resume", {"types": types}))}
        return [pause for pause in before if pause.types not in left]

    async def monitor(self) -> MonitorInfo | None:
        """See monitor_seen."""
        found = (await self._ask("GET", "/api/dlq/monitor"))["monitor"]
        return None if found is None else _made(MonitorInfo, found, "last_seen")

    async def paused(self) -> Sequence[Pause]:
        """See DeadLetterQueue.paused."""
        return _pauses(await self._ask("GET", "/api/dlq/pauses"))

    async def _carried_out(
        self, method: str, path: str, progress: Callable[[BulkResult], object] | None, **said: Any
    ) -> BulkResult:
        """Order an operation and watch it: it goes on where we leave."""
        ordered = await self._ask(method, path, headers={"Prefer": "respond-async"}, **said)
        place = f"/api/dlq/operations/{ordered['id']}"
        told = ordered
        try:
            while told["ended_at"] is None:
                await anyio.sleep(_LOOK)
                told = await self._ask("GET", place)
                if progress is not None:
                    progress(_bulk(told))
        except BaseException:
            say(f"it goes on at the server: {self.backend.url}{place}")
            raise
        if told["error"] is not None:
            raise BackendError(told["error"])
        return _bulk(told)

    async def _ask(self, method: str, path: str, body: Any = None, *, about: str = "", **said: Any) -> Any:
        answer = await self._send(method, path, body, about=about, **said)
        return orjson.loads(answer.content)

    async def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        url: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        about: str = "",
    ) -> httpx2.Response:
        content = None if body is None else orjson.dumps(body)
        told = {**(headers or {}), **({"Content-Type": "application/json"} if body is not None else {})}
        try:
            answer = await self._client.request(
                method, f"{self.backend.url}{path}", params=list(url) or None, content=content, headers=told
            )
        except self._errors as error:
            raise BackendUnavailable(
                f"{self.backend.url} does not answer: {str(error) or type(error).__name__}"
            ) from error
        if "deadletter-queue" in answer.headers:
            self.name = unquote(answer.headers["deadletter-queue"])
        if answer.is_success:
            return answer
        raise self._refusal(answer, about)

    def _refusal(self, answer: httpx2.Response, about: str) -> Exception:  # noqa: PLR0911 - a table of answers
        if not answer.headers.get("content-type", "").startswith("application/problem+json"):
            return BackendUnavailable(f"{self.backend.url} answers {answer.status_code}; is it a deadletter server?")
        problem = orjson.loads(answer.content)
        detail, status = str(problem["detail"]), answer.status_code
        if status == 404 and about:
            return TaskNotFound(about)
        if status == 409:
            return Conflict(detail)
        if status in (401, 403):
            return BadUse(f"{self.backend.url}: {detail}" + (" (DEADLETTER_TOKEN)" if status == 401 else ""))
        errors = problem.get("errors") or []
        if status == 400 and len(errors) == 1:
            return InvalidTask(errors[0]["field"], errors[0]["detail"])
        if status == 400:
            return InvalidQuery(detail)
        return BackendUnavailable(f"{self.backend.url}: {detail}")


def _conditions(query: Query) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in attrs.asdict(query, recurse=False, filter=lambda field, _: field.init).items():
        if value is None:
            continue
        if isinstance(value, timedelta):
            found[name] = value.total_seconds()
        else:
            found[name] = value.isoformat() if isinstance(value, datetime) else list(value) if name == "ids" else value
    return found


def _in_url(query: Query) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in _conditions(query).items():
        if name == "ids":
            found.append((name, ",".join(value)))
        elif isinstance(value, Mapping):
            found += [(name, f"{key}={_text(part, quoted=name == 'payload')}") for key, part in value.items()]
        else:
            found.append((name, _text(value)))
    return found


def _text(value: Any, *, quoted: bool = False) -> str:
    if isinstance(value, str) and not quoted:
        return str(value)
    return orjson.dumps(value).decode()


def _apart(how: Mapping[str, Any]) -> tuple[Callable[[BulkResult], object] | None, dict[str, Any]]:
    """The callback, and what is sent."""
    options = {name: value for name, value in how.items() if name != "progress" and value not in (None, False)}
    if isinstance(options.get("cutoff"), datetime):
        options["cutoff"] = options["cutoff"].isoformat()
    return how.get("progress"), options


def _made(kind: Callable[..., Any], document: Mapping[str, Any], *times: str) -> Any:
    return kind(**{**document, **{name: datetime.fromisoformat(document[name]) for name in times}})


def _bulk(operation: Mapping[str, Any]) -> BulkResult:
    return _made(BulkResult, {name: operation[name] for name in ("matched", "changed", "failed", "cutoff")}, "cutoff")  # type: ignore[no-any-return]


def _pauses(answer: Mapping[str, Any]) -> list[Pause]:
    return [_made(Pause, pause, "since") for pause in answer["paused"]]


def _record(item: Mapping[str, Any]) -> TaskRecord:
    task = Task(
        id=item["id"],
        type=item["type"],
        payload=item["payload"],
        priority=item["priority"],
        max_retries=item["max_retries"],
        idempotency_key=item["idempotency_key"],
        metadata=item["metadata"],
    )
    error = item["error"]
    history = item.get("history", [error] if error is not None else [])
    return TaskRecord(
        task=task,
        state=State(item["state"]),
        reason=item["reason"],
        attempts=item["attempts"],
        replays=item["replays"],
        replayable=item["replayable"],
        queue=item["queue"],
        history=[_failure(entry) for entry in history],
        **{name: _time(item[name]) for name in ("created_at", "due_at", "died_at", "expires_at")},
    )


def _failure(entry: Mapping[str, Any]) -> Failure:
    told = {name: value for name, value in entry.items() if name != "type"}
    return _made(Failure, {**told, "error_type": entry["type"]}, "at")  # type: ignore[no-any-return] # of the class that it was given


def _time(text: str | None) -> Any:
    return None if text is None else datetime.fromisoformat(text)
