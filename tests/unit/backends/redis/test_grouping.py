"""Groups from what is counted, beside groups from every letter: the same, or none at all."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import redis

from deadletter import DeadLetterQueue, Query
from deadletter.backends.redis import RedisBackend
from deadletter.backends.redis.shard import Shard
from deadletter.interfaces import Backend
from deadletter.model.row import FailureRow, NewRow, Scan
from deadletter.rules import changes
from deadletter.testing import VirtualClock

from ....redis_servers import valkey

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]
PREFIX = "dl:{q:0}:"
AWKWARD = "a\x1fb\x1ec"
QUERIES = (
    Query(),
    Query(type="t1"),
    Query(reason="rejected"),
    Query(fingerprint="f1"),
    Query(type=AWKWARD),
    Query(type="nowhere"),
    Query(type="t*"),
    Query(priority="high"),
    Query(error_type="E1"),
    Query(newer_than=3600),
    Query(error_contains="1"),
)


def letter(n: int, dice: random.Random) -> NewRow:
    cause = dice.choice(["f1", "f2", "f3", "", AWKWARD])
    failure = FailureRow(
        attempt=1,
        at_ms=dice.randrange(50),
        error_type=dice.choice(["E1", "E2"]),
        message=f"message {n}",
        traceback=dice.choice(["", "text"]),
        fingerprint=cause,
        release=dice.choice([None, "1", "2", AWKWARD]),
    )
    return NewRow(
        id=f"{n:03}",
        type=AWKWARD if cause == AWKWARD else dice.choice(["t1", "t2"]),
        priority=dice.choice([0, 1]),
        state="dead",
        reason=dice.choice(["rejected", "permanent"]),
        keep_ms=dice.choice([None, 60_000]),
        history=[failure],
        ended_at_ms=dice.randrange(50),
    )


@pytest.fixture(params=[1, 3])
async def dlq(request: pytest.FixtureRequest) -> AsyncIterator[DeadLetterQueue]:
    clock = VirtualClock()
    backend = RedisBackend(valkey().emptied(), clock=clock, shards=request.param)
    async with DeadLetterQueue(backend, name="q", clock=clock) as made:
        yield made
    await backend.aclose()


async def letters(dlq: DeadLetterQueue, dice: random.Random) -> None:
    """Some that died, of which some are replayed, purged and forgotten."""
    await dlq.backend.insert("q", [letter(n, dice) for n in range(60)])
    rows = [row for row in await dlq.backend.load("q", [f"{n:03}" for n in range(30)]) if row is not None]
    made = [
        dice.choice([changes.replay(row, f"r{row.id}"), changes.purge(row, f"p{row.id}", 1000)]) for row in rows[:20]
    ]
    assert set(await dlq.backend.apply("q", made)) == {"done"}


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.full) for n in range(1, 20))])
async def test_they_are_those_of_a_scan(dlq: DeadLetterQueue, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    await letters(dlq, random.Random(seed))
    asked = [(query, by) for query in QUERIES for by in ("fingerprint", "type", "reason", "error_type", "release")]
    told = [await dlq.groups(query, by=by) for query, by in asked]
    monkeypatch.setattr(RedisBackend, "groups", Backend.groups)
    for (query, by), groups in zip(asked, told, strict=True):
        assert groups == await dlq.groups(query, by=by), (query, by)


async def test_none_is_told_of_half_a_group_or_by_what_is_not_counted(dlq: DeadLetterQueue) -> None:
    """A scan would have to look at each letter; then it does."""
    await letters(dlq, random.Random(7))
    for scan, by in (
        (Scan(type="t1"), "fingerprint"),  # f1 is of t2, too
        (Scan(), "fingerprint"),  # some letters have none
        (Scan(priority=1), "type"),
        (Scan(since_ms=1), "type"),
        (Scan(), "error_type"),
    ):
        assert await dlq.backend.groups("q", scan, by) is None, (scan, by)
    assert await dlq.backend.groups("q", Scan(type="t1"), "type")


@pytest.mark.parametrize("dlq", [1], indirect=True)
async def test_letters_of_the_older_format_are_read_one_by_one_until_they_are_gone(dlq: DeadLetterQueue) -> None:
    """N6: nobody counted them."""
    await dlq.backend.insert("q", [letter(n, random.Random(n)) for n in range(5)])
    url = dlq.backend.url
    with redis.Redis.from_url(url) as server:
        record = server.get(f"{PREFIX}t:002")
        server.set(f"{PREFIX}t:002", b"1" + record[1:])
        fields = record.split(b"\x1e\x1e")[0].split(b"\x1f")
        cause = b"\x1f".join(fields[n] for n in (21, 26, 20, 24))
        assert server.hincrby(f"{PREFIX}causes", cause, -1) == 0
        server.hdel(f"{PREFIX}causes", cause)
        assert await dlq.backend.groups("q", Scan(), "type") is None
        assert sum(group.count for group in await dlq.groups(by="type")) == 5
        await dlq.purge(Query(ids=["002"]))
        told = await dlq.backend.groups("q", Scan(), "type")
        assert told is not None
        assert sum(group.count for group in told) == 4
        await dlq.purge(everything=True)
        assert not server.exists(f"{PREFIX}causes")


async def test_too_many_causes_for_one_answer_are_left_to_a_scan(
    dlq: DeadLetterQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deadletter.backends.redis.shard._CAUSES", 1)
    await letters(dlq, random.Random(1))
    assert await dlq.backend.groups("q", Scan(), "type") is None
    assert sum(group.count for group in await dlq.groups(by="type")) == 40


async def test_a_group_that_went_meanwhile_is_left_out(dlq: DeadLetterQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two steps."""
    await dlq.backend.insert("q", [letter(n, random.Random(n)) for n in range(9)])
    run = Shard._run

    async def purged_before(self: Shard, name: str, args: list[object], then: tuple[object, ...] = ()) -> list[object]:
        if name == "groups" and len(args) > 2:
            await dlq.purge(Query(type="t1"))
        return await run(self, name, args, then)

    monkeypatch.setattr(Shard, "_run", purged_before)
    assert {group.key for group in await dlq.groups(by="type")} <= {"t2", AWKWARD}
