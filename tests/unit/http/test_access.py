"""Who is let in: tokens, a host application, loopback peers, hosts, origins."""

from __future__ import annotations

import base64
import logging

import pytest

from deadletter import BackendUnavailable, InvalidSetting
from deadletter.http import create_app
from deadletter.http.access import Tokens

from .clients import TOKENS, client_of

pytestmark = pytest.mark.anyio

WANTS = [  # method, path, body, the least scope
    ("GET", "/api/dlq", None, "read"),
    ("GET", "/api/dlq/high", None, "read"),
    ("GET", "/api/dlq/stats", None, "read"),
    ("GET", "/api/dlq/groups", None, "read"),
    ("GET", "/api/dlq/pauses", None, "read"),
    ("GET", "/api/dlq/items/task-0", None, "read"),
    ("POST", "/api/dlq/search", {}, "read"),
    ("POST", "/api/dlq/retry", {"task_id": "task-0"}, "write"),
    ("POST", "/api/dlq/retry-all", {"priority": "low"}, "write"),
    ("POST", "/api/dlq/pause", {"types": "x", "why": "y"}, "write"),
    ("POST", "/api/dlq/resume", {}, "write"),
    ("POST", "/api/dlq/retry", {"task_id": "task-1", "payload": {"n": 1}}, "admin"),
    ("POST", "/api/dlq/retry", {"task_id": "task-2", "type": "other"}, "admin"),
    ("DELETE", "/api/dlq/purge?priority=low", None, "admin"),
    ("DELETE", "/api/dlq/items/task-0", None, "admin"),
]
ORDER = ["read", "write", "admin"]


async def test_each_endpoint_wants_its_scope(guarded):
    for method, path, body, least in WANTS:
        for scope in ORDER[: ORDER.index(least)]:
            response = await guarded(scope).request(method, path, json=body)
            assert response.status_code == 403, (method, path, scope)
            assert f"this one has {scope}" in response.json()["detail"]
        for token in (None, "a-stranger"):
            response = await guarded(token).request(method, path, json=body)
            assert response.status_code == 401, (method, path, token)
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert "Basic" in response.headers["www-authenticate"]
    for method, path, body, least in WANTS:
        assert (await guarded(least).request(method, path, json=body)).status_code in (200, 204, 409), (method, path)


async def test_where_no_token_is_admin_edits_and_purges_are_refused(dlq):
    client = client_of(create_app(dlq, tokens={"write": "w-token-0002"}), token="w-token-0002")
    assert (await client.delete("/api/dlq/purge?priority=low")).status_code == 403
    assert (await client.post("/api/dlq/retry", json={"task_id": "task-1", "type": "x"})).status_code == 403


def basic(password: str, user: str = "anyone") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_a_token_may_be_the_password_of_basic(guarded):
    client = guarded(None)
    for header, status in [
        (basic("r-token-0001"), 200),
        (basic("r-token-0001", user=""), 200),
        ("bAsIc " + basic("r-token-0001").partition(" ")[2], 200),
        ("bearer r-token-0001", 200),
        (basic("wrong"), 401),
        ("Basic %%%", 401),
        ("Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(), 401),
        ("Basic", 401),
        ("Bearer", 401),
        ("Digest r-token-0001", 401),
        ("r-token-0001", 401),
        ("Bearer " + "a" * 10_000, 401),
    ]:
        response = await client.get("/api/dlq", headers={"Authorization": header})
        assert response.status_code == status, header
    twice = [("Authorization", "Bearer r-token-0001"), ("Authorization", "Bearer wrong")]
    assert (await client.get("/api/dlq", headers=twice)).status_code == 401


@pytest.mark.parametrize(
    "given",
    [
        "read:r-token-0001, write:w-token-0002,admin:a-token-0003",
        ["read:r-token-0001", "write:w-token-0002", "admin:a-token-0003"],
        [("read", "r-token-0001"), ("write", "w-token-0002"), ("admin", "a-token-0003")],
        TOKENS,
        {"read": ["r-token-0001"], "write": ["w-token-0002"], "admin": ["a-token-0003", "another"]},
        {token: scope for scope, token in TOKENS.items()},
    ],
)
def test_tokens_are_given_in_any_of_these_forms(given):
    tokens = Tokens(given)
    for scope, token in TOKENS.items():
        assert tokens.grant(token).level.word == scope
    assert tokens.grant("stranger") is None
    assert "token-0" not in repr(tokens)
    assert "token-0" not in str(vars(tokens))


@pytest.mark.parametrize(
    "given", ["", ",", [], {}, "secret-0", "root:secret-0", "read:", "read:secret 0", ["read:\x00secret-0"], [1], 7]
)
async def test_bad_tokens_are_refused_without_being_shown(dlq, given):
    with pytest.raises(InvalidSetting) as told:
        create_app(dlq, tokens=given)
    assert "tokens" in str(told.value)
    assert "secret" not in str(told.value)


async def test_a_token_given_twice_has_the_larger_scope():
    assert Tokens("read:same,admin:same,read:same").grant("same").level.word == "admin"


async def test_without_tokens_only_this_machine_is_served(dlq):
    app = create_app(dlq)
    for peer, status in [
        ("127.0.0.1", 200),
        ("127.8.8.8", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("192.0.2.7", 403),
        ("::ffff:192.0.2.7", 403),
        ("not an address", 403),
        ("", 403),
    ]:
        assert (await client_of(app, peer=peer).get("/api/dlq")).status_code == status, peer


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
async def test_without_tokens_nothing_that_came_through_a_proxy_is_served(client, header):
    """To us its peer is this machine, whoever asked the proxy."""
    assert (await client.get("/api/dlq", headers={header: "192.0.2.7"})).status_code == 403


async def test_a_host_application_decides(dlq):
    def authorize(scope):
        given = dict(scope["headers"]).get(b"x-user", b"").decode()
        if given == "broken":
            raise RuntimeError("no session")
        return {"boss": "admin", "reader": "read", "odd": "root"}.get(given)

    client = client_of(create_app(dlq, authorize=authorize), peer="192.0.2.7")
    for user, get, delete in [
        ("boss", 200, 204),
        ("reader", 200, 403),
        ("odd", 403, 403),
        ("", 403, 403),
        ("broken", 403, 403),
    ]:
        headers = {"X-User": user}
        assert (await client.get("/api/dlq", headers=headers)).status_code == get, user
        assert (await client.delete("/api/dlq/items/task-0", headers=headers)).status_code == delete, user


async def test_a_host_application_may_be_asked_asynchronously_and_tokens_stand_beside_it(dlq):
    async def authorize(scope):
        return "read" if scope["path"].startswith("/api/dlq/stats") else None

    client = client_of(create_app(dlq, authorize=authorize, tokens=TOKENS))
    assert (await client.get("/api/dlq/stats")).status_code == 200
    assert (await client.get("/api/dlq")).status_code == 401
    assert (await client.get("/api/dlq", headers={"Authorization": "Bearer r-token-0001"})).status_code == 200


async def test_only_names_of_this_server_are_served(dlq):
    client = client_of(create_app(dlq, allowed_hosts=["DLQ.example.com", "*.internal", "[2001:db8::1]:5002"]))
    for host, status in [
        ("localhost", 200),
        ("localhost:80", 200),
        ("LOCALHOST.", 200),
        ("127.0.0.1:5002", 200),
        ("[::1]:5002", 200),
        ("dlq.example.com:8443", 200),
        ("a.internal", 200),
        ("internal", 421),
        ("[2001:db8::1]", 200),
        ("evil.example.com", 421),
        ("localhost.evil.example.com", 421),
        ("192.0.2.7", 421),
        ("", 400),
        ("a b", 400),
        ("localhost:x", 400),
        ("user@localhost", 400),
        ("localhost/..", 400),
        ("x" * 300, 400),
    ]:
        response = await client.get("/api/dlq", headers={"Host": host})
        assert response.status_code == status, host
    assert (
        await client_of(create_app(dlq, allowed_hosts="*")).get("/api/dlq", headers={"Host": "any"})
    ).status_code == 200


async def test_the_address_that_a_connection_came_to_is_a_name_of_this_server(dlq):
    app = create_app(dlq, tokens=TOKENS)

    async def reached(scope, receive, send):
        await app({**scope, "server": ("192.0.2.1", 5002)}, receive, send)

    client = client_of(reached, token=TOKENS["read"])
    assert (await client.get("/api/dlq", headers={"Host": "192.0.2.1:5002"})).status_code == 200
    assert (await client.get("/api/dlq", headers={"Host": "192.0.2.2:5002"})).status_code == 421


async def test_probes_answer_anybody_and_say_one_word(dlq):
    client = client_of(create_app(dlq, tokens=TOKENS), peer="192.0.2.7", headers={"Host": "10.0.0.7:5002"})
    for path in ("/healthz", "/readyz"):
        response = await client.get(path)
        assert (response.status_code, response.text) == (200, "ok")
    for path in ("/metrics", "/docs", "/openapi.json", "/api/dlq/events", "/healthz/", "//healthz"):
        assert (await client.get(path)).status_code == 421, path


async def test_another_sites_page_changes_nothing(client, dlq):
    body = {"task_id": "task-0"}
    for headers in (
        {"Origin": "http://evil.example.com"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://localhost"},
        {"Origin": "null"},
        {"Origin": "file://localhost:5002"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:5002"},
    ):
        assert (await client.post("/api/dlq/retry", json=body, headers=headers)).status_code == 403, headers
        assert (await client.delete("/api/dlq/items/task-0", headers=headers)).status_code == 403, headers
    own = {"Origin": "http://localhost:5002", "Sec-Fetch-Site": "same-origin"}
    assert (await client.post("/api/dlq/retry", json=body, headers=own)).status_code == 200


async def test_a_form_changes_nothing(client, dlq):
    """What a page elsewhere can send without asking first: text/plain, a form, nothing at all."""
    document = b'{"task_id": "task-0"}'
    for media_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
    ):
        response = await client.post("/api/dlq/retry", content=document, headers={"Content-Type": media_type})
        assert (response.status_code, response.headers["accept"]) == (415, "application/json"), media_type
    assert (await client.post("/api/dlq/retry", content=document)).status_code == 415
    utf8 = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (await client.post("/api/dlq/retry", content=document, headers=utf8)).status_code == 200


async def test_every_answer_is_dressed(client, guarded):
    for response in (
        await client.get("/api/dlq"),
        await client.get("/nothing"),
        await client.get("/healthz"),
        await client.put("/api/dlq"),
        await guarded(None).get("/api/dlq"),
    ):
        headers = response.headers
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert "set-cookie" not in headers
        assert not [name for name in headers if name.startswith("access-control-")]
        assert "cache-control" in headers


async def test_no_token_reaches_a_log(guarded, caplog):
    caplog.set_level(logging.DEBUG)
    for scope in ("read", "a-wrong-token"):
        await guarded(scope).get("/api/dlq?nonsense=1")
        await guarded(scope).post("/api/dlq/retry", content=b"{", headers={"Content-Type": "application/json"})
    told = caplog.text + "".join(str(vars(record)) for record in caplog.records if record.name.startswith("deadletter"))
    assert "token-000" not in told
    assert "a-wrong-token" not in told


async def test_a_websocket_is_turned_away(dlq):
    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    await create_app(dlq)({"type": "websocket", "path": "/", "headers": []}, None, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


async def test_what_is_a_mistake_of_ours_is_one_problem_and_a_log(client, dlq, monkeypatch, caplog):
    async def broken() -> None:
        raise RuntimeError("at sqlite:///secret/path")

    monkeypatch.setattr(dlq, "stats", broken)
    response = await client.get("/api/dlq/stats")
    assert (response.status_code, response.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in response.text
    assert "secret/path" in caplog.text


async def test_a_store_that_is_away_is_told_with_a_time(client, dlq, monkeypatch, caplog):
    async def away(*_, **__):
        raise BackendUnavailable("redis://db.internal:6379 does not answer")

    monkeypatch.setattr(dlq.backend, "counts", away)
    monkeypatch.setattr(dlq.backend, "inspect", away)
    for response in (await client.get("/api/dlq/stats"), await client.get("/api/dlq")):
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert "internal" not in response.text
    assert "db.internal" in caplog.text
    ready, alive = await client.get("/readyz"), await client.get("/healthz")
    assert (ready.status_code, ready.text, alive.status_code) == (503, "unavailable", 200)
