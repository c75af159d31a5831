"""What pages show: the first screen, lists and their filters, one letter."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from deadletter import BackendUnavailable, DeadLetterQueue, Query, Task
from deadletter.engine.alerting import MonitorInfo
from deadletter.http import create_app
from deadletter.http.dashboard import census, letters, overview
from deadletter.http.dashboard.filters import Filters
from deadletter.model.row import Grouped

from ..clients import client_of
from .markup import Page

pytestmark = pytest.mark.anyio


async def test_the_first_screen_tells_causes_and_health(see, dlq):
    await dlq.enqueue(Task(type="email.send"))
    await dlq.pause("report", why="the sums are wrong")
    page = await see("/")
    text = page.text
    assert "2 causes of 3 letters" in text
    assert "ValueError" in text
    assert "report is paused: the sums are wrong" in text
    assert "Pending 1" in text
    fingerprint = (await dlq.get("task-1")).failure.fingerprint
    link = next(found["href"] for found in page.all("a") if "fingerprint" in (found.get("href") or ""))
    assert dict(parse_qsl(urlsplit(link).query)) == {"fingerprint": fingerprint}
    assert [found["data-points"] for found in page.all("div") if "data-points" in found]


async def test_an_empty_queue_says_so():
    async with DeadLetterQueue("memory://") as dlq:
        app = create_app(dlq)
        async with client_of(app) as client:
            assert "Nothing is dead." in (first := (await client.get("/")).text)
            assert "There is no letter." in first
            assert "Nothing is dead." in (await client.get("/letters")).text
            assert "No worker was seen lately." in (await client.get("/workers")).text
            assert "No operation in the last week." in (await client.get("/operations")).text
        await app.state.site.samples.stop()


async def test_the_first_screen_looks_at_a_bounded_number_of_letters(see, dlq, monkeypatch):
    """Beyond the newest the page says so, and one long walk counts them all beside it."""
    monkeypatch.setattr(census, "LOOKED", 2)
    monkeypatch.setattr(census, "_STEP", 1)
    assert "The newest 2 of 3 letters" in (await see("/")).text
    for _ in range(500):
        text = (await see("/")).text
        if "2 causes of 3 letters" in text:
            break
        await dlq.clock.sleep(0.01)
    assert "2 causes of 3 letters" in text


FILTERS = [
    {"type": "email.*"},
    {"priority": "high"},
    {"error_contains": "time & out + 100%"},
    {"error_type": "ValueError"},
    {"reason": "captured"},
    {"older_than": "1h", "newer_than": "7d"},
    {"older_than": "2026-01-31T12:00:00+01:00"},
    {"idempotency_key": "key-1"},
    {"metadata": "tenant=t1"},
    {"payload": "customer.id=1"},
    {"release": "v1", "state": "pending"},
    {"ids": "task-1,task-2"},
    {"fingerprint": "abc", "type": "r\\*t"},
]


@pytest.mark.parametrize("filters", FILTERS, ids="+".join)
async def test_filters_live_in_the_url(client, filters):
    """The form shows what the URL says, and asks for the same again; so does each chip, but for its own."""
    page = Page((await client.get("/letters", params=filters)).text)
    _, _, fields = next(form for form in page.forms if form[0] == "/letters")
    chosen = {"priority": filters.get("priority"), "reason": filters.get("reason")}
    again = {**{name: text for name, text in fields if text}, **{name: text for name, text in chosen.items() if text}}
    assert Filters.of(again.items()).query == Filters.of(filters.items()).query
    chips = [found["href"] for found in page.all("a") if (found.get("aria-label") or "").startswith("Remove")]
    assert len(chips) == len({name for name in filters if name != "state"})
    kept = [dict(parse_qsl(urlsplit(url).query)) for url in chips]
    assert all(len(left) == len(filters) - 1 and left.items() <= filters.items() for left in kept)


async def test_filters_select(see):
    page = await see("/letters?type=email.*&metadata=tenant%3Dt2")
    assert [found["data-id"] for found in page.all("div", role="row") if "data-id" in found] == ["task-2"]
    assert "1 letter matches" in page.text


async def test_a_filter_that_cannot_be_meant_is_told_beside_its_field(see):
    page = await see("/letters?older_than=soon&type=email.*&nonsense=1", 400)
    assert page.all("input", id="f-older_than", aria_invalid="true")
    assert "no duration" in page.text
    assert "nonsense" in page.text
    assert not [found for found in page.all("div", role="row") if "data-id" in found]


async def test_empty_fields_of_a_form_leave_the_url(client):
    response = await client.get("/letters?type=&error_contains=+&priority=high")
    assert (response.status_code, response.headers["location"]) == (303, "/letters?priority=high")


async def test_pages_follow_a_cursor(see):
    first = await see("/letters?limit=2&type=*")
    following = next(found["href"] for found in first.all("a", rel="next"))
    second = await see(following)
    ids = [
        [found["data-id"] for found in page.all("div", role="row") if "data-id" in found] for page in (first, second)
    ]
    assert ids == [["task-2", "task-1"], ["task-0"]]
    assert "limit=2" in following


async def test_a_letter_tells_its_story(see, dlq):
    await dlq.retry("task-1", payload={"n": 7, "customer": {"id": 1}}, why="a bad number")
    await dlq.process_task("task-1", lambda task: False)
    page = await see("/letters/task-1")
    assert "Edited and sent back" in page.text
    assert "a bad number" in page.text
    assert "Traceback (most recent call last)" in page.text or "ValueError" in page.text
    assert "Dead because rejected" in page.text
    assert "Forgotten in 6 d" in page.text or "Forgotten in 7 d" in page.text
    assert "deadletter retry task-1" in page.text
    assert "await dlq.retry('task-1')" in page.text
    assert "curl -X POST http://localhost:5002/api/dlq/retry" in page.text
    assert page.all("a", href="/api/dlq/items/task-1")


async def test_a_hidden_value_reads_as_hidden(see):
    assert '"$redacted": true' in (await see("/letters/task-1")).text


async def test_readers_see_no_buttons(guarded):
    async with guarded("read") as reader:
        for url in ("/", "/letters", "/letters/task-1", "/pauses", "/workers"):
            page = Page((await reader.get(url)).text)
            assert not [action for action, method, _ in page.forms if method == "post"]
            assert not [found for found in page.all("a") if "/review" in (found.get("href") or "")]


async def test_links_hold_where_the_application_is_mounted(dlq):
    app = Starlette(routes=[Mount("/ops/dead", create_app(dlq))])
    async with client_of(app) as client:
        page = Page((await client.get("/ops/dead/")).text)
        links = [found.get("href") or "" for found in page.all("a") if found.get("href") != "#main"]
        assert links
        assert all(link.startswith("/ops/dead/") for link in links)
        assert page.all("a", href="/ops/dead/", aria_current="page")
        style = next(found["href"] for found in page.all("link", rel="stylesheet"))
        assert (await client.get(style)).status_code == 200
    inner = app.routes[0].app
    await inner.state.site.samples.stop()


async def test_an_unknown_letter_is_a_page(see):
    assert "no task" in (await see("/letters/none-such", 404)).text.lower()


async def test_types_that_wait_for_nobody_are_told(see, dlq):
    await dlq.enqueue(Task(type="lost.type"))
    text = (await see("/workers")).text
    assert "no worker knows it" in text


async def test_the_store_away_is_a_page(client, dlq, monkeypatch):
    async def away(*_, **__):
        raise BackendUnavailable("memory://", "gone")

    monkeypatch.setattr(dlq.backend, "counts", away)
    response = await client.get("/")
    assert response.status_code == 503
    assert "Retry-After" in response.headers
    assert "the store cannot do this now" in Page(response.text).text


async def test_the_health_line_is_one_part_of_its_own(see):
    page = await see("/health")
    assert page.elements[0] == ("dl", {"class": "health", "id": "health", "aria-label": "Health of the queue"})


def test_bars_share_a_span():
    tally = census.Counter({10: 3, 11: 1, 500: 2})
    slot = census.SLOT_MS
    found = census.bars(tally, 11 * slot, 3_600_000, 30)
    assert len(found) == 30
    assert sum(n for _, n in found) == 4
    assert found[-1] == (11 * slot, 1)


async def test_a_query_without_filters_is_the_default():
    assert Filters.of([("type", " "), ("told", "x")]).query == Query()


async def test_a_store_that_counts_causes_is_asked_beyond_the_newest(see, dlq, monkeypatch):
    """Its counts are exact at once, and no letter is read for them."""
    records = {record.task.type: record async for record in dlq.scan()}

    async def groups(queue, scan, by):
        assert by == "fingerprint"
        rows = await dlq.backend.load(queue, [records["email.send"].id, records["report"].id])
        return [
            Grouped(key=row.fingerprint, count=7_000, first_ms=row.time_ms, newest=row, releases=frozenset({"v1"}))
            for row in rows
        ]

    monkeypatch.setattr(dlq.backend, "groups", groups)
    monkeypatch.setattr(census, "LOOKED", 1)
    monkeypatch.setattr(census, "_STEP", 1)
    page = await see("/")
    assert "2 causes of 3 letters" in page.text
    assert "7,000 letters" in page.text
    deaths = json.loads(page.all("div", data_kind="bars")[0]["data-points"])[1]
    assert sum(deaths) == 3  # of all letters, though one alone was looked at
    scans = []
    scan = dlq.backend.scan

    async def counted(queue, wanted):
        if queue == dlq.name:
            scans.append(wanted)
        return await scan(queue, wanted)

    monkeypatch.setattr(dlq.backend, "scan", counted)
    await see("/")
    assert scans == []
    monkeypatch.setattr(census, "_TREND", 0)
    await see("/")  # does not wait for the look that it starts
    while not scans:
        await dlq.clock.sleep(0.01)


async def many(dlq):
    """Ten more letters, of which the second oldest alone is rare."""
    for n in range(10):
        await dlq.capture(Task(type="bulk", id=f"more-{n}"), ValueError("rare" if n == 1 else "frequent"))


async def test_a_search_for_a_rare_text_shows_how_far_it_came_and_goes_on(see, dlq, monkeypatch):
    """Piece by piece, over the pages' own links, every letter is met: none is hidden by a time limit."""
    monkeypatch.setattr(letters, "PATIENCE", 0)
    monkeypatch.setattr("deadletter.engine.reading._STEP", 3)
    await many(dlq)
    page = await see("/letters?error_contains=rare")
    looked, found = [], []
    while boxes := page.all("div", id="looking"):
        assert "so far" in page.text
        looked.append(int(page.text.partition("Searched ")[2].split()[0]))
        found += [row["data-id"] for row in page.all("div") if row.get("data-id")]
        target = boxes[0]["hx-get"]
        assert [link["href"] for link in page.all("a") if link["href"] == target]  # as it is without scripts
        page = await see(target)
    found += [row["data-id"] for row in page.all("div") if row.get("data-id")]
    assert len(looked) == 4
    assert looked == sorted(looked)
    assert 3 <= looked[0] <= looked[-1] <= 13  # those that died within one millisecond count together
    assert found == ["more-1"]
    assert "1 letter matches" in page.text
    assert "Older letters" not in page.text


async def test_a_page_that_is_full_ends_the_search(see, dlq, monkeypatch):
    monkeypatch.setattr(letters, "PATIENCE", 0)
    monkeypatch.setattr("deadletter.engine.reading._STEP", 3)
    await many(dlq)
    page = await see("/letters?error_contains=frequent&limit=5&type=b*")
    assert "3 letters so far" in page.text
    page = await see(page.all("div", id="looking")[0]["hx-get"])
    assert [row["data-id"] for row in page.all("div") if row.get("data-id")] == ["more-6", "more-5"]
    assert not page.all("div", id="looking")
    link = next(link["href"] for link in page.all("a", rel="next"))
    assert {"found", "whole"}.isdisjoint(dict(parse_qsl(urlsplit(link).query)))
    assert dict(parse_qsl(urlsplit(link).query))["limit"] == "5"
    assert [row["data-id"] for row in (await see(link)).all("div") if row.get("data-id")] == [
        "more-4",
        "more-3",
        "more-2",
    ]


@pytest.mark.parametrize("found", ["-1", "1e9", "99999999", "x", "²"])
async def test_a_made_up_count_of_what_was_found_does_no_harm(see, found):
    assert "letters match" in (await see(f"/letters?type=email.*&found={found}&whole=1")).text


async def test_a_monitor_that_fell_silent_is_told(see, monkeypatch):
    async def seen(_):
        return MonitorInfo(name="host-7", last_seen=datetime.now(UTC) - timedelta(minutes=5), absent=True)

    monkeypatch.setattr(overview, "monitor_seen", seen)
    assert "Nobody is told of deaths: the monitor host-7 was last seen 5 min ago" in (await see("/")).text


@pytest.mark.parametrize("counts", [True, False])
async def test_a_store_that_goes_away_while_it_is_counted_costs_no_page(see, dlq, monkeypatch, caplog, counts):
    """What was counted before is shown, and the next look takes it up again."""
    monkeypatch.setattr(census, "LOOKED", 1)
    monkeypatch.setattr(census, "_STEP", 1)
    caplog.set_level(logging.INFO)
    scan = dlq.backend.scan
    if counts:
        monkeypatch.setattr(census, "_TREND", 0)
        row = (await dlq.backend.load(dlq.name, ["task-1"]))[0]
        group = Grouped(key="k", count=3, first_ms=row.time_ms, newest=row, releases=frozenset())

        async def groups(*_):
            return [group]

        monkeypatch.setattr(dlq.backend, "groups", groups)
        await see("/")

    async def away(queue, wanted):
        if queue == dlq.name and (counts or wanted.after is not None):
            raise BackendUnavailable("memory://", "gone")
        return await scan(queue, wanted)

    monkeypatch.setattr(dlq.backend, "scan", away)
    await see("/")
    while "could not be counted" not in caplog.text:
        await dlq.clock.sleep(0.01)
    monkeypatch.setattr(dlq.backend, "scan", scan)
    assert "ValueError" in (await see("/")).text
