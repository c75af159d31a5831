"""Captures while the store is away: kept in the spool, given back in order and once, and never lost in silence."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from deadletter import (
    BackendError,
    BackendUnavailable,
    Captured,
    DeadLetterQueue,
    IdempotencyConflict,
    InvalidSetting,
    InvalidTask,
    Query,
    Task,
    dead_lettered,
)
from deadletter.backends.memory import MemoryBackend
from deadletter.backends.sqlite import SpoolFile
from deadletter.engine import captured, spooling
from deadletter.runtime.threads import InlineThreads

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("form", ["sync", "async"])


class Switched(MemoryBackend):
    """A store that can be switched off, made to hang, or to refuse a task."""

    away: bool = False
    hangs: bool = False
    refuses: str | None = None
    calls = 0

    async def insert(self, queue: str, rows: Any) -> Any:
        self.calls += 1
        if self.hangs:
            await anyio.sleep_forever()
        if self.away:
            raise BackendUnavailable("the store is away")
        if any(row.id == self.refuses for row in rows):
            raise ValueError(f"{self.refuses} is too odd")
        return await super().insert(queue, rows)


@pytest.fixture
def url() -> str:
    """The store is the one below; this is what the neighbours' fixtures would open."""
    return "memory://"


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given back in the background."""
    monkeypatch.setattr(spooling.Spooler, "start", lambda _: None)


@pytest.fixture
def store(clock: Any) -> Switched:
    return Switched(clock=clock)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "captures.spool"


@pytest.fixture
async def dlq(anyio_backend: str, make_queue: Any, store: Switched, path: Path, clock: Any) -> DeadLetterQueue:
    queue = make_queue(backend=store, spool=path, retry=[7], clock=clock)
    await queue.open()
    return queue


def charge_of(dlq: DeadLetterQueue, form: str, **options: Any) -> Callable[..., Any]:
    """A decorated function that fails."""

    def charge(amount: int) -> None:
        raise ValueError(f"no {amount}")

    async def charge_async(amount: int) -> None:
        charge(amount)

    return dead_lettered(dlq, name="charge", **options)(charge if form == "sync" else charge_async)  # type: ignore[return-value]


async def call(function: Callable[..., Any], *args: Any) -> Any:
    result = function(*args)
    return await result if inspect.isawaitable(result) else result


def waits(dlq: DeadLetterQueue) -> list[Any]:
    """The rows in the spool."""
    assert dlq.spooler is not None
    return [s.row for s in dlq.spooler.spool.take(dlq.backend.url, dlq.name, 0, 2**62)]


async def kept(dlq: DeadLetterQueue) -> list[str]:
    """The ids in the store, in the order they came."""
    rows = [r async for r in dlq.scan(Query(state=None))]
    return [r.id for r in sorted(rows, key=lambda r: r.id)]


@BOTH
async def test_what_the_store_does_not_take_waits_in_the_spool(
    dlq: Any, store: Switched, form: str, caplog: pytest.LogCaptureFixture, path: Path
) -> None:
    store.away = True
    with pytest.raises(ValueError, match="no 5") as raised:
        await call(charge_of(dlq, form, redact=("amount",)), 5)
    [row] = waits(dlq)
    told = f"is kept as task {row.id} in {path} until the store is back: BackendUnavailable: the store is away"
    assert any(told in text for text in raised.value.__notes__)
    assert any(told in record.message for record in caplog.records if record.levelno == logging.WARNING)
    now = dlq.clock.now_ms()
    assert (row.state, row.attempts, row.due_ms, row.history[0].message) == ("pending", 1, row.due_at_ms - now, "no 5")
    assert (row.created_at_ms, row.history[0].at_ms, "amount" in row.redact) == (now, now, True)
    assert (await dlq.stats()).spooled == 1


@BOTH
async def test_suppress_answers_once_the_spool_has_it(dlq: Any, store: Switched, form: str) -> None:
    store.away = True
    answer = await call(charge_of(dlq, form, on_failure="suppress"), 5)
    assert isinstance(answer, Captured)
    assert [row.id for row in waits(dlq)] == [answer.task_id]


@BOTH
async def test_a_failure_that_waits_in_the_spool_is_not_captured_again(dlq: Any, store: Switched, form: str) -> None:
    store.away = True
    charge = charge_of(dlq, form)
    with pytest.raises(ValueError, match="no 5") as first:
        await call(charge, 5)

    @dead_lettered(dlq, name="outer")
    async def outer() -> None:
        raise first.value

    with pytest.raises(ValueError, match="no 5"):
        await outer()
    assert len(waits(dlq)) == 1


@BOTH
async def test_a_store_that_hangs_costs_no_more_than_the_capture_timeout(
    make_queue: Any, store: Switched, path: Path, form: str
) -> None:
    dlq = make_queue(backend=store, spool=path, capture_timeout=0.05)
    store.hangs = True
    charge = charge_of(dlq, form)
    with anyio.fail_after(5):
        with pytest.raises(ValueError, match="no 5"):
            await call(charge, 5)
        assert await dlq.capture(Task(type="t", id="mine"), ValueError("no")) == "mine"
    assert [row.type for row in waits(dlq)] == ["charge", "t"]


@BOTH
async def test_where_the_spool_fails_too_the_users_exception_is_raised_and_both_are_told(
    dlq: Any, store: Switched, form: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise BackendError("the spool is full")

    monkeypatch.setattr(SpoolFile, "put", full)
    store.away = True
    with pytest.raises(ValueError, match="no 5") as raised:
        await call(charge_of(dlq, form, on_failure="suppress"), 5)
    told = "could not be kept.*the store is away; nor in the spool: BackendError: the spool is full"
    assert any(re.search(told, text) for text in raised.value.__notes__)
    assert any(re.search(told, r.message) for r in caplog.records if r.levelno == logging.ERROR)
    with pytest.raises(BackendUnavailable, match="the store is away") as refused:
        await dlq.capture(Task(type="t"), ValueError("no"))
    assert any("the spool did not take it either: the spool is full" in text for text in refused.value.__notes__)


async def test_a_sync_call_goes_to_the_spool_when_no_loop_answers(dlq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(_: object) -> None:
        raise RuntimeError("the interpreter shuts down")

    monkeypatch.setattr(captured, "call_soon", ended)
    monkeypatch.setattr("deadletter.engine.sync.call_soon", ended)
    assert isinstance(charge_of(dlq, "sync", on_failure="suppress")(5), Captured)
    assert len(waits(dlq)) == 1


@BOTH
async def test_what_cannot_even_be_made_is_told(dlq: Any, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise KeyError("a codec's bug")

    charge = charge_of(dlq, form)
    monkeypatch.setattr(dlq, "new_row", broken)
    with pytest.raises(ValueError, match="no 5") as raised:
        await call(charge, 5)
    assert any("could not be kept" in text and "a codec's bug" in text for text in raised.value.__notes__)
    assert waits(dlq) == []


async def test_capture_goes_to_the_spool_and_a_conflict_still_goes_to_its_caller(dlq: Any, store: Switched) -> None:
    await dlq.enqueue(Task(type="t", payload={"a": 1}, idempotency_key="k"))
    with pytest.raises(IdempotencyConflict):
        await dlq.capture(Task(type="t", payload={"a": 2}, idempotency_key="k"), ValueError("no"))
    store.away = True
    with pytest.raises(InvalidTask):
        await dlq.capture(Task(type="t"), ValueError("no"), reason="nonsense")
    assert await dlq.capture(Task(type="t", id="mine"), ValueError("no"), reason="rejected") == "mine"
    [row] = waits(dlq)
    assert (row.id, row.state, row.reason, row.ended_at_ms) == ("mine", "dead", "rejected", dlq.clock.now_ms())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_on_the_way_into_the_spool_loses_nothing(
    dlq: Any, store: Switched, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.away = True
    put, began = SpoolFile.put, anyio.Event()
    loop = asyncio.get_running_loop()

    def slow(*given: Any) -> None:
        loop.call_soon_threadsafe(began.set)
        put(*given)

    monkeypatch.setattr(SpoolFile, "put", slow)
    for function in (charge_of(dlq, "async"), lambda _: dlq.capture(Task(type="t"), ValueError("no"))):
        running = asyncio.ensure_future(function(5))
        await began.wait()
        running.cancel()
        with pytest.raises((asyncio.CancelledError, ValueError)):
            await running
        began = anyio.Event()
    assert [row.type for row in waits(dlq)] == ["charge", "t"]


async def test_it_is_given_back_in_order_with_its_times_when_the_store_is_back(
    dlq: Any, store: Switched, clock: Any, pass_until: Any
) -> None:
    store.away = True
    at = clock.now_ms()
    for n in range(3):
        await dlq.capture(Task(type="t", id=f"c{n}"), ValueError(f"no {n}"))
    with pytest.raises(ValueError, match="no 5"):
        await call(charge_of(dlq, "async"), 5)
    due = waits(dlq)[-1].due_at_ms
    clock.advance(3600)
    store.away = False
    await pass_until(lambda: not waits(dlq))
    letters = (await dlq.list()).items
    assert [(r.id, r.died_at.timestamp() * 1000) for r in reversed(letters)] == [(f"c{n}", at) for n in range(3)]
    assert {r.history[0].at.timestamp() * 1000 for r in letters} == {at}
    [pending] = (await dlq.list(Query(state="pending"))).items
    assert pending.due_at.timestamp() * 1000 == due
    assert ((await dlq.stats()).lifetime["captured"], (await dlq.stats()).spooled) == (4, 0)


async def test_the_next_successful_call_brings_it_at_once(
    dlq: Any, store: Switched, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.away = True
    await dlq.capture(Task(type="t"), ValueError("no"))
    await until(lambda: store.calls >= 2)  # tried in the background, and waits
    store.away = False
    await dlq.enqueue(Task(type="other"))
    await until(lambda: not waits(dlq))


async def test_nobody_asks_a_store_that_is_away_without_pause(dlq: Any, store: Switched, until: Any) -> None:
    store.away = True
    await dlq.capture(Task(type="t"), ValueError("no"))
    await until(lambda: store.calls == 2)
    await anyio.sleep(0.1)  # the clock stands still
    assert store.calls == 2


async def test_what_an_earlier_process_left_is_brought_by_who_opens_next(
    dlq: Any, store: Switched, path: Path, make_queue: Any, until: Any
) -> None:
    store.away = True
    await dlq.capture(Task(type="t", id="mine"), ValueError("no"))
    await dlq.aclose()
    store.away = False
    async with make_queue(backend=store, spool=path) as later:
        await until(lambda: not waits(later))
        assert (await later.get("mine")).state == "dead"


async def test_a_worker_brings_what_others_left(
    dlq: Any, store: Switched, path: Path, make_queue: Any, pass_until: Any, working: Any
) -> None:
    there = make_queue(backend=store, spool=path)
    async with working(there):
        store.away = True
        await dlq.capture(Task(type="t", id="mine"), ValueError("no"))
        await dlq.aclose()
        store.away = False
        await pass_until(lambda: not waits(there))
    assert (await there.get("mine")).state == "dead"


@pytest.mark.usefixtures("by_hand")
async def test_a_worker_of_cron_brings_it_before_it_works(dlq: Any, store: Switched, clock: Any) -> None:
    charge = charge_of(dlq, "async", max_retries=1)
    store.away = True
    with pytest.raises(ValueError, match="no 5"):
        await charge(5)
    clock.advance(60)
    store.away = False
    await dlq.worker().run_until_idle()
    [letter] = (await dlq.list()).items
    assert (letter.attempts, waits(dlq)) == (2, [])


async def test_without_threads_the_worker_brings_it_itself(
    make_queue: Any, store: Switched, path: Path, pass_until: Any, working: Any
) -> None:
    dlq = make_queue(backend=store, spool=path, threads=InlineThreads())
    store.away = True
    await dlq.capture(Task(type="t"), ValueError("no"))
    store.away = False
    async with working(dlq):
        await pass_until(lambda: not waits(dlq))


@pytest.mark.usefixtures("by_hand")
async def test_another_queues_captures_are_left_alone(
    dlq: Any, store: Switched, path: Path, make_queue: Any, until: Any
) -> None:
    other = make_queue(backend=store, spool=path, name="other")
    store.away = True
    await other.capture(Task(type="t"), ValueError("no"))
    await other.aclose()
    await dlq.capture(Task(type="t"), ValueError("no"))
    store.away = False
    assert await dlq.spooler.drain()
    assert (len(waits(dlq)), len(waits(other))) == (0, 1)


@pytest.mark.usefixtures("by_hand")
async def test_while_one_gives_back_another_does_not(dlq: Any, store: Switched) -> None:
    store.away = True
    await dlq.capture(Task(type="t"), ValueError("no"))
    store.away = False
    spool = dlq.spooler.spool
    assert spool.lease(dlq.backend.url, dlq.name, "another", dlq.clock.now_ms(), 15_000)
    assert not await dlq.spooler.drain()
    assert len(waits(dlq)) == 1
    dlq.clock.advance(15)  # it died
    assert await dlq.spooler.drain()
    assert waits(dlq) == []


@pytest.mark.usefixtures("by_hand")
async def test_what_the_store_has_already_is_not_doubled(dlq: Any, store: Switched) -> None:
    """The reply was lost, or a drainer died before it could forget it."""
    store.away = True
    await dlq.capture(Task(type="t", id="mine"), ValueError("no"))
    store.away = False
    [row] = waits(dlq)
    await store.insert(dlq.name, [spooling._fresh(row)])
    assert await dlq.spooler.drain()
    assert (await kept(dlq), waits(dlq)) == (["mine"], [])
    assert (await dlq.stats()).lifetime["captured"] == 1


@pytest.mark.usefixtures("by_hand")
async def test_a_key_or_an_id_that_was_taken_meanwhile_keeps_nothing_out(
    dlq: Any, store: Switched, caplog: pytest.LogCaptureFixture
) -> None:
    store.away = True
    await dlq.capture(Task(type="t", id="a", payload={"n": 1}), ValueError("no"))
    await dlq.capture(Task(type="t", id="b", payload={"n": 2}, idempotency_key="k"), ValueError("no"))
    await dlq.capture(Task(type="t", id="c"), ValueError("no"))
    store.away = False
    other = DeadLetterQueue(store, clock=dlq.clock)
    await other.enqueue(Task(type="t", id="a"))
    await other.enqueue(Task(type="t", id="d", idempotency_key="k"))
    for _ in range(2):  # the second is a drainer that died before it could forget
        for row in waits(dlq):
            await dlq.spooler._give_one(spooling.Spooled(0, row))
    assert await dlq.spooler.drain()
    found = await kept(dlq)
    assert (len(found), waits(dlq)) == (5, [])
    [renamed] = [id_ for id_ in found if id_.startswith("a.")]
    record = await dlq.get(renamed)
    assert (record.task.payload, record.failure.message) == ({"n": 1}, "no")
    assert "captured as a, an id that another task had" in record.history[0].message
    assert (await dlq.get("b")).state == "dead"
    assert f"what the spool had of it is task {renamed}" in caplog.text
    assert "b of the spool is kept without its idempotency key" in caplog.text


@pytest.mark.usefixtures("by_hand")
async def test_what_the_store_refuses_stays_and_is_told_and_others_go_on(
    dlq: Any, store: Switched, caplog: pytest.LogCaptureFixture
) -> None:
    store.away, store.refuses = True, "b"
    for id_ in "abc":
        await dlq.capture(Task(type="t", id=id_), ValueError("no"))
    store.away = False
    assert await dlq.spooler.drain()
    assert (await kept(dlq), [row.id for row in waits(dlq)]) == (["a", "c"], ["b"])
    assert any("b from the spool: ValueError: b is too odd" in f.text for f in await dlq.spooler.findings())
    assert "did not take a capture" in caplog.text
    store.refuses = None
    assert await dlq.spooler.drain()
    assert len(waits(dlq)) == 1  # not before its time
    dlq.clock.advance(spooling.REFUSED_MS / 1000)
    assert await dlq.spooler.drain()
    assert await kept(dlq) == ["a", "b", "c"]


@pytest.mark.usefixtures("by_hand")
async def test_an_id_that_is_taken_twice_and_a_damaged_capture_stay(
    dlq: Any, store: Switched, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.away = True
    await dlq.capture(Task(type="t", id="a", payload={"n": 1}), ValueError("no"))
    await dlq.capture(Task(type="t", id="b"), ValueError("no"))
    store.away = False
    other = DeadLetterQueue(store, clock=dlq.clock)
    for id_ in ("a", spooling._renamed(waits(dlq)[0]).id):
        await other.enqueue(Task(type="t", id=id_))
    take = SpoolFile.take
    damaged = [
        spooling.Spooled(s.n, s.row if s.row.id == "a" else None)
        for s in take(dlq.spooler.spool, store.url, "default", 0, 2**62)
    ]  # type: ignore[union-attr]
    await dlq.spooler._give(damaged)
    told = [f.text for f in await dlq.spooler.findings() if f.level == "warning"]
    assert (len(told), "belong to other tasks" in told[0], "damaged" in told[1]) == (2, True, True)


@pytest.mark.usefixtures("by_hand")
async def test_erase_reaches_the_spool(dlq: Any, store: Switched, monkeypatch: pytest.MonkeyPatch) -> None:
    store.away = True
    for n in range(3):
        await dlq.capture(Task(type="t", id=f"c{n}", payload={"customer": n % 2}), ValueError("no"))
    with pytest.raises(ValueError, match="no 5"):
        await charge_of(dlq, "async")(5)
    store.away = False
    result = await dlq.erase(Query(payload={"customer": 0}))
    assert (result.matched, result.changed, [row.type for row in waits(dlq)]) == (2, 2, ["t", "charge"])
    result = await dlq.erase(Query(type="charge", state="succeeded"))
    assert (result.changed, len(waits(dlq))) == (0, 2)
    result = await dlq.erase(Query(type="charge"))
    assert (result.changed, [row.id for row in waits(dlq)]) == (1, ["c1"])


@pytest.mark.usefixtures("by_hand")
async def test_erase_waits_for_whoever_gives_back(dlq: Any, store: Switched, pass_until: Any) -> None:
    store.away = True
    await dlq.capture(Task(type="t"), ValueError("no"))
    store.away = False
    assert dlq.spooler.spool.lease(dlq.backend.url, dlq.name, "another", dlq.clock.now_ms(), 15_000)
    changed: list[int] = []
    async with anyio.create_task_group() as group:

        async def erase() -> None:
            changed.append((await dlq.erase(Query(type="t"))).changed)

        group.start_soon(erase)
        await pass_until(lambda: changed, step=1.0)
    assert changed == [1]


async def test_a_spool_that_cannot_be_read_is_told_and_stops_nothing(
    dlq: Any, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text("nonsense " * 1000)
    assert (await dlq.stats()).spooled == 0
    await dlq.spooler.look()
    assert "how many captures wait is not known" in caplog.text
    assert "whether captures wait is not known" in caplog.text
    assert [f.level for f in await dlq.spooler.findings()] == ["error"]


async def test_a_bug_in_a_backend_does_not_end_the_giving_back(
    dlq: Any, store: Switched, monkeypatch: pytest.MonkeyPatch, pass_until: Any
) -> None:
    store.away = True
    await dlq.capture(Task(type="t"), ValueError("no"))

    def broken(*_: object) -> None:
        raise KeyError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(SpoolFile, "take", broken)
        assert not await dlq.spooler._drained()
    store.away = False
    await pass_until(lambda: not waits(dlq))


async def test_closing_does_not_wait_for_a_store_that_hangs(
    dlq: Any, store: Switched, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "_LAST_WAIT", 0.05)
    store.away = True
    await dlq.capture(Task(type="t"), ValueError("no"))
    await until(lambda: store.calls == 2)
    store.hangs = True
    dlq.spooler.store_answered()
    await until(lambda: store.calls == 3)
    with anyio.fail_after(5):
        await dlq.aclose()
    assert len(waits(dlq)) == 1


async def test_the_option_takes_a_path_or_a_spool(make_queue: Any, tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "x.spool", most=3)
    assert make_queue(spool=file).spooler.spool is file
    assert make_queue(spool=str(tmp_path / "y")).spooler.spool.path == str(tmp_path / "y")
    assert str(tmp_path / "y") in repr(make_queue(spool=tmp_path / "y").spooler)
    assert make_queue().spooler is None
    with pytest.raises(InvalidTask, match="spool: int is no spool; give the path of a file"):
        make_queue(spool=7)
    with pytest.raises(InvalidSetting, match="spool: .*there is no directory"):
        make_queue(spool=tmp_path / "none" / "x")


async def test_the_environment_names_a_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEADLETTER_URL", "memory://")
    monkeypatch.setenv("DEADLETTER_SPOOL", str(tmp_path / "x.spool"))
    dlq = DeadLetterQueue.from_env()
    assert dlq.spooler is not None
    assert dlq.spooler.spool.path == str(tmp_path / "x.spool")
