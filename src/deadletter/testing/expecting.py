"""What the fixtures of the pytest plugin give: a worker for what is due, and assertions that show what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal, NoReturn

from ..engine.queue import DeadLetterQueue
from ..engine.sync import wait_for
from ..model.query import Query
from ..model.record import TaskRecord
from ..rules.redaction import hiding

_SHOWN = 20  # tasks in a failure message
_LONGEST = 200  # characters of a payload in it, and of an error
_NOUNS = {"dead": ("a dead letter", "dead letter"), "pending": ("an enqueued task", "enqueued task")}


class DueWork:
    """Runs what is due, with the processors that are registered by then."""

    def __init__(self, dlq: DeadLetterQueue, **options: Any) -> None:
        self._dlq, self._options = dlq, options

    def __call__(self, **options: Any) -> DueWork:
        """The same with options of ``dlq.worker``, such as ``concurrency=1``."""
        return DueWork(self._dlq, **{**self._options, **options})

    async def run_until_idle(self) -> None:
        """Work until nothing that a processor is registered for is due. May be repeated, say after time moved."""
        await self._dlq.worker(**self._options).run_until_idle()

    def run_until_idle_sync(self) -> None:
        """The same for a test without an event loop; async processors run in a loop of their own."""
        wait_for(self.run_until_idle)


class Expecting:
    """Asserts that a queue holds tasks of one state; call it from sync and async tests alike."""

    def __init__(self, dlq: DeadLetterQueue, state: Literal["dead", "pending"]) -> None:
        self._dlq, self._state = dlq, state

    def __call__(self, *, count: int | None = None, **conditions: Any) -> TaskRecord:
        """Assert that at least one task matches, exactly ``count`` where that is given; answer the newest one.

        Args:
            count: how many must match; 1 or more.
            conditions: those of Query, such as ``type="mail.*"``, ``payload={"customer.id": 7}``; hidden values match.

        Raises:
            AssertionError: says what was expected and what is there; hidden values are not shown.
        """
        __tracebackhide__ = True
        if count is not None and count < 1:
            raise ValueError(f"count: {count!r} cannot be meant; .none(...) asserts that there is none")
        found = self._matching(conditions)
        if not found or count not in (None, len(found)):
            a_noun, noun = _NOUNS[self._state]
            wanted = a_noun if count is None else f"exactly {count} {noun}{'s' if count > 1 else ''}"
            self._fail(wanted, len(found), conditions)
        return found[0]

    def none(self, **conditions: Any) -> None:
        """Assert that no task matches; without conditions: that there is none."""
        __tracebackhide__ = True
        found = self._matching(conditions)
        if found:
            self._fail(f"no {_NOUNS[self._state][1]}", len(found), conditions)

    def _matching(self, conditions: dict[str, Any]) -> list[TaskRecord]:
        return list(self._dlq.sync.scan(Query(**{"state": self._state, **conditions})))

    def _fail(self, wanted: str, found: int, conditions: dict[str, Any]) -> NoReturn:
        __tracebackhide__ = True
        asked = ", ".join(f"{name}={value!r}" for name, value in conditions.items())
        wanted += f" with {asked}" if asked else ""
        lines = [f"expected {wanted}, found {found or 'none'}", *self._there()]
        raise AssertionError("\n".join(lines))

    def _there(self) -> Iterator[str]:
        records = self._dlq.sync.scan(Query(state=None))
        shown = list(islice(records, _SHOWN))
        yield "in the queue:" if shown else "the queue is empty"
        for record in shown:
            yield f"  {self._line(record)}"
        if next(records, None) is not None:
            yield "  and more"

    def _line(self, record: TaskRecord) -> str:
        seen = hiding((*record.redact, *self._dlq.options.hidden_paths)).record(record)
        payload = json.dumps(seen.task.payload, ensure_ascii=False, default=str)
        state = f"{seen.state} ({seen.reason})" if seen.reason else str(seen.state)
        parts = [state, seen.task.type, _cut(payload)]
        if seen.failure is not None:
            parts.append(_cut(f"{seen.failure.error_type}: {seen.failure.message}"))
        return "  ".join((*parts, f"id={seen.id}"))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
