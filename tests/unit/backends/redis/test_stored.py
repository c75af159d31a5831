"""What lies in Redis after a step: nothing torn, nothing left over, nothing that grows without bound."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis

from deadletter.backends.redis import RedisBackend
from deadletter.backends.redis.keys import FIELDS, RECORD
from deadletter.model.record import Reason
from deadletter.model.row import Claim, EventRow, FailureRow, NewRow, Scan
from deadletter.rules import changes
from deadletter.rules.codec import digest
from deadletter.testing import VirtualClock

from ....redis_servers import valkey

pytestmark = pytest.mark.anyio
PREFIX = "dl:{q:0}:"
LONG = b"l" * 600  # too long for a record


def new(id: str = "a", **fields: Any) -> NewRow:
    return NewRow(id=id, **{"type": "t", "digest": "x", "body": b"body", **fields})


def failure(**fields: Any) -> FailureRow:
    return FailureRow(attempt=1, **{"error_type": "E", "traceback": "text", "fingerprint": "f", **fields})


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def url() -> str:
    return valkey().emptied()


@pytest.fixture
async def backend(url: str, clock: VirtualClock) -> AsyncIterator[RedisBackend]:
    made = RedisBackend(url, clock=clock)
    yield made
    await made.aclose()


@pytest.fixture
def server(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, decode_responses=True, encoding_errors="surrogateescape") as client:
        yield client


async def claimed(backend: RedisBackend, op: str = "c", **fields: Any) -> list[Any]:
    return (await backend.claim("q", Claim(op=op, types=["t"], limit=100, **fields))).rows


async def events(backend: RedisBackend, n: int) -> list[EventRow]:
    found: list[EventRow] = []
    async with backend.listen("q", 0) as signals:
        while len(found) < n:
            signal = await anext(signals)
            if isinstance(signal, EventRow):
                found.append(signal)
    return found


async def test_what_is_forgotten_leaves_only_sums(
    backend: RedisBackend, server: redis.Redis, clock: VirtualClock
) -> None:
    """After every row is gone, what stays does not grow with the rows that there were."""
    await backend.insert("q", [new(f"{n}", key=f"k{n}", expires_ms=9_000) for n in range(5)])
    rows = await claimed(backend)
    made = [changes.try_again(row, f"{row.id}.1", failure(), 0) for row in rows[:2]]
    made += [changes.succeed(rows[2], "2.1", 50)]
    made += [changes.die(rows[3], "3.1", Reason.REJECTED, failure(), 50)]
    made += [changes.discard(rows[4], "4.1", 50, "why")]
    assert set(await backend.apply("q", made)) == {"done"}
    again = await claimed(backend, "d")
    ends = [changes.die(row, f"{row.id}.2", Reason.REJECTED, failure(), 50) for row in again]
    assert await backend.apply("q", ends) == ["done", "done"]
    clock.advance(0.05)
    assert await backend.sweep("q", 100) == []
    left = {key.removeprefix(PREFIX) for key in server.keys("*")}
    assert left == {"meta", "stats", "events", "claims", "claimed"}


async def test_no_key_carries_an_expiry(backend: RedisBackend, server: redis.Redis) -> None:
    """I12: a server may take nothing of ours by itself."""
    await backend.insert("q", [new("a", key="k"), new("b")])
    rows = await claimed(backend)
    await backend.apply("q", [changes.succeed(rows[0], "s", 50), changes.discard(rows[1], "d", 50, "")])
    assert {server.ttl(key) for key in server.keys("*")} == {-1}


async def test_equal_tracebacks_are_stored_once_and_go_with_the_last(
    backend: RedisBackend, server: redis.Redis
) -> None:
    letters = [new(f"{n}", state="dead", reason="captured", history=[failure(), failure()]) for n in range(3)]
    await backend.insert("q", letters)
    assert server.hvals(f"{PREFIX}uses") == ["6"]
    [first, *others] = await backend.load("q", ["0", "1", "2"])
    assert first is not None
    await backend.apply("q", [changes.purge(first, "p", 50)])
    assert server.hvals(f"{PREFIX}uses") == ["4"]
    await backend.apply("q", [changes.erase(row, f"e{row.id}", 50) for row in others if row is not None])
    assert not server.exists(f"{PREFIX}uses", f"{PREFIX}traces")


async def test_a_letter_keeps_its_last_twenty_failures(backend: RedisBackend, server: redis.Redis) -> None:
    await backend.insert("q", [new()])
    for n in range(25):
        [row] = await claimed(backend, f"c{n}")
        told = failure(message=f"{n}", traceback=f"text {n}")
        await backend.apply("q", [changes.try_again(row, f"s{n}", told, 0)])
    [row] = await backend.load("q", ["a"], history=20)
    assert row is not None
    assert [told.message for told in row.history] == [f"{n}" for n in range(5, 25)]
    assert row.history[0].traceback == "text 5"
    assert server.hlen(f"{PREFIX}traces") == 20


async def test_claims_are_remembered_in_bounded_number(backend: RedisBackend, server: redis.Redis) -> None:
    for start in range(0, 1_100, 100):
        await backend.insert("q", [new(f"{n}") for n in range(start, start + 100)])
    for n in range(1_010):
        await backend.claim("q", Claim(op=f"c{n}", types=["t"]))
    assert server.hlen(f"{PREFIX}claims") == server.llen(f"{PREFIX}claimed") == 1_000


async def test_events_are_kept_in_bounded_number_and_a_gap_shows(backend: RedisBackend, server: redis.Redis) -> None:
    for start in range(0, 12_000, 100):
        await backend.insert("q", [new(f"{n}", state="dead", reason="captured") for n in range(start, start + 100)])
    assert server.xlen(f"{PREFIX}events") <= 10_100
    [first] = (await events(backend, 1))[:1]
    assert first.seq > 1, "who asked for what came after 0 sees that some are gone"


async def test_a_newer_record_is_shown_and_left_alone(backend: RedisBackend, server: redis.Redis) -> None:
    """N6: an old worker beside a new one neither takes nor changes what it does not understand, nor is it held up."""
    await backend.insert("q", [new("a"), new("b")])
    [row, _] = await backend.load("q", ["a", "b"])
    fields, _, body = server.get(f"{PREFIX}t:a").partition("\x1e\x1e")
    server.set(f"{PREFIX}t:a", f"{RECORD + 1}{fields[1:]}\x1ffuture field\x1e\x1e{body}")
    claim = await backend.claim("q", Claim(op="c", types=["t"], limit=100))
    assert [found.id for found in claim.rows] == ["b"]
    assert (await backend.claim("q", Claim(op="d", ids=["a"]))).words == {"a": "newer"}
    assert row is not None
    assert await backend.apply("q", [changes.cancel(row, "x", 5)]) == ["stale"]
    [shown] = await backend.load("q", ["a"])
    assert shown is not None
    assert (shown.format, shown.type, shown.body) == (RECORD + 1, "t", b"body")


async def test_an_entry_without_its_record_is_told_and_taken_out(backend: RedisBackend, server: redis.Redis) -> None:
    """11: somebody deleted records behind our back; the others are claimed and swept as ever."""
    await backend.insert("q", [new("a"), new("b")])
    server.delete(f"{PREFIX}t:a")
    rows = await claimed(backend, lease_ms=0)
    assert [row.id for row in rows] == ["b"]
    server.delete(f"{PREFIX}t:b")
    assert await backend.sweep("q", 100) == []
    told = await events(backend, 2)
    assert [(event.kind, event.task_id) for event in told] == [("lost", "a"), ("lost", "b")]
    assert (await backend.counts("q")).lifetime["orphans", "", ""] == 2
    assert await backend.sweep("q", 100) == []
    assert not server.exists(f"{PREFIX}due:1:t", f"{PREFIX}lease")


async def test_a_body_that_is_gone_is_none(backend: RedisBackend, server: redis.Redis) -> None:
    """The engine then keeps the row as a letter that cannot be decoded."""
    await backend.insert("q", [new("a", body=LONG)])
    server.delete(f"{PREFIX}p:a")
    assert [row.body for row in await claimed(backend)] == [None]


async def test_a_short_body_lies_in_its_record_and_a_long_one_beside_it(
    backend: RedisBackend, server: redis.Redis, clock: VirtualClock
) -> None:
    """Whatever becomes of it by an edit, it is read whole, exists once, and goes with the row."""
    raw = b"\x1e\x1e\x1f\xff" + b"x" * 508  # 512 bytes: the longest that is short
    await backend.insert("q", [new("a", body=raw), new("b", body=raw + b"x"), new("c", body=b"")])
    assert [bool(server.exists(f"{PREFIX}p:{id_}")) for id_ in "abc"] == [False, True, False]
    rows = await claimed(backend)
    assert [row.body for row in rows] == [raw, raw + b"x", b""]
    died = [changes.die(row, f"d{row.id}", Reason.REJECTED, failure(), 9_000) for row in rows]
    assert set(await backend.apply("q", died)) == {"done"}
    page = await backend.scan("q", Scan(newest_first=False))
    assert [row.body for row in page.rows] == [raw, raw + b"x", b""]
    assert [row.body for row in (await backend.scan("q", Scan(body=False))).rows] == [None] * 3
    edits = [b"y", b"short again", LONG]
    replays = [changes.replay(row, f"r{row.id}", body=body) for row, body in zip(page.rows, edits, strict=True)]
    assert set(await backend.apply("q", replays)) == {"done"}
    assert [row.body for row in await backend.load("q", ["a", "b", "c"]) if row] == edits
    assert [bool(server.exists(f"{PREFIX}p:{id_}")) for id_ in "abc"] == [False, False, True]
    done = [changes.succeed(row, f"s{row.id}", 50) for row in await claimed(backend, "again")]
    assert set(await backend.apply("q", done)) == {"done"}
    assert not server.exists(f"{PREFIX}p:c")


async def test_what_the_older_format_holds_is_read_and_carried_on(
    backend: RedisBackend, server: redis.Redis, clock: VirtualClock
) -> None:
    """N6: format 1 kept every body beside its record, digests whole, and no time empty."""
    digest_ = digest("t", {"n": 1})
    given = [new(id_, digest=digest_, key=f"k{id_}", redact="card") for id_ in "abcd"]
    await backend.insert("q", given)
    server.hset(f"{PREFIX}redacts", "long" * 8, "card")
    for id_ in "abcd":
        fields, _, body = server.get(f"{PREFIX}t:{id_}").partition("\x1e\x1e")
        record = fields.split("\x1f")
        told = dict(zip(FIELDS, record, strict=True))
        told |= {"format": "1", "since_ms": told["created_ms"], "due_ms": told["created_ms"]}
        told |= {"digest": digest_, "redact": "long" * 8}
        server.mset({f"{PREFIX}t:{id_}": "\x1f".join(told.values()), f"{PREFIX}p:{id_}": body})
    again = await backend.insert("q", [new("a", digest=digest_), new("z", digest=digest_, key="kb")])
    assert [(told.verdict, told.id) for told in again] == [("exists", "a"), ("exists", "b")]
    other = await backend.insert("q", [new("a", digest=digest("t", {"n": 2}))])
    assert [told.verdict for told in other] == ["task_conflict"]
    rows = await claimed(backend)
    assert [(row.id, row.format, row.body, row.redact) for row in rows] == [(id_, 1, b"body", "card") for id_ in "abcd"]
    now_ms = clock.now_ms()
    assert {(row.created_ms, row.since_ms, row.due_ms) for row in rows} == {(now_ms, now_ms, now_ms)}
    a, b, c, d = rows
    made = [
        changes.succeed(a, "sa", 50),
        changes.try_again(b, "tb", failure(), 0),
        changes.die(c, "dc", Reason.REJECTED, failure(), None),
        changes.discard(d, "dd", 50, ""),
    ]
    assert set(await backend.apply("q", made)) == {"done"}
    assert [row.body for row in await backend.load("q", ["b", "c"]) if row] == [b"body", b"body"]
    assert not server.exists(f"{PREFIX}p:a", f"{PREFIX}p:d")
    [c] = (await backend.scan("q", Scan())).rows
    assert await backend.apply("q", [changes.replay(c, "rc", body=b"new")]) == ["done"]
    assert [(row.id, row.body) for row in await claimed(backend, "once more")] == [("b", b"body"), ("c", b"new")]
    clock.advance(1)
    await backend.sweep("q", 100)
    assert set(server.keys(f"{PREFIX}[tp]:*")) == {f"{PREFIX}{key}" for key in ("t:b", "p:b", "t:c")}


async def test_names_with_the_records_own_separators_are_only_names(backend: RedisBackend) -> None:
    name = "a\x1fb\x1ec"
    told = failure(error_type=name, worker=name, release=name, fingerprint=name)
    await backend.insert("q", [new("a", type=name, key=name, digest=name, redact=name, release=name)])
    [row] = (await backend.claim("q", Claim(op="c", types=[name], owner=name))).rows
    assert (row.type, row.key, row.digest, row.owner, row.redact) == (name, name, name, name, name)
    await backend.apply("q", [changes.die(row, "d", Reason.REJECTED, told, None)])
    page = await backend.scan("q", Scan(type=name, fingerprint=name, error_type=name))
    assert [(found.worker, found.release) for found in page.rows] == [(name, name)]
    assert (await backend.counts("q")).tally == {("dead", 1, name, "rejected"): 1}
    assert (await events(backend, 1))[0].type == name


async def test_many_types_are_counted_in_steps(backend: RedisBackend) -> None:
    """Where the tally is too large for one answer it is read page by page."""
    for start in range(0, 2_500, 100):
        await backend.insert(
            "q", [new(f"{n}", type=f"t{n}", count=[("enqueued", f"t{n}", "")]) for n in range(start, start + 100)]
        )
    counts = await backend.counts("q")
    assert len(counts.tally) == len(counts.lifetime) == 2_500
    claim = await backend.claim("q", Claim(op="c", types=[f"t{n}" for n in range(2_500)], limit=100))
    assert len(claim.rows) == 100


async def test_running_rows_are_listed_by_creation_also_when_they_are_many(
    backend: RedisBackend, clock: VirtualClock
) -> None:
    """Few come from the leases, many from the index of what lives: the same pages."""
    for start in range(0, 600, 100):
        await backend.insert("q", [new(f"{n:03}") for n in range(start, start + 100)])
        await claimed(backend, f"c{start}")
        clock.advance(0.001)
    pages = []
    after = None
    while True:
        page = await backend.scan("q", Scan(state="running", after=after, body=False, history=0))
        pages += [row.id for row in page.rows]
        after = page.after
        if after is None:
            break
    assert pages == [f"{n:03}" for n in reversed(range(600))]
