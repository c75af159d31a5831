"""``Idempotency-Key``: a write that is sent again answers as the first time, and does nothing."""

from __future__ import annotations

import hashlib
import logging
import re
from typing import Any

import orjson
from starlette.responses import Response

from ..engine.guard import RowIdempotencyStore
from ..model.errors import LeaseLost
from .problems import Problem
from .site import Call, Handler

log = logging.getLogger("deadletter.http")

_KEPT = 24 * 3600.0  # seconds that an answer is remembered
_LONGEST = 600.0  # seconds that a call may take before another may take over its key
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


async def answer(call: Call, handler: Handler, document: Any) -> Response:
    """What the handler answers; with a key that is known, what it answered then.

    Keys belong to the token that they came with. An answer that is an error frees its key: nothing happened.

    Raises:
        Problem: 400 for a bad key, 409 while the first call runs, 422 where it said something else.
    """
    given = call.request.headers.getlist("idempotency-key")
    if not given:
        return await handler(call)
    if len(given) != 1 or not _KEY.fullmatch(given[0]):
        raise Problem(400, "Idempotency-Key: give it once, 1 to 255 printable ASCII characters")
    store = RowIdempotencyStore(call.site.queue)
    path = call.request.scope["path"].removeprefix(call.request.scope.get("root_path", ""))
    begun = await store.begin(
        _hash("http", call.grant.holder, given[0]),
        _hash(call.request.method, path, orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()),
        _LONGEST,
    )
    if begun.word == "conflict":
        raise Problem(422, "Idempotency-Key: it came with another request before; give this one a key of its own")
    if begun.word == "in_progress":
        raise Problem(409, "the first request with this key is still being answered", headers={"Retry-After": "1"})
    if begun.word == "completed":
        return _restored(begun.result or b"{}")
    token = begun.token or ""
    try:
        response = await handler(call)
    except BaseException:
        await store.abandon(token)
        raise
    try:
        await store.complete(token, _kept(response), _KEPT)
    except LeaseLost:
        log.warning("a request took longer than %g s; its Idempotency-Key is not remembered", _LONGEST)
    return response


def _hash(*parts: str) -> str:
    whole = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(whole.encode()).hexdigest()


def _kept(response: Response) -> bytes:
    location = response.headers.get("location")
    return orjson.dumps({"status": response.status_code, "body": bytes(response.body).decode(), "location": location})


def _restored(kept: bytes) -> Response:
    said = orjson.loads(kept)
    headers = {"Idempotency-Replayed": "true", "Cache-Control": "no-store"}
    if said["location"]:
        headers["Location"] = said["location"]
    return Response(said["body"], said["status"], headers, "application/json")
