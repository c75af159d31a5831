"""What only the memory backend has; what it promises as a backend is in tests/conformance."""

from __future__ import annotations

import pytest

from deadletter.backends import _shelf as memory
from deadletter.backends.memory import MemoryBackend
from deadletter.model.record import Reason
from deadletter.model.row import Claim, EventRow, FailureRow, NewRow, Row, Scan
from deadletter.rules import changes
from deadletter.testing import VirtualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def backend(clock: VirtualClock) -> MemoryBackend:
    return MemoryBackend(clock=clock)


async def one(backend: MemoryBackend, id_: str = "a") -> Row:
    [row] = await backend.load("q", [id_])
    assert row is not None
    return row


async def test_it_says_that_nothing_lasts(backend: MemoryBackend) -> None:
    inspection = await backend.inspect()
    assert (inspection.backend, inspection.durability) == ("memory", "none: memory only")
    assert [finding.level for finding in inspection.findings] == ["warning"]
    assert inspection.queues == []
    await backend.insert("q", [NewRow(id="a", type="t")])
    assert (await backend.inspect()).queues == ["q"]


async def test_two_backends_share_nothing_and_one_outlives_its_closing() -> None:
    first, second = MemoryBackend.from_url("memory://"), MemoryBackend.from_url("memory://")
    await first.insert("q", [NewRow(id="a", type="t")])
    await first.aclose()
    await first.open()
    assert (await first.load("q", ["a"]))[0] is not None
    assert await second.load("q", ["a"]) == [None]


async def test_old_claims_are_forgotten(backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many ops are remembered is bounded: a repeat after that leases another row, never the same one twice."""
    monkeypatch.setattr(memory, "CLAIMS", 3)
    await backend.insert("q", [NewRow(id=f"{n}", type="t") for n in range(6)])
    for n in range(4):
        await backend.claim("q", Claim(op=f"op{n}", types=["t"]))
    assert [row.id for row in (await backend.claim("q", Claim(op="op1", types=["t"]))).rows] == ["1"]
    assert [row.id for row in (await backend.claim("q", Claim(op="op0", types=["t"]))).rows] == ["4"]


async def test_events_are_kept_in_bounded_number(backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes back too late sees a jump in seq."""
    monkeypatch.setattr(memory, "EVENTS", 3)
    for n in range(5):
        await backend.insert("q", [NewRow(id=f"{n}", type="t", state="dead")])
    seen: list[int] = []
    async with backend.listen("q", after=1) as signals:
        async for signal in signals:
            assert isinstance(signal, EventRow)
            seen.append(signal.seq)
            if len(seen) == 3:
                break
    assert seen == [3, 4, 5]


async def test_indexes_do_not_grow_with_what_is_gone(backend: MemoryBackend, clock: VirtualClock) -> None:
    """Letters that were purged or replayed and tasks that were forgotten leave the sorted lists in the end."""
    for start in range(0, 3_000, 100):
        ids = [f"{n:04}" for n in range(start, start + 100)]
        await backend.insert("q", [NewRow(id=id_, type="t", state="dead") for id_ in ids])
        rows = [row for row in await backend.load("q", ids) if row is not None]
        await backend.apply("q", [changes.purge(row, f"op {row.id}", 1) for row in rows])
        clock.advance(1)
        await backend.sweep("q", 100)
    queue = backend._queues["q"]
    assert queue.rows == {}
    assert len(queue.dead.entries) <= 2_000
    assert len(queue.created.entries) <= 2_000


async def test_a_letter_that_dies_twice_in_one_millisecond_is_scanned_once(backend: MemoryBackend) -> None:
    await backend.insert("q", [NewRow(id="a", type="t", state="dead")])
    await backend.apply("q", [changes.replay(await one(backend), "o1")])
    [row] = (await backend.claim("q", Claim(op="o2", types=["t"]))).rows
    await backend.apply("q", [changes.die(row, "o3", Reason.REJECTED, FailureRow(attempt=1), None)])
    assert [row.id for row in (await backend.scan("q", Scan())).rows] == ["a"]


async def test_a_stale_head_of_one_type_hides_no_row_of_another(backend: MemoryBackend, clock: VirtualClock) -> None:
    """An entry that ceased to be true must not stand for the later one behind it."""
    await backend.insert("q", [NewRow(id="a", type="t", due_ms=1), NewRow(id="b", type="t", due_ms=90)])
    await backend.insert("q", [NewRow(id="c", type="u", due_ms=50)])
    await backend.claim("q", Claim(op="o1", ids=["a"]))
    clock.advance(0.06)
    claimed = await backend.claim("q", Claim(op="o2", types=["t", "u"], limit=9))
    assert [row.id for row in claimed.rows] == ["c"]
    assert claimed.next_due_ms == clock.now_ms() + 30


async def test_claiming_and_releasing_for_ever_takes_no_memory(backend: MemoryBackend) -> None:
    """A row that comes back at the same due time stands in line once, as far as a claimer can see."""
    await backend.insert("q", [NewRow(id="a", type="t")])
    for n in range(50):
        [row] = (await backend.claim("q", Claim(op=f"c{n}", types=["t"]))).rows
        await backend.apply("q", [changes.release(row, f"r{n}")])
    assert len(backend._queues["q"].due[1, "t"]) == 1
