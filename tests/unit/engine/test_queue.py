"""Enqueueing, keys, single letters: what a user calls."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import anyio
import attrs
import pytest

from deadletter import (
    BackendUnavailable,
    BatchFailed,
    DeadLetterQueue,
    IdempotencyConflict,
    InvalidTask,
    NotDead,
    Priority,
    Query,
    Reason,
    State,
    Task,
    TaskConflict,
    TaskNotFound,
)
from deadletter.backends import backend_from_url
from deadletter.interfaces import Codec, Instrumentation
from deadletter.rules.codec import JsonCodec
from deadletter.testing import VirtualClock

pytestmark = pytest.mark.anyio


async def stored(dlq: DeadLetterQueue) -> int:
    return sum((await dlq.stats()).by_state.values())


async def test_a_task_comes_back_as_it_was_given(dlq, clock):
    task = Task(
        type="t",
        payload={"a": [1, {"b": None}], "ü": 1.5},
        id="my:id-1",
        priority="high",
        max_retries=7,
        idempotency_key="k",
        timeout=timedelta(seconds=9),
        on_uncertain="dead",
        metadata={"tenant": "x"},
    )
    assert await dlq.enqueue(task) == "my:id-1"
    record = await dlq.get("my:id-1")
    assert attrs.evolve(record.task, timeout=timedelta(seconds=record.task.timeout)) == task
    assert (record.state, record.attempts, record.queue) == (State.PENDING, 0, "default")
    assert record.created_at == record.due_at == datetime.fromtimestamp(clock.now_ms() / 1000, UTC)


async def test_an_unknown_id_is_not_found(dlq):
    for call in (dlq.get, dlq.retry, dlq.cancel, lambda id_: dlq.process_task(id_, print)):
        with pytest.raises(TaskNotFound, match="nobody"):
            await call("nobody")


async def test_queues_with_different_names_never_see_each_other(make_queue):
    one, other = make_queue(name="one"), make_queue(name="other")
    task = Task(type="t", idempotency_key="k")
    await one.enqueue(task)
    with pytest.raises(TaskNotFound):
        await other.get(task.id)
    assert await other.enqueue(attrs.evolve(task, payload={"n": 2})) == task.id, "neither id nor key is shared"


# Repeating


async def test_the_same_id_again_stores_nothing(dlq):
    task = Task(type="t", payload={"a": 1, "b": 2})
    await dlq.enqueue(task)
    again = Task(type="t", payload={"b": 2, "a": 1}, id=task.id, metadata={"traceparent": "new"})
    assert await dlq.enqueue(again) == task.id
    assert await stored(dlq) == 1
    assert (await dlq.get(task.id)).task.metadata == {}


@pytest.mark.parametrize(
    "change", [{"type": "other"}, {"payload": {"n": 2}}], ids=lambda value: str(value).partition(" at 0x")[0]
)
async def test_the_same_id_for_something_else_is_a_conflict(dlq, change):
    task = Task(type="t", payload={"n": 1})
    await dlq.enqueue(task)
    with pytest.raises(TaskConflict, match=task.id):
        await dlq.enqueue(attrs.evolve(task, **change))
    assert await stored(dlq) == 1


def keyed(n: int = 1, type: str = "t") -> Task:
    return Task(type=type, payload={"n": n}, idempotency_key="k")


async def test_a_live_key_answers_the_bound_task(dlq, claim_elsewhere):
    first = await dlq.enqueue(keyed())
    assert await dlq.enqueue(keyed()) == first
    await claim_elsewhere(dlq, first)
    assert await dlq.enqueue(keyed()) == first
    assert (await dlq.stats()).lifetime["duplicates"] == 2


async def test_a_key_with_another_payload_is_a_conflict(dlq):
    first = await dlq.enqueue(keyed())
    with pytest.raises(IdempotencyConflict, match=first) as caught:
        await dlq.enqueue(keyed(2))
    assert "k" in str(caught.value)
    assert await stored(dlq) == 1


async def test_keys_are_scoped_by_type(dlq):
    assert await dlq.enqueue(keyed()) != await dlq.enqueue(keyed(2, type="other"))


async def test_a_key_is_remembered_after_success_for_idempotency_ttl(make_queue, clock):
    dlq = make_queue(idempotency_ttl=7200, keep_finished=900)
    first = await dlq.enqueue(keyed())
    await dlq.process_task(first, lambda _: None)
    clock.advance(7199)
    assert await dlq.enqueue(keyed()) == first
    with pytest.raises(IdempotencyConflict):
        await dlq.enqueue(keyed(2))
    clock.advance(1)
    assert await dlq.enqueue(keyed(2)) != first


async def test_a_key_never_lapses_while_its_task_is_live_or_dead(make_queue, clock, kill):
    dlq = make_queue(idempotency_ttl=1, keep_finished=900, dlq_ttl=None)
    live = await dlq.enqueue(keyed(type="live"))
    (dead,) = await kill(dlq, keyed(type="dead"))
    clock.advance(10 * 365 * 24 * 3600)
    await dlq.sweep()
    assert await dlq.enqueue(keyed(type="live")) == live
    assert await dlq.enqueue(keyed(type="dead")) == dead


async def test_a_dead_key_answers_its_letter_with_a_warning(dlq, kill, caplog):
    (dead,) = await kill(dlq, keyed())
    with caplog.at_level(logging.WARNING, "deadletter.queue"):
        assert await dlq.enqueue(keyed()) == dead
        assert await dlq.enqueue_many([keyed()]) == [dead]
    assert [dead in message for message in caplog.messages] == [True, True]
    assert (await dlq.get(dead)).state is State.DEAD
    assert (await dlq.stats()).lifetime["duplicates"] == 2


async def test_on_dead_replay_retries_the_letter(dlq, kill, caplog):
    (dead,) = await kill(dlq, keyed())
    assert await dlq.enqueue(keyed(), on_dead="replay") == dead
    record = await dlq.get(dead)
    assert (record.state, record.replays) == (State.PENDING, 1)
    assert await dlq.enqueue(keyed(), on_dead="replay") == dead, "a live task is left alone"
    assert (await dlq.get(dead)).replays == 1
    assert not caplog.messages


async def test_on_dead_is_checked(dlq):
    with pytest.raises(InvalidTask, match="on_dead"):
        await dlq.enqueue(keyed(), on_dead="bury")


async def test_losing_the_race_to_replay_is_no_error(dlq, kill, after_the_next):
    """Somebody else retries the letter between the enqueue that met it and its own retry."""
    (dead,) = await kill(dlq, keyed())
    after_the_next("insert", lambda: dlq.retry(dead))
    assert await dlq.enqueue(keyed(), on_dead="replay") == dead
    assert (await dlq.get(dead)).replays == 1


@pytest.mark.parametrize("way", ["purge", "cancel", "erase"])
async def test_a_key_is_free_at_once_after(dlq, kill, way):
    if way == "cancel":
        first = await dlq.enqueue(keyed())
        assert await dlq.cancel(first) is True
    else:
        (first,) = await kill(dlq, keyed())
        assert (await getattr(dlq, way)(Query(ids=[first]))).changed == 1
    second = await dlq.enqueue(keyed(2))
    assert second != first
    with pytest.raises(TaskNotFound):
        await dlq.get(first)
    assert await dlq.enqueue(attrs.evolve(keyed(), id=first, idempotency_key=None)) == first, (
        "a tombstone stores nothing"
    )
    assert await stored(dlq) == 1


async def test_fifty_racing_enqueues_with_one_key_are_one_task(url, anyio_backend, tmp_path):
    """From tasks of one loop, and from loops in threads of their own."""
    backend = backend_from_url(url)
    ids: list[str] = []

    async def race(queue: DeadLetterQueue, n: int) -> None:
        async def one() -> None:
            ids.append(await queue.enqueue(keyed()))

        async with anyio.create_task_group() as group:
            for _ in range(n):
                group.start_soon(one)

    queue = DeadLetterQueue(backend)
    await queue.open()
    threads = [threading.Thread(target=anyio.run, args=(race, queue, 10)) for _ in range(4)]
    for thread in threads:
        thread.start()
    await race(queue, 10)
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join)
    assert len(ids) == 50
    assert len(set(ids)) == 1
    assert await stored(queue) == 1
    await queue.aclose()
    await backend.aclose()


# Times


@pytest.mark.parametrize(
    "delay", [30, timedelta(seconds=30), "datetime"], ids=lambda value: str(value).partition(" at 0x")[0]
)
async def test_a_delayed_task_waits(dlq, clock, delay):
    if delay == "datetime":
        delay = datetime.fromtimestamp(clock.now_ms() / 1000 + 30, UTC)
    ran = []
    dlq.processor("t")(lambda task: ran.append(task.id))
    task_id = await dlq.enqueue(Task(type="t", delay=delay))
    record = await dlq.get(task_id)
    assert record.due_at - record.created_at == timedelta(seconds=30)
    clock.advance(29.999)
    await dlq.worker().run_until_idle()
    assert ran == []
    clock.advance(0.001)
    await dlq.worker().run_until_idle()
    assert ran == [task_id]


async def test_expiry_is_for_what_never_had_an_attempt_end(dlq, clock):
    late, tried = Task(type="t", expires_in=60), Task(type="t", expires_in=timedelta(seconds=60))
    await dlq.enqueue_many([late, tried])
    assert (await dlq.get(late.id)).expires_at == (await dlq.get(late.id)).created_at + timedelta(seconds=60)
    await dlq.process_task(tried.id, _raise)
    clock.advance(60)
    dlq.processor("t")(lambda _: None)
    await dlq.worker().run_until_idle()
    record = await dlq.get(late.id)
    assert (record.state, record.reason, record.attempts) == (State.DEAD, Reason.EXPIRED, 0)
    assert record.failure.error_type == "deadletter.Expired"
    assert (await dlq.get(tried.id)).state is State.SUCCEEDED


def _raise(_: Task) -> None:
    raise ValueError("no")


async def test_a_letter_goes_when_its_own_stamp_says_so(make_queue, clock, kill):
    """Whoever sweeps: the stamp is that of the process where it died."""
    dlq, other = make_queue(dlq_ttl=timedelta(hours=1)), make_queue(dlq_ttl=None)
    (dead,) = await kill(dlq, Task(type="t"))
    (kept,) = await kill(other, Task(type="t"))
    clock.advance(3600)
    await other.sweep()
    with pytest.raises(TaskNotFound):
        await dlq.get(dead)
    record = await dlq.get(kept)
    assert (record.state, record.expires_at) == (State.DEAD, None)
    assert (await dlq.stats()).lifetime["aged_out"] == 1


async def test_a_finished_task_is_remembered_without_its_payload(dlq, clock):
    task_id = await dlq.enqueue(Task(type="t", payload={"big": "x" * 1000}))
    await dlq.process_task(task_id, lambda _: None)
    record = await dlq.get(task_id)
    assert (record.state, record.task.payload) == (State.SUCCEEDED, {})
    assert await dlq.process_task(task_id, _raise) is True
    clock.advance(3600)
    await dlq.sweep()
    with pytest.raises(TaskNotFound):
        await dlq.get(task_id)


# What is refused


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", ""),
        ("type", "a\nb"),
        ("payload", [1]),
        ("id", "a b"),
        ("priority", "urgent"),
        ("max_retries", -1),
        ("idempotency_key", ""),
        ("delay", -1),
        ("delay", datetime(2026, 1, 1)),  # noqa: DTZ001 - what is refused
        ("timeout", 0),
        ("expires_in", float("nan")),
        ("on_uncertain", "maybe"),
        ("metadata", {"a": 1}),
        ("origin", "celery"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
async def test_a_bad_field_is_named(dlq, field, value):
    with pytest.raises((InvalidTask, TypeError), match=field) as caught:
        await dlq.enqueue(Task(**{"type": "t", field: value}))
    assert field == "origin" or isinstance(caught.value, ValueError)
    assert await stored(dlq) == 0


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"a": [float("nan")]}, r"payload\.a\[0\]"),
        ({"a": object()}, r"payload\.a"),
        ({"a": 2**64}, r"payload\.a"),
        ({1: "x"}, "payload"),
        ({"a": {"$redacted": True}}, "a is the place of a hidden value"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
async def test_a_bad_payload_is_named_by_its_path_and_nothing_is_stored(dlq, payload, path):
    with pytest.raises(InvalidTask, match=path):
        await dlq.enqueue(Task(type="t", payload=payload))
    assert await stored(dlq) == 0


async def test_the_place_of_a_hidden_value_is_refused_whatever_the_codec_writes(make_queue):
    class Reversed(Codec):
        def encode(self, document):
            return JsonCodec().encode(document)[::-1]

        def decode(self, body):
            return JsonCodec().decode(body[::-1])

    dlq = make_queue(codec=Reversed())
    with pytest.raises(InvalidTask, match="hidden"):
        await dlq.enqueue(Task(type="t", payload={"a": {"$redacted": True}}))
    task_id = await dlq.enqueue(Task(type="t", payload={"a": 1}))
    assert (await dlq.get(task_id)).task.payload == {"a": 1}


async def test_a_payload_that_is_too_large_is_refused(make_queue):
    dlq = make_queue(max_payload_bytes=20)
    await dlq.enqueue(Task(type="t", payload={"a": "x" * 10}))
    with pytest.raises(InvalidTask, match="max_payload_bytes=20"):
        await dlq.enqueue(Task(type="t", payload={"a": "x" * 20}))


async def test_what_is_no_task_is_refused(dlq):
    with pytest.raises(InvalidTask, match="dict is no deadletter.Task"):
        await dlq.enqueue({"type": "t"})


# Many at once


async def test_enqueue_many_answers_the_ids_in_order(dlq):
    tasks = [Task(type="t", payload={"n": n}) for n in range(250)]
    assert await dlq.enqueue_many(tasks) == [task.id for task in tasks]
    assert await dlq.enqueue_many(tasks) == [task.id for task in tasks], "safe to repeat"
    assert await stored(dlq) == 250
    assert await dlq.enqueue_many([]) == []


async def test_enqueue_many_checks_all_before_it_stores_one(dlq):
    tasks = [Task(type="t") for _ in range(150)] + [Task(type="t", payload={"a": object()})]
    with pytest.raises(InvalidTask, match=r"payload\.a") as caught:
        await dlq.enqueue_many(tasks)
    assert "task 150" in caught.value.__notes__[0]
    assert await stored(dlq) == 0


async def test_a_conflict_fails_its_batch_and_says_what_is_stored(dlq):
    await dlq.enqueue(keyed())
    tasks = [Task(type="t") for _ in range(130)]
    tasks[120] = keyed(2)
    with pytest.raises(BatchFailed) as caught:
        await dlq.enqueue_many(tasks)
    assert caught.value.index == 120
    assert caught.value.stored == [task.id for task in tasks[:100]]
    assert isinstance(caught.value.__cause__, IdempotencyConflict)
    assert await stored(dlq) == 101, "all or nothing per batch"
    tasks[120] = Task(type="t")
    await dlq.enqueue_many(tasks)
    assert await stored(dlq) == 131


async def test_one_id_for_two_tasks_of_a_batch_is_a_conflict(dlq):
    with pytest.raises(BatchFailed) as caught:
        await dlq.enqueue_many([Task(type="t", id="a"), Task(type="t", id="a", payload={"n": 2})])
    assert (caught.value.index, caught.value.stored) == (1, [])
    assert isinstance(caught.value.__cause__, TaskConflict)


async def test_equal_keys_within_a_batch_are_one_task(dlq):
    ids = await dlq.enqueue_many([keyed(), keyed()])
    assert ids[0] == ids[1]
    assert await stored(dlq) == 1


async def test_a_conflict_of_one_caller_is_not_anothers(dlq):
    """Single enqueues that wait at the same time go to the store together."""
    await dlq.enqueue(keyed())
    results: dict[int, object] = {}

    async def one(n: int) -> None:
        try:
            results[n] = await dlq.enqueue(keyed(2) if n == 3 else Task(type="t", id=f"id{n}"))
        except IdempotencyConflict as error:
            results[n] = error

    async with anyio.create_task_group() as group:
        for n in range(8):
            group.start_soon(one, n)
    assert isinstance(results.pop(3), IdempotencyConflict)
    assert results == {n: f"id{n}" for n in range(8) if n != 3}


# Cancel


async def test_cancel_takes_a_pending_task_away(dlq):
    task = Task(type="t")
    await dlq.enqueue(task)
    assert await dlq.cancel(task.id) is True
    for call in (dlq.get, dlq.cancel):
        with pytest.raises(TaskNotFound):
            await call(task.id)
    assert await dlq.enqueue(task) == task.id
    assert await stored(dlq) == 0
    assert (await dlq.stats()).lifetime["cancelled"] == 1


async def test_cancel_is_for_pending_tasks_only(dlq, kill, claim_elsewhere):
    (dead,) = await kill(dlq, Task(type="t"))
    running = await dlq.enqueue(Task(type="t"))
    await claim_elsewhere(dlq, running)
    assert await dlq.cancel(dead) is False
    assert await dlq.cancel(running) is False
    assert await stored(dlq) == 2


# The object itself


async def test_it_closes_what_it_opened_and_not_what_it_was_given(backend, url, tmp_path):
    closed = []

    class Counting(type(backend)):
        async def aclose(self):
            closed.append(self)
            await super().aclose()

    backend.__class__ = Counting
    async with DeadLetterQueue(backend) as dlq:
        await dlq.enqueue(Task(type="t"))
    assert closed == []
    own = DeadLetterQueue("memory://")
    await own.enqueue(Task(type="t"))
    await own.aclose()
    await own.aclose()


async def test_it_works_again_after_it_was_closed(make_queue, url, clock):
    """Its lease keeper starts anew, too."""
    dlq = make_queue()
    for n in range(2):
        task_id = await dlq.enqueue(Task(type="t", payload={"n": n}))
        assert await dlq.process_task(task_id, lambda _: None)
        await dlq.aclose()


def test_its_repr_names_store_and_queue():
    assert repr(DeadLetterQueue("memory://", name="mail")) == "<DeadLetterQueue 'mail' on memory://>"


def test_from_url_is_the_constructor():
    assert DeadLetterQueue.from_url("memory://", name="mail").name == "mail"


def test_what_is_no_backend_is_refused():
    with pytest.raises(InvalidTask, match="backend: int"):
        DeadLetterQueue(3)


class Watching(Instrumentation):
    def __init__(self):
        self.attempts = []
        self.operations = []
        self.starts = []

    @contextmanager
    def operation(self, name, *, queue, task_id=None, count=1):
        try:
            yield
        except Exception as error:
            self.operations.append((name, queue, task_id, count, type(error).__name__))
            raise
        self.operations.append((name, queue, task_id, count, None))

    def metadata(self):
        return {"traceparent": "00-1", "tenant": "watcher"}

    def attempt(self, task, *, queue, number, start):
        watcher = self
        watcher.starts.append(start)

        class Span:
            traceparent = f"00-of-{number}"

            def __enter__(self):
                return self

            def __exit__(self, *_):
                return None

            def ended(self, outcome):
                watcher.attempts.append((task.id, queue, number, type(outcome).__name__))

        return Span()


async def test_instrumentation_adds_metadata_and_watches_attempts(make_queue):
    watching = Watching()
    dlq = make_queue(tracing=watching)
    task_id = await dlq.enqueue(Task(type="t", metadata={"tenant": "mine"}))
    assert (await dlq.get(task_id)).task.metadata == {"traceparent": "00-1", "tenant": "mine"}
    await dlq.process_task(task_id, _raise)
    await dlq.process_task(task_id, lambda _: None)
    assert watching.attempts == [(task_id, "default", 1, "Failed"), (task_id, "default", 2, "Succeeded")]


async def test_an_attempt_starts_with_what_is_known_of_its_time(make_queue, clock):
    watching = Watching()
    dlq = make_queue(retry=[30])
    dlq.watchers += (watching,)
    task_id = await dlq.enqueue(Task(type="t", delay=10))
    clock.advance(12)
    await dlq.process_task(task_id, _raise)
    clock.advance(31)
    await dlq.process_task(task_id, lambda _: None)
    first, second = watching.starts
    assert (first.late, first.waited, first.earlier) == (2, 12, None)
    assert (second.waited, second.earlier) == (None, "00-of-1")
    assert 0 <= second.late <= 4, "its delay has a jitter of a tenth"
    assert (await dlq.get(task_id)).state is State.SUCCEEDED


async def test_several_may_watch_and_none_disturbs_another(make_queue, caplog):
    class Broken(Watching):
        def attempt(self, task, **_):
            raise RuntimeError("no span")

    first, broken, last = Watching(), Broken(), Watching()
    dlq = make_queue(tracing=first)
    dlq.watchers += (broken, last)
    task_id = await dlq.enqueue(Task(type="t"))
    assert await dlq.process_task(task_id, lambda _: None) is True
    for each in (first, last):
        assert each.attempts == [(task_id, "default", 1, "Succeeded")]
        assert [name for name, *_ in each.operations] == ["enqueue", "process_task"]
    assert "no span" in caplog.text


async def test_a_failure_keeps_the_mark_of_its_attempt(make_queue):
    dlq = make_queue(tracing=Watching())
    task_id = await dlq.enqueue(Task(type="t"))
    await dlq.process_task(task_id, _raise)
    assert (await dlq.get(task_id)).failure.traceparent == "00-of-1"


async def test_instrumentation_sees_the_calls_that_change_the_queue(make_queue):
    watching = Watching()
    dlq = make_queue(tracing=watching)
    task = Task(type="t")
    await dlq.enqueue(task)
    await dlq.enqueue_many([Task(type="t"), Task(type="t")])
    await dlq.process_task(task_id=task.id, processor=lambda _: False)
    await dlq.get(task.id)
    await dlq.retry(task.id)
    with pytest.raises(NotDead):
        await dlq.retry(task.id)
    await dlq.retry_all(Query(type="t"))
    await dlq.purge(limit=1)
    await dlq.cancel(task.id)
    await dlq.pause("t", why="noon")
    await dlq.resume("t")
    await dlq.erase(Query(type="t"))
    captured = await dlq.capture(Task(type="t"), ValueError("x"))
    assert watching.operations[:5] == [
        ("enqueue", "default", task.id, 1, None),
        ("enqueue_many", "default", None, 2, None),
        ("process_task", "default", task.id, 1, None),
        ("retry", "default", task.id, 1, None),
        ("retry", "default", task.id, 1, "NotDead"),
    ]
    named = ["retry_all", "purge", "cancel", "pause", "resume", "erase", "capture"]
    assert [name for name, *_ in watching.operations[5:]] == named
    assert watching.operations[-1] == ("capture", "default", captured, 1, None)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_operation_that_cannot_be_watched_goes_on(make_queue, caplog, when):
    class Broken(Watching):
        @contextmanager
        def operation(self, name, **_):
            if when == "after":
                yield
            raise RuntimeError("no span")

    dlq = make_queue(tracing=Broken())
    task_id = await dlq.enqueue(Task(type="t"))
    assert (await dlq.get(task_id)).state is State.PENDING
    assert "no span" in caplog.text


async def test_instrumentation_that_fails_disturbs_no_task(make_queue, caplog):
    class Broken(Watching):
        def operation(self, name, *, queue, task_id=None, count=1):
            raise RuntimeError("no operation")

        def metadata(self):
            raise RuntimeError("no context")

        def attempt(self, task, *, queue, number, start):
            raise RuntimeError("no span")

    dlq = make_queue(tracing=Broken())
    task_id = await dlq.enqueue(Task(type="t"))
    assert await dlq.process_task(task_id, lambda _: None) is True
    assert "no context" in caplog.text
    assert "no span" in caplog.text


async def test_priorities_are_kept(dlq):
    ids = await dlq.enqueue_many([Task(type="t", priority=p) for p in Priority])
    assert [(await dlq.get(task_id)).task.priority for task_id in ids] == list(Priority)


async def test_wait_for_returns_at_its_time_or_at_the_ring(make_queue, clock, until):
    from deadletter.runtime.loops import Bell

    for dlq in (make_queue(), make_queue(clock=None)):
        bell = Bell()
        bell.ring()
        await dlq.wait_for(bell, 3600)
    async with anyio.create_task_group() as group:
        group.start_soon(make_queue().wait_for, Bell(), 30)
        await until(lambda: clock.sleepers)
        clock.advance(30)


def test_the_virtual_clock_is_used_everywhere():
    clock = VirtualClock()
    assert DeadLetterQueue("memory://", clock=clock).backend._clock is clock


async def test_a_letter_that_is_retried_in_a_race_has_one_winner(dlq, kill):
    (dead,) = await kill(dlq, Task(type="t"))
    results = []

    async def retry() -> None:
        try:
            results.append((await dlq.retry(dead)).replays)
        except NotDead:
            results.append("not dead")

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(retry)
    assert sorted(map(str, results)) == ["1", *["not dead"] * 4]


async def test_a_store_that_fails_midway_says_what_is_stored(dlq, backend, monkeypatch):
    insert, calls = backend.insert, []

    async def once(queue, rows):
        calls.append(len(rows))
        if len(calls) > 1:
            raise BackendUnavailable("away")
        return await insert(queue, rows)

    monkeypatch.setattr(backend, "insert", once)
    tasks = [Task(type="t") for _ in range(150)]
    with pytest.raises(BatchFailed, match="away") as caught:
        await dlq.enqueue_many(tasks)
    assert (caught.value.index, caught.value.stored) == (100, [task.id for task in tasks[:100]])


def test_from_env_takes_the_url_of_the_environment(monkeypatch):
    monkeypatch.setenv("DEADLETTER_URL", "memory://")
    monkeypatch.setenv("DEADLETTER_QUEUE", "mail")
    assert repr(DeadLetterQueue.from_env()) == "<DeadLetterQueue 'mail' on memory://>"
    assert DeadLetterQueue.from_env(name="sms").name == "sms"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_forked_child_has_a_queue_of_its_own(dlq):
    """What the parent was in the middle of is not the child's."""

    async def fork(_):
        dlq._apply_one._line().busy = True
        child = os.fork()
        if child == 0:
            os._exit(0 if dlq.keeper.idle and not dlq._apply_one._lines else 1)
        dlq._apply_one.forget()
        assert not dlq.keeper.idle
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert await dlq.process_task(await dlq.enqueue(Task(type="t")), fork)


async def test_a_span_that_fails_disturbs_no_task(make_queue, caplog):
    class Broken(Watching):
        def attempt(self, task, *, queue, number, start):
            class Span:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    raise RuntimeError("no end")

                def ended(self, outcome):
                    raise RuntimeError("no ears")

            return Span()

    dlq = make_queue(tracing=Broken())
    assert await dlq.process_task(await dlq.enqueue(Task(type="t")), lambda _: None) is True
    assert "no ears" in caplog.text
    assert "no end" in caplog.text
