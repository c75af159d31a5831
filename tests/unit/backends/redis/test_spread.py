"""A queue over several shards of one real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadletter import BackendUnavailable, BatchFailed, DeadLetterQueue, InvalidTask, RedisBackend, Task
from deadletter.backends.memory import MemoryBackend
from deadletter.backends.redis.placement import home
from deadletter.backends.redis.shard import Shard
from deadletter.backends.redis.spread import Spread
from deadletter.model.errors import ConfigurationConflict, InvalidSetting
from deadletter.model.row import Change, Claim, Claimed, EventRow, FailureRow, Inserted, NewRow, Row, Scan, Verdict
from deadletter.rules import changes
from deadletter.testing import VirtualClock

from ....redis_servers import valkey

pytestmark = pytest.mark.anyio

IDS = [f"id{n}" for n in range(40)]


def new(id: str = "a", **fields: Any) -> NewRow:
    return NewRow(id=id, **{"type": "t", "digest": f"digest of {id}", "body": b"body", **fields})


def elsewhere(id_: str, shards: int = 3) -> str:
    """A key whose shard is not the id's home."""
    from deadletter.backends.redis.placement import place

    return next(key for key in IDS if place(new("", key=key), shards) != home(id_, shards))


@pytest.fixture
async def spread() -> AsyncIterator[RedisBackend]:
    backend = RedisBackend(valkey().emptied(), shards=3)
    yield backend
    await backend.aclose()


@pytest.mark.parametrize("shards", [0, 65, True, "2", 1.0])
def test_a_bad_number_of_shards_is_refused(shards: Any) -> None:
    with pytest.raises(InvalidSetting, match="give 1 to 64"):
        RedisBackend("redis://h", shards=shards)


@pytest.mark.parametrize(("first", "then"), [(3, 2), (3, 1), (1, 3)])
async def test_another_number_of_shards_is_a_conflict(first: int, then: int) -> None:
    """Told with both numbers, at the first step of whoever comes second, reading or writing."""
    url = valkey().emptied()
    one, other = RedisBackend(url, shards=first), RedisBackend(f"{url}&shards={then}")
    assert await other.load("q", ["a"]) == [None]  # nothing is there yet, so nothing is decided
    await one.insert("q", [new()])
    for step in (other.insert("q", [new()]), other.load("q", ["a"]), other.counts("q")):
        with pytest.raises(ConfigurationConflict, match=f"{first} shards, and shards={then} .* export"):
            await step
    await other.insert("another", [new()])
    for backend in (one, other):
        await backend.aclose()


async def test_doctor_is_told_of_shards(spread: RedisBackend) -> None:
    assert any("over 3 shards" in finding.text for finding in (await spread.inspect()).findings)


async def test_a_queue_from_before_shards_has_one() -> None:
    url = valkey().emptied()
    one, more = RedisBackend(url), RedisBackend(url, shards=2)
    await one.insert("q", [new()])
    await one._connections.command("HDEL", "dl:{q:0}:meta", "shards")
    with pytest.raises(ConfigurationConflict):
        await more.load("q", ["a"])
    again = RedisBackend(url)
    assert [row and row.id for row in await again.load("q", ["a"])] == ["a"]
    for backend in (one, more, again):
        await backend.aclose()


async def test_a_row_away_from_home_is_found_by_whoever_does_not_know_it() -> None:
    """By load, by claim and by apply; what nobody has is told as missing."""
    url = valkey().emptied()
    key = elsewhere("a")
    makers = [RedisBackend(url, shards=3) for _ in range(4)]
    await makers[0].insert("q", [new("a", key=key)])
    assert [row and row.id for row in await makers[1].load("q", ["b", "a"])] == [None, "a"]
    claimed = await makers[2].claim("q", Claim(op="o", ids=["b", "a"], limit=2))
    assert ([row.id for row in claimed.rows], dict(claimed.words)) == (["a"], {"b": "missing"})
    row = claimed.rows[0]
    change = changes.release(row, "r")
    stray = changes.release(attrs.evolve(row, id="b"), "s")
    assert await makers[3].apply("q", [stray, change, change]) == ["missing", "done", "repeated"]
    for backend in makers:
        await backend.aclose()


@pytest.mark.parametrize("limit", [1, 2, 7, 30])
async def test_a_claim_fills_its_limit_and_never_more(spread: RedisBackend, limit: int) -> None:
    """Also where all that is due lies on one shard, and a repeat answers the same rows."""
    ids = [id_ for id_ in (f"x{n}" for n in range(200)) if home(id_, 3) == 1][:20]
    await spread.insert("q", [new(id_) for id_ in ids])
    taken: list[str] = []
    for n in range(20):
        claim = Claim(op=f"op{n}", types=["t"], limit=limit)
        claimed = await spread.claim("q", claim)
        assert len(claimed.rows) == min(limit, 20 - len(taken))
        taken += [row.id for row in claimed.rows]
        if len(taken) == 20:
            assert (await spread.claim("q", claim)).rows == claimed.rows
            break
        assert claimed.next_due_ms is not None
        assert claimed.next_due_ms <= claimed.now_ms
    assert sorted(taken) == sorted(ids)


async def test_a_shard_that_is_away_stops_no_claim_and_no_sweep(
    spread: RedisBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The others go on, with one warning; a step that needs that shard fails, and so does one that reaches none."""
    await spread.insert("q", [new(id_) for id_ in IDS])
    run, away = Shard._run, {1}

    async def cut(shard: Shard, *args: Any, **more: Any) -> Any:
        if int(shard.prefix[-3]) in away:
            raise BackendUnavailable("it is away")
        return await run(shard, *args, **more)

    monkeypatch.setattr(Shard, "_run", cut)
    rows = (await spread.claim("q", Claim(op="o", types=["t"], limit=100))).rows
    assert {row.id for row in rows} == {id_ for id_ in IDS if home(id_, 3) != 1}
    assert await spread.sweep("q", 100) == []
    assert [record.message for record in caplog.records].count("shards [1] are away, the others go on: it is away") == 1
    for step in (spread.counts("q"), spread.scan("q", Scan()), spread.load("q", IDS)):
        with pytest.raises(BackendUnavailable):
            await step
    away |= {0, 2}
    with pytest.raises(BackendUnavailable):
        await spread.claim("q", Claim(op="p", types=["t"]))


async def test_a_client_that_dies_between_two_shards_may_repeat(
    spread: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shard of an insert has its rows, the other not: the same call again stores the rest, and nothing twice."""
    run = Shard._run

    async def cut(shard: Shard, *args: Any, **more: Any) -> Any:
        if shard.prefix.endswith(":1}:"):
            raise BackendUnavailable("killed")
        return await run(shard, *args, **more)

    rows = [new(id_) for id_ in IDS]
    with monkeypatch.context() as patched:
        patched.setattr(Shard, "_run", cut)
        with pytest.raises(BackendUnavailable, match="killed"):
            await spread.insert("q", rows)
    assert 0 < sum((await spread.counts("q")).tally.values()) < 40
    told = await spread.insert("q", rows)
    assert {insertion.verdict for insertion in told} == {Inserted.STORED, Inserted.EXISTS}
    assert sum((await spread.counts("q")).tally.values()) == 40


async def test_a_chosen_id_with_a_key_is_refused() -> None:
    """Where a queue is spread the id would not be kept unique; a capture keeps what it has."""
    async with DeadLetterQueue(f"{valkey().emptied()}&shards=2") as dlq:
        for give in (dlq.enqueue, lambda task: dlq.enqueue_many([task])):
            with pytest.raises(InvalidTask, match="'mine' was chosen"):
                await give(Task(type="t", id="mine", idempotency_key="k"))  # type: ignore[operator]
        await dlq.enqueue(Task(type="t", id="mine"))
        task = Task(type="t", idempotency_key="k")
        assert [await dlq.enqueue(task), await dlq.enqueue(attrs.evolve(task, id=Task(type="t").id))] == [task.id] * 2
        captured = Task(type="t", id="theirs", idempotency_key="other")
        assert await dlq.capture(captured, ValueError("no")) == "theirs"
        assert (await dlq.get("theirs")).state == "dead"


async def test_a_conflict_in_a_batch_is_told_and_the_rest_can_be_repeated() -> None:
    async with DeadLetterQueue(f"{valkey().emptied()}&shards=3") as dlq:
        await dlq.enqueue(Task(type="t", id="id7"))
        tasks = [Task(type="t", id=id_, payload={"n": 1}) for id_ in IDS]
        with pytest.raises(BatchFailed, match="id7") as caught:
            await dlq.enqueue_many(tasks)
        assert (caught.value.index, caught.value.stored) == (7, [])
        assert await dlq.enqueue_many([task for task in tasks if task.id != "id7"])
        assert (await dlq.stats()).by_state["pending"] == 40


async def test_gaps_are_told_by_number(spread: RedisBackend) -> None:
    """Whatever shard lost its oldest events; and who resumes anywhere hears the rest once."""
    await spread.insert("q", [new(id_, state="dead", reason="captured") for id_ in IDS])
    events = await told(spread, 40)
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    assert {event.task_id for event in events} == set(IDS)
    for at in (0, 17, 38):
        assert await told(spread, 39 - at, after=events[at].seq) == events[at + 1 :]
    await spread._connections.command("XTRIM", "dl:{q:1}:events", "MAXLEN", 3)
    gone = sum(home(id_, 3) == 1 for id_ in IDS) - 3
    left = await told(spread, 40 - gone)
    assert [event.missed for event in left if event.missed] == [gone]


async def told(backend: RedisBackend, n: int, after: int = 0) -> list[EventRow]:
    found: list[EventRow] = []
    with anyio.fail_after(10):
        async with backend.listen("q", after) as signals:
            while len(found) < n:
                signal = await anext(signals)
                if isinstance(signal, EventRow):
                    found.append(signal)
    return found


LETTERS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("tu"), st.integers(0, 2)), min_size=0, max_size=60)


@settings(max_examples=25, deadline=None)
@given(
    letters=LETTERS,
    limit=st.integers(1, 100),
    newest=st.booleans(),
    narrow=st.sampled_from([{}, {"type": "t"}, {"priority": 1}, {"type": "u", "priority": 0}, {"since_ms": 2}]),
    shards=st.integers(2, 5),
)
def test_pages_are_those_of_one_store(
    letters: list[tuple[int, str, int]], limit: int, newest: bool, narrow: dict[str, Any], shards: int
) -> None:
    """Whatever the page size, direction and narrowing: the rows of an unsharded store, in its order, each once."""
    rows = [
        new(
            f"{n:02}",
            type=type_,
            priority=rank,
            state="dead",
            reason="captured",
            created_at_ms=1,
            ended_at_ms=at_ms,
            history=[FailureRow(attempt=1, at_ms=1)],
        )
        for n, (at_ms, type_, rank) in enumerate(letters)
    ]

    async def pages(backend: RedisBackend | MemoryBackend) -> list[str]:
        if rows:
            await backend.insert("q", rows)
        found: list[Row] = []
        scan = Scan(newest_first=newest, limit=limit, **narrow)
        while True:
            page = await backend.scan("q", scan)
            assert len(page.rows) <= limit
            found += page.rows
            if page.after is None:
                break
            scan = attrs.evolve(scan, after=page.after)
        await backend.aclose()
        return [row.id for row in found if all(getattr(row, name) == narrow[name] for name in narrow if name[0] != "s")]

    clock = VirtualClock()
    one = asyncio.run(pages(MemoryBackend(clock=clock)))
    assert asyncio.run(pages(RedisBackend(valkey().emptied(), shards=shards, clock=clock))) == one


class Other:
    """A shard that is asked while somebody else learns where the id lies."""

    def __init__(self, row: Row | None) -> None:
        self.row = row
        self.asked: Callable[[], object] = lambda: None

    async def load(self, ids: Sequence[str], *, history: int = 1) -> list[Row | None]:
        self.asked()
        return [self.row for _ in ids]

    async def apply(self, changes: Sequence[Change]) -> list[Verdict]:
        self.asked()
        return [Verdict.MISSING if self.row is None else Verdict.DONE for _ in changes]

    async def claim(self, claim: Claim) -> Claimed:
        self.asked()
        return Claimed(rows=[self.row] if self.row else [], words={} if self.row else {"x": "missing"})


async def test_where_an_id_lies_may_be_learnt_while_it_is_looked_for() -> None:
    """Another call of the same process learns it between the two rounds: the shard that has it is asked all the same."""
    first = home("x", 2)
    row = Row("x", "t", 1, "dead")
    for step in ("load", "apply", "claim"):
        shards: list[Any] = [Other(None if n == first else row) for n in range(2)]
        steps = Spread(shards)
        shards[first].asked = partial(steps._homes.learn, 1 - first, ["x"])
        if step == "load":
            assert await steps.load(["x"]) == [row]
        elif step == "apply":
            assert await steps.apply([changes.purge(row, "op", 1_000)]) == ["done"]
        else:
            assert (await steps.claim(Claim(op="c", ids=["x"]))).rows == [row]
