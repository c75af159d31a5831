"""What went wrong, as RFC 9457 problem documents."""

from __future__ import annotations

import http
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from ..model.errors import (
    BackendError,
    ConfigurationConflict,
    Conflict,
    DeadLetterError,
    InvalidQuery,
    InvalidTask,
    MissingExtra,
    TaskBusy,
    TaskNotFound,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "5"  # seconds: a store that restarts is back by then, or away for longer

_NAMED = re.compile(r"([a-z_]{1,40})(?:[.\[][^:]*)?: (.*)", re.DOTALL)
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Problem(Exception):
    """An answer that says what is wrong.

    Attributes:
        status: of the answer.
        detail: what is wrong, with which value, and what to do.
        errors: the fields that are wrong, each with its own words.
        kind: the last part of the problem's ``type``, where programs tell it apart by more than its status.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail)
        self.status, self.detail, self.errors, self.kind = status, detail, errors, kind
        self.headers = dict(headers or {})

    def document(self, instance: str) -> dict[str, Any]:
        """The problem as JSON; ``instance`` is the path that was asked for."""
        shown: dict[str, Any] = {
            "type": "about:blank" if self.kind is None else f"urn:deadletter:problem:{self.kind}",
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
        }
        return {**shown, "errors": [*self.errors]} if self.errors else shown

    def response(self, instance: str) -> Response:
        """The answer."""
        headers = {"Cache-Control": "no-store", **self.headers}
        return Response(orjson.dumps(self.document(instance)), self.status, headers, MEDIA_TYPE)


def refused(field: str, detail: str) -> Problem:
    """A request with one field that cannot be meant."""
    return Problem(400, f"{field}: {detail}", errors=[{"field": field, "detail": detail}])


def problem_of(error: Exception) -> Problem | None:  # noqa: PLR0911 - a table of kinds
    """The problem that one of our own errors is; None for an error that nobody expected."""
    kind = _WORDS.sub("-", type(error).__name__).lower()
    if isinstance(error, InvalidTask | InvalidQuery):
        found = _NAMED.fullmatch(str(error))
        return refused(found[1], found[2]) if found else Problem(400, str(error))
    if isinstance(error, TaskNotFound):
        return Problem(404, str(error), kind=kind)
    if isinstance(error, Conflict | TaskBusy) and not isinstance(error, ConfigurationConflict):
        return Problem(409, str(error), kind=kind)
    if isinstance(error, MissingExtra):
        return Problem(501, str(error), kind=kind)
    if isinstance(error, BackendError | ConfigurationConflict):
        # Its own words name hosts and settings, which are for the log.
        return Problem(
            503,
            "the store cannot do this now; try again later",
            kind="backend-unavailable",
            headers={"Retry-After": RETRY_AFTER},
        )
    if isinstance(error, DeadLetterError):
        return Problem(409, str(error), kind=kind)
    return None
