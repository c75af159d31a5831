"""Lists, search, one item, groups, stats over HTTP."""

from __future__ import annotations

import json

import pytest

from deadletter import Task

from .clients import SECRET

pytestmark = pytest.mark.anyio


async def ids(client, path, **params):
    response = await client.get(path, params=params)
    assert response.status_code == 200, response.text
    return sorted(item["id"] for item in response.json()["items"])


async def test_a_list_has_what_the_contract_says(client):
    response = await client.get("/api/dlq")
    assert response.headers["content-type"] == "application/json"
    page = response.json()
    assert (page["total"], page["total_at_least"], page["next_cursor"]) == (3, 3, None)
    assert [item["id"] for item in page["items"]] == ["task-2", "task-1", "task-0"]
    for item in page["items"]:
        assert "history" not in item
        assert "traceback" not in item["error"]
    assert SECRET not in response.text
    assert "4111" not in response.text


async def test_a_priority_has_its_own_path(client):
    assert await ids(client, "/api/dlq/high") == ["task-0"]
    assert await ids(client, "/api/dlq/normal", type="email.*") == ["task-1", "task-2"]
    assert await ids(client, "/api/dlq/low") == []


IN_URLS = [
    ({"type": "email.*"}, ["task-1", "task-2"]),
    ({"task_type": "report"}, ["task-0"]),
    ({"task_type": "report", "type": "report"}, ["task-0"]),
    ({"priority": "high"}, ["task-0"]),
    ({"state": "pending"}, []),
    ({"error_contains": "TIMEOUT"}, ["task-0", "task-1", "task-2"]),
    ({"error_contains": SECRET}, []),
    ({"error_type": "ValueError", "reason": "captured", "release": "v1"}, ["task-0", "task-1", "task-2"]),
    ({"release": "v2"}, []),
    ({"payload": "customer.id=1"}, ["task-1"]),
    ({"payload": 'customer={"id":2}'}, ["task-2"]),
    ({"payload": f"password={SECRET}"}, []),
    ({"metadata": "tenant=t2"}, ["task-2"]),
    ({"idempotency_key": "key-1"}, ["task-1"]),
    ({"ids": "task-0,task-2,nobody"}, ["task-0", "task-2"]),
    ({"older_than": "7d"}, []),
    ({"older_than": "3600"}, []),
    ({"newer_than": "1h"}, ["task-0", "task-1", "task-2"]),
    ({"older_than_days": "7"}, []),
    ({"older_than": "2999-01-01T00:00:00Z"}, ["task-0", "task-1", "task-2"]),
    ({"older_than": "2999-01-01T00:00:00+02:00"}, ["task-0", "task-1", "task-2"]),
]


async def test_every_condition_stands_in_a_url(client):
    for params, found in IN_URLS:
        assert await ids(client, "/api/dlq", **params) == found, params


IN_BODIES = [
    ({"task_type": "email.send", "limit": 50}, ["task-1", "task-2"]),
    ({"error_contains": "timeout", "limit": 20}, ["task-0", "task-1", "task-2"]),
    ({"payload": {"customer.id": 1}}, ["task-1"]),
    ({"metadata": {"tenant": "t2"}, "type": None}, ["task-2"]),
    ({"ids": ["task-1"]}, ["task-1"]),
    ({"ids": []}, []),
    ({"older_than": 604800}, []),
    ({"newer_than": 3600.5, "limit": 50.0}, ["task-0", "task-1", "task-2"]),
    ({"error_contains": SECRET}, []),
]


async def test_search_takes_the_same_conditions_in_a_body(client):
    for body, found in IN_BODIES:
        response = await client.post("/api/dlq/search", json=body)
        assert sorted(item["id"] for item in response.json()["items"]) == found, body


async def test_pages_follow_each_other_by_cursor(client):
    seen, cursor = [], None
    for _ in range(3):
        page = (await client.get("/api/dlq", params={"limit": 1, **({"cursor": cursor} if cursor else {})})).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert (seen, cursor) == (["task-2", "task-1", "task-0"], None)


async def test_an_item_has_its_history(client):
    response = await client.get("/api/dlq/items/task-1")
    item = response.json()
    assert item["error"]["traceback"].rstrip().endswith("ValueError: timeout [redacted] of [redacted]")
    assert len(item["history"]) == 1
    assert item["payload"] == {
        "n": 1,
        "password": {"$redacted": True},
        "card": {"$redacted": True},
        "customer": {"id": 1},
    }
    assert SECRET not in response.text


async def test_an_unknown_id_is_a_404_whatever_it_holds(client):
    for task_id in ("nobody", "}{", "a%00b", "%2e%2e", "a" * 10_000, "%ff", "*"):
        response = await client.get(f"/api/dlq/items/{task_id}")
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json"), task_id


async def test_stats_are_those_of_the_queue(client, dlq):
    await dlq.enqueue(Task(type="report"))
    await dlq.pause("slow.*", why="maintenance")
    stats = (await client.get("/api/dlq/stats")).json()
    assert stats["by_state"] == {"pending": 1, "running": 0, "succeeded": 0, "dead": 3}
    assert stats["by_priority"] == {"high": 1, "normal": 2, "low": 0}
    assert stats["by_type"] == {"report": 1, "email.send": 2}
    assert stats["by_reason"] == {"captured": 3}
    assert stats["paused"] == {"slow.*": "maintenance"}
    assert stats["lifetime"]["captured"] == 3


async def test_groups_show_no_hidden_value(client):
    response = await client.get("/api/dlq/groups", params={"by": "type"})
    groups = response.json()["groups"]
    assert [(group["key"], group["count"]) for group in groups] == [("email.send", 2), ("report", 1)]
    assert SECRET not in response.text
    assert len((await client.get("/api/dlq/groups?by=type&limit=1&type=*")).json()["groups"]) == 1


async def test_what_a_client_has_already_is_not_sent_again(client, dlq):
    first = await client.get("/api/dlq")
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    known = {"If-None-Match": f'"other", {tag}'}
    again = await client.get("/api/dlq", headers=known)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    await dlq.retry("task-1")
    changed = await client.get("/api/dlq", headers=known)
    assert (changed.status_code, changed.json()["total"]) == (200, 2)


async def test_head_answers_like_get_without_a_body(client):
    got, headed = await client.get("/api/dlq"), await client.head("/api/dlq")
    assert headed.status_code == 200
    assert headed.headers["etag"] == got.headers["etag"]


async def test_numbers_keep_their_digits(client, dlq):
    await dlq.capture(Task(type="t", id="big", payload={"n": 2**63, "f": 0.1, "s": "ä\u2028"}), ValueError("x"))
    assert json.loads((await client.get("/api/dlq/items/big")).content)["payload"] == {
        "n": 2**63,
        "f": 0.1,
        "s": "ä\u2028",
    }


async def test_a_search_without_end_answers_with_how_far_it_came(client, dlq, monkeypatch):
    """And its cursor goes on, until every letter was looked at."""
    monkeypatch.setattr("deadletter.engine.reading._STEP", 1)
    asked, looks, reached = {"payload": {"nobody": "has this"}, "patience": 0}, 0, 0
    while True:
        page = (await client.post("/api/dlq/search", json=asked)).json()
        assert page["items"] == []
        if page["next_cursor"] is None:
            break
        looks += 1
        told = page["searched"]
        assert told["of"] == 3
        assert reached <= told["looked_at"] <= 3
        reached = told["looked_at"]
        assert told["back_to"].endswith("Z")
        asked["cursor"] = page["next_cursor"]
    assert looks == 2
    assert "searched" not in page
    assert (await client.get("/api/dlq", params={"patience": "61"})).status_code == 400
    whole = (await client.get("/api/dlq", params={"error_contains": "timeout", "patience": "5"})).json()
    assert whole["total"] == 3
    assert "searched" not in whole
