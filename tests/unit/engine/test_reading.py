"""Pages, scans, groups, stats."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from deadletter import InvalidQuery, PermanentError, Query, Reason, State, Task
from deadletter.engine import reading
from deadletter.interfaces import Backend

pytestmark = pytest.mark.anyio


async def pages(dlq, query, limit):
    ids, cursor, totals = [], None, []
    while True:
        page = await dlq.list(query, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        ids += [record.id for record in page.items]
        totals.append(page.total)
        assert page.total_at_least >= len(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return ids, totals


@pytest.mark.parametrize("limit", [1, 3, 5, 10, 11, 50])
async def test_pages_cover_all_once_even_where_times_are_equal(dlq, kill, clock, limit):
    ids = []
    for _ in range(2):
        ids += await kill(dlq, *[Task(type="t", priority=("high", "low")[n % 2]) for n in range(5)])
        clock.advance(1)
    expected = sorted(ids[5:], reverse=True) + sorted(ids[:5], reverse=True)
    found, totals = await pages(dlq, Query(), limit)
    assert found == expected, "newest death first"
    assert set(totals) == {10}
    found, totals = await pages(dlq, Query(error_contains="CANNOT"), limit)
    assert found == expected
    assert set(totals) == {10}
    found, totals = await pages(dlq, Query(ids=ids), limit)
    assert (found, set(totals)) == (expected, {10})
    lows = [id_ for id_ in expected if (await dlq.get(id_)).task.priority == "low"]
    assert await pages(dlq, Query(priority="low"), limit) == (lows, [4] * -(-4 // limit))


@pytest.mark.parametrize("limit", [0, -1, 1001, "5", True, 2.5])
async def test_a_bad_limit_is_refused(dlq, limit):
    with pytest.raises(InvalidQuery, match="limit"):
        await dlq.list(limit=limit)


async def test_a_bad_cursor_is_refused(dlq):
    with pytest.raises(InvalidQuery, match="cursor"):
        await dlq.list(cursor="no page gave this out")


async def test_a_list_is_of_one_state(dlq, kill):
    pending = await dlq.enqueue(Task(type="t"))
    (dead,) = await kill(dlq, Task(type="t"))
    assert [record.id for record in (await dlq.list()).items] == [dead]
    assert [record.id for record in (await dlq.list(Query(state="pending"))).items] == [pending]
    with pytest.raises(InvalidQuery, match="state"):
        await dlq.list(Query(state=None))
    both = await dlq.list(Query(state=None, ids=[dead, pending, "nobody"]))
    assert {record.id for record in both.items} == {dead, pending}
    assert (await dlq.list(Query(ids=[]))).items == []


async def test_what_changed_meanwhile_is_not_told_by_half(dlq, kill, after_the_next):
    """A search of payloads reads too little of a row to show it, so it is left out."""
    (dead,) = await kill(dlq, Task(type="t", payload={"n": 1}))
    after_the_next("scan", lambda: dlq.retry(dead))
    assert (await dlq.list(Query(payload={"n": 1}))).items == []


@pytest.mark.parametrize("counts", [True, False], ids=["the store counts", "the store cannot"])
async def test_a_filtered_total_is_exact_where_few_rows_decide_it(dlq, kill, clock, backend, monkeypatch, counts):
    """And a lower bound where more would have to be looked at; with the same answers from any store."""
    if not counts:
        monkeypatch.setattr(type(backend), "count", Backend.count)
    for n in range(6):
        await kill(dlq, Task(type=f"t{n % 2}"))
        clock.advance(1)
    middle = (await dlq.list(limit=3)).items[-1].died_at
    asked = {3: Query(older_than=middle, newer_than=middle - timedelta(seconds=2)), 4: Query(older_than=middle)}
    asked |= {2: Query(type="t0", older_than=middle), 6: Query(error_type="deadletter.PermanentError")}
    for total, query in asked.items():
        page = await dlq.list(query, limit=1)
        assert (page.total, page.total_at_least) == (total, total)
    monkeypatch.setattr(reading, "COUNTED", 2)
    monkeypatch.setattr(reading, "_STEP", 1)
    page = await dlq.list(Query(older_than=middle), limit=1)
    assert (page.total, page.total_at_least) == (None, 2)


async def test_totals_come_from_the_tally_where_it_answers(dlq, kill, monkeypatch):
    await kill(dlq, *[Task(type=f"t{n % 3}", priority="high") for n in range(9)])
    monkeypatch.setattr(reading, "COUNTED", 0)  # nothing may be looked through
    for query, total in [
        (Query(), 9),
        (Query(type="t1"), 3),
        (Query(priority="high", reason="permanent"), 9),
        (Query(priority="low"), 0),
        (Query(state="pending"), 0),
    ]:
        assert (await dlq.list(query, limit=2)).total == total


async def test_else_by_looking_through_a_bounded_number(dlq, kill, monkeypatch):
    await kill(dlq, *[Task(type=f"t{n % 3}", payload={"x": 1}) for n in range(12)])
    page = await dlq.list(Query(payload={"x": 1}), limit=2)
    assert (page.total, page.total_at_least) == (12, 12)
    monkeypatch.setattr(reading, "COUNTED", 5)
    page = await dlq.list(Query(payload={"x": 1}), limit=2)
    assert page.total is None
    assert page.total_at_least >= 3


async def test_every_condition_narrows(dlq, kill, clock):
    first, second = await kill(
        dlq,
        Task(type="mail.a", payload={"customer": {"id": 7}, "why": "Gone Away"}, metadata={"tenant": "x"}),
        Task(type="mail.b", payload={"why": "other"}, priority="low", idempotency_key="k"),
    )
    clock.advance(10)
    (third,) = await kill(dlq, Task(type="sms", payload={"why": "late"}))
    record = await dlq.get(first)
    for query, expected in [
        (Query(type="mail.*"), {first, second}),
        (Query(type="mail.a"), {first}),
        (Query(payload={"customer.id": 7}), {first}),
        (Query(metadata={"tenant": "x"}), {first}),
        (Query(error_contains="gone away"), {first}),
        (Query(error_type="deadletter.PermanentError"), {first, second, third}),
        (Query(error_type="ValueError"), set()),
        (Query(fingerprint=record.failure.fingerprint), {first}),
        (Query(idempotency_key="k"), {second}),
        (Query(priority="low", type="mail.*"), {second}),
        (Query(older_than=10), {first, second}),
        (Query(newer_than=timedelta(seconds=5)), {third}),
        (Query(reason="rejected"), set()),
    ]:
        assert {found.id for found in (await dlq.list(query)).items} == expected, query
        assert {found.id async for found in dlq.scan(query)} == expected, query


async def test_scan_goes_through_all_states(dlq, kill, claim_elsewhere):
    ids = set(await dlq.enqueue_many([Task(type="t", id=name) for name in ("pending", "running", "done")]))
    await claim_elsewhere(dlq, "running")
    await dlq.process_task("done", lambda _: None)
    ids |= set(await kill(dlq, Task(type="t", id="dead")))
    assert {record.id async for record in dlq.scan(Query(state=None))} == ids
    assert {record.id async for record in dlq.scan(Query(state=None, ids=["done", "dead"]))} == {"done", "dead"}
    assert [record.id async for record in dlq.scan()] == ["dead"]
    assert [record async for record in dlq.scan(Query(ids=[]))] == []


async def test_scan_pages_by_itself(dlq, kill, backend):
    type(backend).scan_limit, before = 7, type(backend).scan_limit
    try:
        ids = await kill(dlq, *[Task(type="t") for _ in range(20)])
        assert {record.id async for record in dlq.scan()} == set(ids)
        assert {record.id for record in (await dlq.list(limit=15)).items} <= set(ids)
    finally:
        type(backend).scan_limit = before


async def test_groups_are_by_cause(make_queue, clock):
    def first(task):
        raise ValueError(f"no user {task.payload['n']}")

    def second(task):
        raise KeyError(task.payload["n"])

    for release, body, n in [("1", first, 1), ("2", first, 22), ("2", second, 3), ("2", first, 333)]:
        dlq = make_queue(release=release, max_retries=0)
        task_id = await dlq.enqueue(Task(type="t", payload={"n": n}))
        await dlq.process_task(task_id, body)
        clock.advance(1)
    large, small = await dlq.groups()
    assert (large.count, large.type, large.error_type, large.releases) == (3, "t", "ValueError", ["1", "2"])
    assert (large.message, large.sample_id) == ("no user 333", task_id)
    assert (large.last_seen - large.first_seen).total_seconds() == 3
    assert large.key == (await dlq.get(task_id)).failure.fingerprint
    assert (small.count, small.error_type) == (1, "KeyError")
    (narrowed,) = await dlq.groups(Query(error_contains="user"))
    assert (narrowed.key, narrowed.count) == (large.key, 3)
    assert await dlq.groups(Query(type="nothing")) == []


@pytest.mark.parametrize(
    ("by", "key"),
    [
        ("type", "t"),
        ("reason", "permanent"),
        ("error_type", "deadletter.PermanentError"),
        ("release", "1"),
        ("worker", "process_task:"),
    ],
)
async def test_groups_by_other_things(make_queue, kill, by, key):
    dlq = make_queue(release="1")
    await kill(dlq, Task(type="t"))
    (group,) = await dlq.groups(by=by)
    assert group.key.startswith(key)
    assert group.count == 1


async def test_groups_of_named_letters_are_of_these_alone(dlq, kill):
    ids = await kill(dlq, *[Task(type=f"type-{n % 2}") for n in range(4)])
    found = await dlq.groups(Query(ids=ids[:2], type="type-*"), by="type")
    assert [(group.key, group.count) for group in found] == [("type-0", 1), ("type-1", 1)]
    assert await dlq.groups(Query(ids=[]), by="type") == []


async def test_groups_say_what_they_cannot(dlq):
    with pytest.raises(InvalidQuery, match="by"):
        await dlq.groups(by="colour")
    with pytest.raises(InvalidQuery, match="state"):
        await dlq.groups(Query(state="pending"))


async def test_a_group_of_more_than_a_hundred_kinds(dlq, kill):
    await kill(dlq, *[Task(type=f"t{n}") for n in range(120)])
    groups = await dlq.groups(by="type")
    assert len(groups) == 120
    assert all(group.message for group in groups)


async def test_stats_count_everything(dlq, kill, clock):
    empty = await dlq.stats()
    assert empty.by_state == {"pending": 0, "running": 0, "succeeded": 0, "dead": 0}
    assert empty.by_priority == {"high": 0, "normal": 0, "low": 0}
    assert (empty.oldest_pending, empty.oldest_dead, empty.overdue, empty.workers) == (None, None, {}, [])
    await kill(dlq, Task(type="a", priority="high"), Task(type="b"))
    clock.advance(5)
    await dlq.enqueue_many([Task(type="a"), Task(type="a", delay=3600)])
    clock.advance(60)
    stats = await dlq.stats()
    assert {type(name) for name in (*stats.by_state, *stats.by_reason)} == {str}, "what JSON takes as keys"
    assert (stats.by_state["dead"], stats.by_state["pending"]) == (2, 2)
    assert (stats.by_priority["high"], stats.by_priority["normal"]) == (1, 1)
    assert (stats.by_type, stats.by_reason) == ({"a": 1, "b": 1}, {"permanent": 2})
    assert stats.pending_by_type == {"a": 2}
    assert (stats.oldest_dead, stats.oldest_pending) == (65, 60)
    assert stats.lifetime["enqueued"] == 4
    assert stats.overdue == {}, "due for 60 s is not yet more than 60 s"
    clock.advance(0.001)
    assert (await dlq.stats()).overdue == {"a": 1}


async def test_a_record_that_changed_meanwhile_is_shown_as_it_matched(dlq, kill, after_the_next):
    (dead,) = await kill(dlq, Task(type="t"))
    after_the_next("scan", lambda: dlq.retry(dead))
    (record,) = (await dlq.list()).items
    assert (record.state, record.reason) == (State.DEAD, Reason.PERMANENT)


async def test_an_unreadable_body_does_not_break_a_list(dlq, kill, caplog):
    (dead,) = await kill(dlq, Task(type="t"))
    from deadletter.rules import changes

    await dlq.apply([changes.replay(await dlq.row(dead), "op", body=b"\xff")])
    with caplog.at_level(logging.ERROR):
        await dlq.process_task(dead, lambda _: PermanentError)
    (record,) = (await dlq.list()).items
    assert (record.reason, record.task.payload, record.replayable) == (Reason.UNDECODABLE, {}, False)


async def test_a_search_without_end_tells_how_far_it_came_and_goes_on(dlq, kill, clock, backend, monkeypatch):
    """No letter is hidden by a time limit: page by page all are met, each once."""
    ids = []
    for n in range(30):
        ids += await kill(dlq, Task(type=f"t{n}"))
        clock.advance(1)
    monkeypatch.setattr(reading, "_STEP", 4)
    wanted = Query(payload={"nobody": "has this"})
    page = await dlq.list(wanted, limit=3, patience=0)
    assert (page.items, page.total) == ([], None)
    assert page.searched is not None
    looks, far = 1, [page.searched]
    while page.next_cursor is not None:
        assert page.searched is not None
        page = await dlq.list(wanted, limit=3, cursor=page.next_cursor, patience=0)
        looks += 1
        far += [page.searched] if page.searched is not None else []
    assert looks > 5
    assert page.searched is None
    assert [one.back_to for one in far] == sorted((one.back_to for one in far), reverse=True)
    assert {one.of for one in far} in ({30}, {None})  # a store may not be able to tell
    if far[0].of is not None:
        assert [one.looked_at for one in far] == [4 * n for n in range(1, len(far) + 1)]


async def test_patience_hides_and_repeats_nothing(dlq, kill, clock, monkeypatch):
    ids = []
    for n in range(25):
        ids += await kill(dlq, Task(type="t", payload={"n": n, "odd": n % 5 == 0}))
        clock.advance(1)
    monkeypatch.setattr(reading, "_STEP", 3)
    met, cursor = [], None
    while True:
        page = await dlq.list(Query(payload={"odd": True}), limit=2, cursor=cursor, patience=0)
        met += [record.id for record in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert met == ids[::5][::-1]
    assert len((await dlq.list(Query(payload={"odd": True}), limit=2)).items) == 2  # without, until the page is full


@pytest.mark.parametrize("patience", [-1, float("inf"), float("nan")])
async def test_a_patience_that_cannot_be_is_refused(dlq, patience):
    with pytest.raises(InvalidQuery, match="patience"):
        await dlq.list(patience=patience)


async def test_a_glob_is_counted_from_the_tally(dlq, kill, monkeypatch):
    await kill(dlq, *[Task(type=f"t{n % 3}") for n in range(9)], Task(type="other"))
    monkeypatch.setattr(reading, "COUNTED", 0)
    assert (await dlq.list(Query(type="t*"), limit=2)).total == 9


@pytest.mark.parametrize("counts", ["up to a bound", "all of them"])
async def test_what_too_many_rows_would_decide_is_not_looked_through(dlq, kill, backend, monkeypatch, counts):
    """A lower bound is told at once, whether the store counts on where it need not or stops."""
    if counts == "all of them":
        count = backend.count
        monkeypatch.setattr(backend, "count", lambda queue, scan, most: count(queue, scan, max(most, 1000)))
    await kill(dlq, *[Task(type=f"t{n % 3}", payload={"x": 1}) for n in range(9)])
    monkeypatch.setattr(reading, "COUNTED", 3)
    monkeypatch.setattr(reading, "_STEP", 4)
    looked = []
    scan = backend.scan

    async def counted(queue, wish):
        looked.append(wish)
        return await scan(queue, wish)

    monkeypatch.setattr(backend, "scan", counted)
    page = await dlq.list(Query(payload={"x": 1}), limit=2)
    assert (page.total, page.total_at_least) == (None, 3)
    assert len(looked) == 1
