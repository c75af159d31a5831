"""Rows that a script leaves out of a search, beside what a look at each finds: no letter that holds the text."""

from __future__ import annotations

import itertools

import pytest

from deadletter import DeadLetterQueue, Query
from deadletter.backends.memory import MemoryBackend
from deadletter.backends.redis import RedisBackend
from deadletter.backends.redis import records as redis_records
from deadletter.model.row import FailureRow, NewRow, Scan
from deadletter.rules import changes
from deadletter.testing import VirtualClock

from ....redis_servers import valkey

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

PARTS = (
    "no Route",
    "Straße",
    "STRASSE",
    "\u212aelvin",
    "kelvin",
    "\ufb01le",
    "file",
    'a "quoted" \\ one',
    "tab\there",
    "é",
    "",
)
TEXTS = (
    "route",
    "strasse",
    "ß",
    "kelvin",
    "file",
    "fi",
    '"quoted"',
    "\\",
    "\t",
    "é",
    "here",
    "nowhere",
    "[",
    "%",
    "a ",
    "e",
)


def letters() -> list[NewRow]:
    """One for each message and traceback, of which some were edited and sent back, and died again."""
    rows = []
    for n, (message, traceback) in enumerate(itertools.product(PARTS, PARTS[:9])):
        failure = FailureRow(attempt=1, error_type=f"E{n % 3}", message=message, traceback=traceback, fingerprint="f")
        note = FailureRow(attempt=1, error_type="deadletter.Edited", message="why")
        history = [[failure], [failure, note], []][n % 7 if n % 7 < 3 else 0]
        rows.append(NewRow(id=f"{n:03}", type="t", state="dead", reason="captured", history=history, ended_at_ms=n))
    return rows


async def test_a_search_finds_what_a_look_at_each_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_records, "_READ", 7)
    clock = VirtualClock()
    redis, memory = RedisBackend(valkey().emptied(), clock=clock), MemoryBackend(clock=clock)
    async with (
        DeadLetterQueue(redis, name="q", clock=clock) as one,
        DeadLetterQueue(memory, name="q", clock=clock) as two,
    ):
        new = letters()
        for backend in (redis, memory):
            for at in range(0, len(new), 100):
                await backend.insert("q", new[at : at + 100])
        for text in TEXTS:
            found = [[record.id async for record in dlq.scan(Query(error_contains=text))] for dlq in (one, two)]
            assert found[0] == found[1], text
            assert (found[0] == []) == (text in ("nowhere", "[", "%")), text
        row = (await redis.load("q", ["000"]))[0]
        assert row is not None
        await redis.apply("q", [changes.purge(row, "p", 1000)])
        assert "000" not in [row.id for row in (await redis.scan("q", Scan(text="route"))).rows]
    await redis.aclose()


async def test_a_step_answers_only_with_what_may_hold_the_text() -> None:
    """It looks at a bounded number of letters, and tells where the next goes on."""
    redis = RedisBackend(valkey().emptied(), clock=VirtualClock())
    async with DeadLetterQueue(redis, name="q") as dlq:
        failures = [FailureRow(attempt=1, error_type="E", message=f"no {n}", traceback="T") for n in range(90)]
        new = [NewRow(id=f"{n:03}", type="t", state="dead", history=[f], ended_at_ms=n) for n, f in enumerate(failures)]
        await dlq.backend.insert("q", new)
        page = await redis.scan("q", Scan(text="no 33"))
        assert [row.id for row in page.rows] == ["033"]
        assert page.after is None
    await redis.aclose()
