"""The OpenAPI document and its page."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path
from urllib.parse import urljoin

import attrs
import pytest

from deadletter import Query, Task
from deadletter.http.app import endpoints
from deadletter.http.fields import FIELDS, QUERY
from deadletter.http.openapi import document, written
from deadletter.http.schemas import components, described
from deadletter.model.operation import Operation
from deadletter.views import operation_item, stats_item

COMMITTED = Path(__file__).parents[3] / "docs" / "reference" / "openapi.json"


def test_the_committed_document_is_that_of_the_code():
    """What code cannot tell is nowhere written by hand: ``nox -s openapi`` writes it anew."""
    assert json.loads(COMMITTED.read_bytes()) == document(endpoints())
    assert COMMITTED.read_bytes() == written(endpoints())


def test_every_condition_of_a_query_is_a_field():
    assert set(QUERY) == {field.name for field in attrs.fields(Query) if field.init}
    assert list(FIELDS)[: len(QUERY)] == list(QUERY)


def test_every_reference_leads_somewhere():
    text = COMMITTED.read_text()
    names = {piece.partition('"')[0] for piece in text.split('"#/components/schemas/')[1:]}
    assert names <= set(components())


def test_every_path_of_the_contract_is_told():
    paths = document(endpoints())["paths"]
    told = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert told >= {
        "GET /api/dlq",
        *(f"GET /api/dlq/{name}" for name in ("high", "normal", "low", "stats", "groups", "events", "operations")),
        "GET /api/dlq/items/{id}",
        "DELETE /api/dlq/items/{id}",
        *(f"POST /api/dlq/{name}" for name in ("retry", "retry-all", "search", "pause", "resume")),
        "DELETE /api/dlq/purge",
        "GET /api/dlq/operations/{id}",
        "DELETE /api/dlq/operations/{id}",
        *(f"GET /{name}" for name in ("healthz", "readyz", "metrics", "openapi.json", "docs")),
    }


def test_names_of_operations_are_unique():
    paths = document(endpoints())["paths"]
    names = [told["operationId"] for methods in paths.values() for told in methods.values()]
    assert len(names) == len(set(names))


@pytest.mark.anyio
async def test_answers_have_the_fields_of_their_schemas(client, dlq):
    schemas = components()
    await dlq.enqueue(Task(type="t"))
    await dlq.pause("t", why="x")
    page, item = (await client.get("/api/dlq")).json(), (await client.get("/api/dlq/items/task-1")).json()
    operation = (
        await client.post("/api/dlq/retry-all", json={"type": "none"}, headers={"Prefer": "respond-async"})
    ).json()
    for name, answer in [
        ("Page", page),
        ("ListedItem", page["items"][0]),
        ("Error", page["items"][0]["error"]),
        ("Item", item),
        ("Failure", item["history"][0]),
        ("Stats", stats_item(await dlq.stats())),
        ("Operation", operation),
        ("Pauses", (await client.get("/api/dlq/pauses")).json()),
        ("FailureGroup", (await client.get("/api/dlq/groups")).json()["groups"][0]),
    ]:
        assert set(answer) == set(schemas[name]["required"]), name
        optional = set(schemas[name]["properties"]) - set(schemas[name]["required"])
        assert optional == ({"searched"} if name == "Page" else set()), name


def test_docstrings_describe_the_fields():
    told = described(Operation)
    assert told["id"] == "its name."
    assert told["limit"] == told["why"] == "as they were asked for."
    assert callable(operation_item)


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.found += [value for name, value in attributes if name in ("href", "src") and value]


@pytest.mark.anyio
async def test_the_page_needs_nothing_from_elsewhere(client):
    page = await client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    links = _Links()
    links.feed(page.text)
    assert not links.tags & {"script", "iframe", "style"}
    assert " style=" not in page.text
    for link in links.found:
        target = urljoin("http://localhost:5002/docs", link)
        assert target.startswith("http://localhost:5002/")
        assert (await client.get(target)).status_code == 200, link
    assert "POST /api/dlq/retry-all" in page.text
    assert (await client.get("/docs/style.css")).headers["content-type"].startswith("text/css")
    assert (await client.get("/openapi.json")).json()["openapi"] == "3.1.0"
