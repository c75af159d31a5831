"""What forms do: retry, edit, cancel, purge, erase, pause, operations; and whose forms they must be."""

from __future__ import annotations

import attrs
import pytest

from deadletter import State, Task, TaskNotFound
from deadletter.engine import standing
from deadletter.http.dashboard import bulk

from .markup import Page

pytestmark = pytest.mark.anyio

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
POSTS = {
    "/letters/task-1/retry": {},
    "/letters/task-1/cancel": {},
    "/letters/task-1/edit": {"payload": "{}", "type": "email.send", "step": "apply"},
    "/operations": {"action": "purge", "type": "email.*", "count": "2", "typed": "2"},
    "/operations/x/cancel": {},
    "/pauses": {"types": "*", "why": "x"},
    "/pauses/resume": {"types": "*"},
}


async def post(client, url, data=None, **options):
    return await client.post(url, data=data or {"_": ""}, **options)


async def untouched(dlq) -> bool:
    return [record.id async for record in dlq.scan()] == ["task-2", "task-1", "task-0"] and not await dlq.paused()


@pytest.mark.parametrize("url", POSTS)
async def test_forms_of_other_sites_do_nothing(client, dlq, url):
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:5002", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert (await post(client, url, POSTS[url], headers=headers)).status_code == 403
    del client.headers["Origin"]
    assert (await post(client, url, POSTS[url])).status_code == 403
    assert await untouched(dlq)


@pytest.mark.parametrize("url", POSTS)
async def test_who_may_only_read_changes_nothing(guarded, dlq, url):
    async with guarded("read") as reader:
        assert (await post(reader, url, POSTS[url])).status_code == 403
    assert await untouched(dlq)


async def test_edits_and_purges_want_admin(guarded, dlq):
    async with guarded("write") as writer:
        assert (await post(writer, "/letters/task-1/edit", POSTS["/letters/task-1/edit"])).status_code == 403
        assert (await post(writer, "/operations", POSTS["/operations"])).status_code == 403
        erase = {**POSTS["/operations"], "action": "erase"}
        assert (await post(writer, "/operations", erase)).status_code == 403
        assert await untouched(dlq)
        assert (await post(writer, "/letters/task-1/retry")).status_code == 303


async def test_a_form_that_is_none_is_refused(client, dlq):
    json = await client.post("/letters/task-1/retry", json={})
    assert json.status_code == 415
    odd = await client.post("/letters/task-1/edit", content=b"payload=%ff\xff", headers=FORM)
    assert odd.status_code == 400
    many = await client.post("/letters/task-1/edit", content=b"&".join([b"a=1"] * 20_001), headers=FORM)
    assert many.status_code == 400
    twice = await client.post("/letters/task-1/retry", content=b"delay=1&delay=2", headers=FORM)
    assert twice.status_code == 400
    assert await untouched(dlq)


async def test_a_retry_shows_the_letter_as_it_is_now(client, dlq, see):
    response = await post(client, "/letters/task-1/retry", {"delay": "5m", "why": "again"})
    assert response.headers["location"] == "/letters/task-1?told=retried"
    page = await see(response.headers["location"])
    assert "Sent back" in page.text
    assert "pending" in page.text
    assert (await dlq.get("task-1")).state is State.PENDING
    second = await post(client, "/letters/task-1/retry")
    assert second.status_code == 409
    assert "pending" in Page(second.text).text


async def test_an_edit_is_shown_before_it_is_made(client, dlq, see):
    page = await see("/letters/task-1")
    action, fields = page.form("/edit")
    fields = dict(fields)
    fields["payload"] = fields["payload"].replace('"n": 1', '"n": 700')
    shown = await post(client, action.split("#")[0], fields)
    review = Page(shown.text)
    assert [text.strip() for text in review.words if text.startswith(("- ", "+ "))] == ['-   "n": 1,', '+   "n": 700,']
    assert (await dlq.get("task-1")).state is State.DEAD
    forms = [entry for action, _, entry in review.forms if dict(entry).get("step") == "apply"]
    done = await post(client, "/letters/task-1/edit", dict(forms[0]))
    assert done.headers["location"] == "/letters/task-1?told=edited"
    record = await dlq.get("task-1")
    assert record.state is State.PENDING
    assert record.task.payload["n"] == 700
    assert record.task.payload["password"] == "hunter2-and-more"


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("{", "payload"),
        ("[1]", "no JSON object"),
        ('{"a": NaN}', "payload"),
        ('{"a": 1, "a": 2}', "payload"),
        ('{"other": {"$redacted": true}}', "payload"),
    ],
)
async def test_an_edit_that_cannot_be_stored_keeps_what_was_typed(client, dlq, payload, said):
    response = await post(client, "/letters/task-1/edit", {"payload": payload, "type": "email.send", "step": "apply"})
    assert response.status_code == 400
    page = Page(response.text)
    assert said in page.text
    _, fields = page.form("/edit")
    assert dict(fields)["payload"] == payload
    assert await untouched(dlq)


async def test_an_edit_that_changes_nothing_says_so(client, see):
    action, fields = (await see("/letters/task-1")).form("/edit")
    shown = await post(client, action.split("#")[0], dict(fields))
    assert "Nothing changes" in Page(shown.text).text


async def test_a_pending_task_is_cancelled(client, dlq):
    task_id = await dlq.enqueue(Task(type="email.send"))
    response = await post(client, f"/letters/{task_id}/cancel")
    assert response.headers["location"] == "/letters?state=pending&told=cancelled"
    with pytest.raises(TaskNotFound):
        await dlq.get(task_id)


async def finished(app, dlq, location: str):
    name = location.rpartition("/")[2]
    for _ in range(1000):
        found = await standing.look(dlq, name)
        if found.ended_at is not None:
            return found
        await dlq.clock.sleep(0.01)
    raise AssertionError(f"{name} did not end")


async def test_all_that_match_are_retried_as_an_operation(client, dlq, app, see):
    page = await see("/review?type=email.*")
    assert "Retry 2 letters" in page.text
    action, fields = page.form("/operations")
    assert await untouched(dlq)
    response = await post(client, action, {**dict(fields), "rate": "1000", "why": "fixed"})
    assert response.status_code == 303
    ended = await finished(app, dlq, response.headers["location"])
    assert (ended.changed, ended.rate, ended.why) == (2, 1000, "fixed")
    shown = await see(response.headers["location"])
    assert "100 %" in shown.text
    assert not [
        found for _, found in shown.elements if "hx-trigger" in found and "every" in (found["hx-trigger"] or "")
    ]
    assert [record.id async for record in dlq.scan()] == ["task-0"]
    assert "Retry" in (await see("/operations")).text


async def test_what_dies_after_the_review_is_left_alone(client, dlq, app, see):
    action, fields = (await see("/review?type=email.*")).form("/operations")
    fields = {**dict(fields), "cutoff": "2020-01-01T00:00:00Z"}
    ended = await finished(app, dlq, (await post(client, action, fields)).headers["location"])
    assert ended.changed == 0
    assert await untouched(dlq)


async def test_an_operation_shows_how_far_it_came_and_is_called_off(client, dlq, see):
    ordered = await standing.order(dlq, "retry-all", (await _query("email.*")), rate=0.001)
    page = await see(f"/operations/{ordered.id}")
    assert page.all("div", id="progress")[0]["hx-trigger"] == "every 1s"
    response = await post(client, f"/operations/{ordered.id}/cancel")
    assert "cancelled" in (await see(response.headers["location"])).text


async def _query(type_):
    from deadletter import Query

    return Query(type=type_)


@pytest.mark.parametrize("action", ["purge", "erase"])
async def test_what_is_deleted_wants_its_count_typed(client, dlq, app, see, action):
    page = await see(f"/review?type=email.*&action={action}")
    assert "Type 2 to go on" in page.text
    url, fields = page.form("/operations")
    for typed in ("", "3", "two"):
        assert (await post(client, url, {**dict(fields), "typed": typed})).status_code == 400
    assert await untouched(dlq)
    response = await post(client, url, {**dict(fields), "typed": "2"})
    assert response.status_code == 303
    assert (await finished(app, dlq, response.headers["location"])).changed == 2
    assert [record.id async for record in dlq.scan()] == ["task-0"]


async def test_everything_wants_its_count_typed_too(client, dlq, see):
    page = await see("/review")
    assert "all letters of the queue" in page.text
    url, fields = page.form("/operations")
    assert (await post(client, url, {**dict(fields), "typed": ""})).status_code == 400
    assert await untouched(dlq)


async def test_erase_asks_again_when_there_are_more_by_now(client, dlq, see):
    url, fields = (await see("/review?type=email.*&action=erase")).form("/operations")
    await dlq.enqueue(Task(type="email.send"))
    assert (await post(client, url, {**dict(fields), "typed": "2"})).status_code == 409
    assert await untouched(dlq)


async def test_an_erase_is_an_operation_like_the_others(client, dlq, app, see):
    """With a count to type, a rate, a reason, progress; in every state."""
    await dlq.enqueue(Task(type="email.send", delay=99))
    page = await see("/review?type=email.*&action=erase")
    assert "Erase 3 tasks" in page.text
    url, fields = page.form("/operations")
    assert "cutoff" not in dict(fields)
    response = await post(client, url, {**dict(fields), "typed": "3", "rate": "1000", "why": "asked for"})
    ended = await finished(app, dlq, response.headers["location"])
    assert (ended.kind, ended.changed, ended.rate, ended.why) == ("erase", 3, 1000, "asked for")
    shown = await see(response.headers["location"])
    assert "Erase tasks" in shown.text
    assert "Erased 3" in shown.text
    assert "Erase" in (await see("/operations")).text


@pytest.mark.parametrize("action", ["purge", "erase", "retry-all"])
async def test_what_is_too_much_to_count_in_passing_is_counted_before_it_is_deleted(see, dlq, monkeypatch, action):
    monkeypatch.setattr("deadletter.engine.reading.COUNTED", 1)
    monkeypatch.setattr("deadletter.engine.reading._STEP", 1)
    for n in range(9):
        await dlq.capture(Task(type="bulk", payload={"x": 1}, id=f"bulk-{n}"), ValueError("x"))
    page = await see(f"/review?payload=x%3D1&action={action}")
    assert "at least" in page.text
    link = next(link["href"] for link in page.all("a") if "exact=1" in (link["href"] or ""))
    assert len([form for form in page.forms if form[0].endswith("/operations")]) == (action == "retry-all")
    page = await see(link)
    assert "9 tasks" in page.text if action == "erase" else "9 letters" in page.text
    assert dict(page.form("/operations")[1])["count"] == "9"


async def test_a_count_that_takes_too_long_tells_how_far_it_came(see, dlq, monkeypatch):
    monkeypatch.setattr("deadletter.engine.reading.COUNTED", 1)
    monkeypatch.setattr("deadletter.engine.reading._STEP", 1)
    monkeypatch.setattr(bulk, "_COUNTING", 0.05)
    for n in range(9):
        await dlq.capture(Task(type="bulk", payload={"x": 1}, id=f"bulk-{n}"), ValueError("x"))
    scan, steps = dlq.backend.scan, []

    async def slow(queue, wanted):
        if not wanted.newest_first:
            steps.append(wanted)
            if len(steps) > 1:
                await dlq.clock.sleep(30)
        return await scan(queue, attrs.evolve(wanted, limit=10) if not wanted.newest_first else wanted)

    monkeypatch.setattr(dlq.backend, "scan", slow)
    page = await see("/review?payload=x%3D1&action=purge&exact=1")
    assert "at least 7 letters" in page.text
    assert "Type 7 to go on" in page.text


async def test_a_number_that_cannot_be_meant_is_told(client, dlq, see):
    url, fields = (await see("/review?type=email.*")).form("/operations")
    for name, text in (("rate", "0"), ("rate", "fast"), ("limit", "-1"), ("cutoff", "soon"), ("action", "burn")):
        response = await post(client, url, {**dict(fields), name: text})
        assert response.status_code == 400, name
        assert name in Page(response.text).text
    assert await untouched(dlq)


async def test_only_dead_letters_are_retried_and_purged(see):
    assert "only dead letters" in (await see("/review?state=pending", 400)).text


async def test_types_are_paused_with_a_reason_and_resumed(client, dlq, see):
    assert (await post(client, "/pauses", {"types": "email.*", "why": ""})).status_code == 400
    response = await post(client, "/pauses", {"types": "email.*", "why": "mail is down"})
    page = await see(response.headers["location"])
    assert "email.* mail is down" in page.text
    action, fields = page.form("/pauses/resume")
    await post(client, action, dict(fields))
    assert await dlq.paused() == []
