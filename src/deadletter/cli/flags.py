"""The flags that commands share, each group a class that cyclopts spreads out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import attrs
from cyclopts import Group, Parameter

from ..model.errors import InvalidTask
from ..model.query import Query
from ..rules.duration_text import parse_duration
from ..rules.strict_json import loads_strict
from .exits import BadUse

_CONDITIONS = Group("Which tasks (all conditions must hold)", sort_key=20)
_QUEUE = Group("Queue and output", sort_key=30)
_LONGEST = 20_000_000  # bytes of JSON in a flag

StateName = Literal["pending", "running", "succeeded", "dead"]
PriorityName = Literal["high", "normal", "low"]
Switch = Annotated[bool, Parameter(negative="", show_default=False)]
Texts = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]


@Parameter(name="*", group=_QUEUE)
@attrs.frozen(kw_only=True)
class Target:
    """Which queue.

    Attributes:
        url: Where the tasks are kept, such as sqlite:///path.db (default: $DEADLETTER_URL, else sqlite:///deadletter.db);
            many commands also take a server, such as http://127.0.0.1:5002 (with $DEADLETTER_TOKEN).
        queue: The queue's name (default: $DEADLETTER_QUEUE, else "default").
        app: module:attribute of a queue, with its own options (default: $DEADLETTER_APP).
    """

    url: str | None = None
    queue: str | None = None
    app: str | None = None


@Parameter(name="*", group=_QUEUE)
@attrs.frozen(kw_only=True)
class Flags(Target):
    """Which queue, and how to answer.

    Attributes:
        json: Answer in JSON: an object a line for lists, else one object.
        reveal: Show hidden values, in exports and errors too, and let conditions match them.
    """

    json: Switch = False
    reveal: Switch = False


@Parameter(name="*", group=_CONDITIONS)
@attrs.frozen(kw_only=True)
class Where:
    """Conditions on the command line.

    Attributes:
        type: A type, or a glob such as 'email.*'.
        priority: Of this priority.
        state: In this state (default: dead; for erase every one).
        error_contains: Text in the last error's type, message or traceback, in any case.
        error_type: The last error's type, such as TimeoutError or httpx.ConnectError.
        fingerprint: Of this cause, as groups shows it.
        reason: Dead for this reason.
        older_than: Died (or was made) at least so long ago, such as 7d or 1h30m.
        newer_than: Died (or was made) at most so long ago.
        idempotency_key: With this idempotency key.
        metadata: NAME=TEXT in the metadata; may be given again.
        payload: PATH=VALUE in the payload, such as customer.id=7; may be given again.
        release: The last error happened under this release.
        ids: These ids.
    """

    type: str | None = None
    priority: PriorityName | None = None
    state: StateName | None = None
    error_contains: str | None = None
    error_type: str | None = None
    fingerprint: str | None = None
    reason: str | None = None
    older_than: str | None = None
    newer_than: str | None = None
    idempotency_key: str | None = None
    metadata: Texts = ()
    payload: Texts = ()
    release: str | None = None
    ids: Annotated[tuple[str, ...] | None, Parameter(negative="", consume_multiple=True)] = None

    def query(self) -> Query:
        """The same as a Query. Raises BadUse for a flag that cannot be read.

        InvalidQuery for one that cannot be meant.
        """
        return Query(
            type=self.type,
            priority=self.priority,
            state=self.state or "dead",
            error_contains=self.error_contains,
            error_type=self.error_type,
            fingerprint=self.fingerprint,
            reason=self.reason,
            older_than=length("--older-than", self.older_than),
            newer_than=length("--newer-than", self.newer_than),
            idempotency_key=self.idempotency_key,
            metadata=dict(_split("--metadata", text) for text in self.metadata) or None,
            payload={path: _value(text) for path, text in (_split("--payload", text) for text in self.payload)} or None,
            release=self.release,
            ids=self.ids,
        )


def length(flag: str, text: str | None) -> float | None:
    """The seconds that a duration flag means; raises BadUse that names the flag."""
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise BadUse(f"{flag}: {error}") from None


def moment(flag: str, text: str | None) -> datetime | None:
    """The time that a flag means; raises BadUse that names the flag."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise BadUse(f"{flag}: {text!r} is no time with a zone; write it like 2026-01-31T12:00:00Z") from None
    return at


def json_object(flag: str, text: str) -> dict[str, Any]:
    """The JSON object that a flag holds, read strictly; raises BadUse that names the flag."""
    try:
        value = loads_strict(text, max_bytes=_LONGEST, field=flag)
    except InvalidTask as error:
        raise BadUse(str(error)) from None
    if not isinstance(value, dict):
        raise BadUse(f"{flag}: give a JSON object, such as '{{\"customer_id\": 7}}'")
    return value


def _split(flag: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise BadUse(f"{flag}: {text!r} has no name and value; write NAME=VALUE")
    return name, value


def _value(text: str) -> Any:
    """JSON where it is JSON (7, true, "7"), else the text itself."""
    try:
        return loads_strict(text, max_bytes=_LONGEST)
    except InvalidTask:
        return text
