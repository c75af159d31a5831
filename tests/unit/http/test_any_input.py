"""Hostile input, and whatever the OpenAPI document allows or forbids: never a 500, never a hang."""

from __future__ import annotations

import json

import anyio
import pytest

from deadletter import DeadLetterQueue, Task
from deadletter.http import create_app

from .clients import SECRET, client_of, post_in_pieces

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
NASTY = ["<script>", "{{7*7}}", "javascript:", "x\r\nBcc: a@b", "\u2028", "\x1b[2J", "}{", ":", "*", "\x00", "ä" * 200]

BODIES = {
    "deep": b'{"payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "long integer": b'{"limit": ' + b"9" * 5000 + b"}",
    "NaN": b'{"rate": NaN}',
    "infinity": b'{"rate": 1e999}',
    "twice": b'{"type": "a", "type": "b"}',
    "lone surrogate": b'{"type": "\\ud800"}',
    "no UTF-8": b'{"type": "\xff"}',
    "byte order mark": b'\xef\xbb\xbf{"type": "a"}',
    "a list": b"[]",
    "text": b'"x"',
    "null": b"null",
    "nothing": b"",
    "half": b'{"type": ',
    "unknown field": b'{"__proto__": {}}',
    "many unknown": json.dumps({f"f{n}": 1 for n in range(1000)}).encode(),
}


async def test_no_body_is_too_odd(client):
    for path in ("/api/dlq/search", "/api/dlq/retry-all", "/api/dlq/retry", "/api/dlq/pause"):
        for name, body in BODIES.items():
            with anyio.fail_after(5):
                response = await client.post(path, content=body, headers=JSON)
            assert response.status_code == 400, (path, name, response.text[:200])
            assert response.headers["content-type"] == "application/problem+json"
            assert len(response.content) < 20_000


async def test_odd_text_is_found_nowhere_and_breaks_nothing(client):
    for text in NASTY:
        for field in ("type", "error_contains", "error_type", "fingerprint", "idempotency_key", "release"):
            assert (await client.post("/api/dlq/search", json={field: text})).status_code == 200, (field, text)
            assert (await client.get("/api/dlq", params={field: text})).status_code == 200, (field, text)
        assert (await client.post("/api/dlq/retry", json={"task_id": text})).status_code in (400, 404), text
        assert (await client.post("/api/dlq/search", json={"ids": [text], "metadata": {text: text}})).status_code == 200


async def test_a_pattern_is_plain_text(client):
    with anyio.fail_after(5):
        assert (await client.post("/api/dlq/search", json={"error_contains": "(a+)+$"})).json()["items"] == []
        assert (await client.post("/api/dlq/search", json={"type": "*a" * 400})).json()["items"] == []


REFUSED = [
    {"limit": 10**9},
    {"limit": 0},
    {"limit": -1},
    {"limit": 1.5},
    {"limit": True},
    {"limit": "5"},
    {"older_than": -1},
    {"older_than": 1e300},
    {"older_than": "-5d"},
    {"older_than_days": 10**6},
    {"older_than": 5, "older_than_days": 5},
    {"type": "a", "task_type": "b"},
    {"type": ""},
    {"type": "a" * 1001},
    {"type": ["a"]},
    {"ids": ["x"] * 10_001},
    {"ids": "x"},
    {"ids": [1]},
    {"payload": {"a": {"$redacted": True}}},
    {"payload": []},
    {"metadata": {"a": 1}},
    {"priority": "urgent"},
    {"state": "gone"},
    {"reason": "bored"},
    {"cursor": "no page gave this out"},
    {"newer_than": "9999-12-31T23:59:59-23:59"},
    {"older_than": "2026-01-01T00:00:00"},
]


async def test_what_is_beyond_its_cap_or_of_another_kind_is_named(client):
    for body in REFUSED:
        response = await client.post("/api/dlq/search", json=body)
        assert response.status_code == 400, body
        errors = response.json()["errors"]
        assert {error["field"] for error in errors} <= set(body)
        assert all(error["detail"] for error in errors)


async def test_numbers_in_urls_have_the_same_caps(client):
    for query in (
        "limit=1e9",
        "limit=1001",
        "limit=-1",
        "limit=٣",
        "older_than_days=nan",
        "older_than_days=inf",
        "rate=1",
    ):
        assert (await client.get(f"/api/dlq?{query}")).status_code == 400, query
    for body in ({"rate": 1e9}, {"rate": 0}, {"limit": 10**12}):
        assert (await client.post("/api/dlq/retry-all", json={"type": "x", **body})).status_code == 400
    assert (await client.post("/api/dlq/retry", json={"task_id": "x", "delay": 1e12})).status_code == 400


async def test_a_body_beyond_its_cap_is_not_read(dlq):
    small = DeadLetterQueue(dlq.backend, max_payload_bytes=1000)
    client = client_of(create_app(small))
    most = 2 * 1000 + 65_536
    told = await client.post("/api/dlq/search", content=b" " * (most + 1), headers=JSON)
    assert told.status_code == 413

    assert await post_in_pieces(create_app(small), "/api/dlq/search", [b" " * 1000] * 200) == 413
    huge = {**JSON, "Content-Length": "9" * 40}
    assert (await client.post("/api/dlq/search", content=b"{}", headers=huge)).status_code == 413
    packed = {**JSON, "Content-Encoding": "gzip"}
    assert (await client.post("/api/dlq/search", content=b"{}", headers=packed)).status_code == 415


async def test_a_body_that_never_ends_is_given_up(dlq, monkeypatch):
    monkeypatch.setattr("deadletter.http.asking._SLOWEST", 0.05)

    assert await post_in_pieces(create_app(dlq), "/api/dlq/search", [b"{"]) == 408


async def test_hostile_letters_are_shown_as_they_are_and_hide_what_is_hidden(client, dlq):
    for n, text in enumerate(NASTY):
        printable = "".join(char for char in text if char.isprintable())[:100]
        payload = {text: text, "password": SECRET, "n": 2**64 - 1}
        await dlq.capture(Task(type=f"t {printable}", id=f"nasty-{n}", payload=payload), ValueError(f"{text} {SECRET}"))
        response = await client.get(f"/api/dlq/items/nasty-{n}")
        assert response.json()["payload"][text] == text
        assert SECRET not in response.text
        assert response.headers["content-type"] == "application/json"


async def test_other_methods_say_which_there_are(client):
    for method in ("PUT", "PATCH", "OPTIONS", "TRACE", "DELETE", "BREW"):
        response = await client.request(method, "/api/dlq/stats")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD"), method
        assert response.headers["content-type"] == "application/problem+json"
    purge = await client.post("/api/dlq/purge")
    assert (purge.status_code, purge.headers["allow"]) == (405, "DELETE")
