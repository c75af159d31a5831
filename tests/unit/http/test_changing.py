"""Retry, retry-all, purge, delete, pause and resume over HTTP."""

from __future__ import annotations

import pytest

from deadletter import Query, State, Task

pytestmark = pytest.mark.anyio


async def dead(dlq) -> list[str]:
    return sorted([record.id async for record in dlq.scan(Query())])


def field_errors(response) -> dict[str, str]:
    assert response.status_code == 400, response.text
    return {error["field"]: error["detail"] for error in response.json().get("errors", [])}


async def test_a_letter_is_retried(client, dlq):
    response = await client.post("/api/dlq/retry", json={"task_id": "task-1", "reset_attempts": True})
    assert (response.status_code, response.json()) == (200, {"task_id": "task-1", "state": "pending"})
    assert (await dlq.get("task-1")).state is State.PENDING


async def test_a_retry_that_cannot_be_says_why(client, dlq):
    unknown = await client.post("/api/dlq/retry", json={"task_id": "task-123"})
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:deadletter:problem:task-not-found")
    await dlq.retry("task-1")
    alive = await client.post("/api/dlq/retry", json={"task_id": "task-1"})
    assert (alive.status_code, alive.json()["type"]) == (409, "urn:deadletter:problem:not-dead")
    assert "task_id" in field_errors(await client.post("/api/dlq/retry", json={}))


async def test_an_edit_keeps_what_is_hidden(client, dlq):
    edited = {"n": 7, "password": {"$redacted": True}}
    body = {"task_id": "task-1", "payload": edited, "type": "email.resend", "delay": "5m", "why": "a bad number"}
    assert (await client.post("/api/dlq/retry", json=body)).status_code == 200
    record = await dlq.get("task-1")
    assert record.task.payload == {"n": 7, "password": "hunter2-and-more"}
    assert record.task.type == "email.resend"
    assert 290 <= (record.due_at - record.history[-1].at).total_seconds() <= 300
    assert record.history[-1].message == "type email.send -> email.resend, payload edited: a bad number"


async def test_an_edit_that_cannot_be_stored_names_the_field(client, dlq):
    hidden_nowhere = {"task_id": "task-1", "payload": {"other": {"$redacted": True}}}
    assert list(field_errors(await client.post("/api/dlq/retry", json=hidden_nowhere))) == ["payload"]
    assert list(field_errors(await client.post("/api/dlq/retry", json={"task_id": "task-1", "type": "a\x00b"}))) == [
        "type"
    ]
    assert len(await dead(dlq)) == 3


async def test_all_that_match_are_retried(client, dlq):
    dry = await client.post("/api/dlq/retry-all", json={"task_type": "email.*", "dry_run": True})
    assert {**dry.json(), "cutoff": None} == {"matched": 2, "changed": 0, "failed": 0, "cutoff": None}
    assert len(await dead(dlq)) == 3
    done = await client.post(
        "/api/dlq/retry-all", json={"priority": "normal", "limit": 1, "cutoff": dry.json()["cutoff"]}
    )
    assert {**done.json(), "cutoff": None} == {"matched": 1, "changed": 1, "failed": 0, "cutoff": None}
    assert await dead(dlq) == ["task-0", "task-2"]
    rest = await client.post("/api/dlq/retry-all", json={"everything": True, "rate": 1000})
    assert rest.json()["changed"] == 2
    assert await dead(dlq) == []


async def test_what_is_hidden_selects_nothing(client, dlq):
    for condition in ({"error_contains": "hunter2"}, {"payload": {"password": "hunter2-and-more"}}):
        assert (await client.post("/api/dlq/retry-all", json=condition)).json()["matched"] == 0
        url = "&".join(
            f"{name}={value}" if isinstance(value, str) else f"{name}=password={value['password']}"
            for name, value in condition.items()
        )
        assert (await client.delete(f"/api/dlq/purge?{url}")).json()["matched"] == 0
    assert len(await dead(dlq)) == 3


async def test_letters_are_purged(client, dlq):
    assert (await client.delete("/api/dlq/purge?older_than_days=7")).json() == {"matched": 0, "changed": 0}
    dry = await client.delete("/api/dlq/purge?priority=normal&dry_run=true")
    assert dry.json() == {"matched": 2, "changed": 0}
    response = await client.delete("/api/dlq/purge?priority=normal&older_than_days=0&why=cleanup")
    assert response.json() == {"matched": 2, "changed": 2}
    assert response.headers["deadletter-cutoff"].endswith("Z")
    assert await dead(dlq) == ["task-0"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "?",
        "?dry_run=false",
        "?state=dead",
        "?priority=",
        "?older_than_days=",
        "?prioritty=low",
        "?priority=low&priority=low",
    ],
)
async def test_nothing_is_purged_by_oversight(client, dlq, url):
    """No condition, an empty shell variable, a slip of the pen."""
    assert (await client.delete(f"/api/dlq/purge{url}")).status_code == 400
    assert (await client.post("/api/dlq/retry-all", json={})).status_code == 400
    assert len(await dead(dlq)) == 3


async def test_one_letter_is_deleted(client, dlq):
    await dlq.retry("task-1")
    assert (await client.delete("/api/dlq/items/task-0")).status_code == 204
    assert (await client.delete("/api/dlq/items/task-0")).status_code == 404
    assert (await client.delete("/api/dlq/items/task-1")).status_code == 409
    assert await dead(dlq) == ["task-2"]


async def test_types_are_paused_and_resumed(client, dlq):
    paused = await client.post("/api/dlq/pause", json={"types": "email.*", "why": "mail is down"})
    assert [(pause["types"], pause["why"]) for pause in paused.json()["paused"]] == [("email.*", "mail is down")]
    assert (await client.get("/api/dlq/pauses")).json() == paused.json()
    assert [pause.types for pause in await dlq.paused()] == ["email.*"]
    assert (await client.post("/api/dlq/resume", json={"types": "email.*"})).json() == {"paused": []}
    assert set(field_errors(await client.post("/api/dlq/pause", json={"types": "x"}))) == {"why"}


async def test_a_write_that_is_sent_again_happens_once(client, dlq):
    body, key = {"priority": "normal", "limit": 1}, {"Idempotency-Key": "once-1"}
    first = await client.post("/api/dlq/retry-all", json=body, headers=key)
    again = await client.post("/api/dlq/retry-all", json={"limit": 1, "priority": "normal"}, headers=key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert len(await dead(dlq)) == 2
    other = await client.post("/api/dlq/retry-all", json={"limit": 2}, headers=key)
    assert other.status_code == 422
    assert len(await dead(dlq)) == 2


async def test_an_error_frees_its_key(client, dlq):
    key = {"Idempotency-Key": "once-2"}
    assert (await client.post("/api/dlq/retry", json={"task_id": "late"}, headers=key)).status_code == 404
    await dlq.capture(Task(type="t", id="late"), ValueError("x"))
    assert (await client.post("/api/dlq/retry", json={"task_id": "late"}, headers=key)).status_code == 200


async def test_a_key_in_use_is_told_so(client, dlq, monkeypatch):
    """The second request comes while the first is being answered."""
    key, inner = {"Idempotency-Key": "once-3"}, []
    site_retry = dlq.retry

    async def slow(*args, **kwargs):
        inner.append(await client.post("/api/dlq/retry", json={"task_id": "task-1"}, headers=key))
        return await site_retry(*args, **kwargs)

    monkeypatch.setattr(dlq, "retry", slow)
    assert (await client.post("/api/dlq/retry", json={"task_id": "task-1"}, headers=key)).status_code == 200
    assert [response.status_code for response in inner] == [409]
    assert inner[0].headers["retry-after"] == "1"


@pytest.mark.parametrize("key", ["", " ", "a" * 256, "ä", "a\tb"])
async def test_a_bad_key_is_refused(client, dlq, key):
    headers = [("Idempotency-Key", key.encode())]
    response = await client.post("/api/dlq/retry", json={"task_id": "task-1"}, headers=headers)
    assert response.status_code == 400
    assert len(await dead(dlq)) == 3
