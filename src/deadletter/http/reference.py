"""``/docs``: the OpenAPI document as a page that needs neither network nor script."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import orjson
from starlette.responses import HTMLResponse, Response

from .openapi import served
from .site import Call, Endpoint

_STYLE = """:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h2 { border-top: 1px solid; margin-top: 2.5rem; padding-top: 1rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 1rem 0.25rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
code { font-family: ui-monospace, monospace; }
td:first-child { white-space: nowrap; }
"""  # noqa: E501 - one rule a line


@functools.cache
def _page() -> str:
    document = orjson.loads(served())
    body = "\n".join(_lines(document))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>deadletter: HTTP API</title>\n<link rel="stylesheet" href="docs/style.css">\n</head>\n<body>\n{body}\n'
        "</body>\n</html>\n"
    )


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield f"<h1>deadletter {escape(info['version'])}: HTTP API</h1>"
    yield (
        "<p>The same as an <a href='openapi.json'>OpenAPI document</a>. A token goes in <code>Authorization: Bearer</code>,"
        " or as the password of Basic. What is wrong is told as <code>application/problem+json</code>.</p>"
    )
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"<h2 id='{operation['operationId']}'><code>{method.upper()} {escape(path)}</code></h2>"
            yield f"<p>{escape(operation['summary'])}. {escape(operation.get('description', ''))}</p>"
            yield from _table("In the URL and headers", operation["parameters"])
            yield from _table("In the body", _fields(operation.get("requestBody")))
            yield f"<p>Answers {_answers(operation['responses'])}.</p>"
    yield "<h1>Answers</h1>"
    for name, schema in document["components"]["schemas"].items():
        yield f"<h2 id='{name}'><code>{name}</code></h2><p>{escape(schema.get('description', ''))}</p>"
        yield from _table("", [{"name": field, **told} for field, told in schema["properties"].items()])


def _fields(body: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if body is None:
        return []
    schema = body["content"]["application/json"]["schema"]
    needed = schema.get("required", ())
    return [{"name": name, "required": name in needed, **told} for name, told in schema["properties"].items()]


def _table(title: str, fields: list[dict[str, Any]]) -> Iterator[str]:
    if not fields:
        return
    yield f"<h3>{title}</h3><table>" if title else "<table>"
    for field in fields:
        needed = " (required)" if field.get("required") is True else ""
        told = escape(field.get("description", "")) + needed
        yield f"<tr><td><code>{escape(field['name'])}</code></td><td>{_kind(field)}</td><td>{told}</td></tr>"
    yield "</table>"


def _kind(field: Mapping[str, Any]) -> str:
    schema = field.get("schema", field)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href='#{name}'>{name}</a>"
    if "enum" in schema:
        return escape(" | ".join("null" if word is None else str(word) for word in schema["enum"]))
    parts = schema.get("oneOf") or schema.get("anyOf")
    if parts:
        return " | ".join(map(_kind, parts))
    kind = schema.get("type", "anything")
    shown = " | ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{shown} of {_kind(schema['items'])}" if "items" in schema else escape(shown)


def _answers(responses: Mapping[str, Any]) -> str:
    told = []
    for status, response in responses.items():
        for media_type, content in (response.get("content") or {"nothing": {}}).items():
            kind = _kind(content["schema"]) if "$ref" in content.get("schema", {}) else escape(media_type)
            told.append(f"{'else' if status == 'default' else status}: {kind}")
    return ", ".join(told)


async def reference(call: Call) -> Response:
    """The page."""
    del call
    return HTMLResponse(_page())


async def style(call: Call) -> Response:
    """Its style sheet, apart: the content security policy allows none inside a page."""
    del call
    return Response(_STYLE, media_type="text/css")


ENDPOINTS = (
    Endpoint(
        method="GET", path="/docs", handler=reference, summary="This reference as a page", url=None, answer="text/html"
    ),
    Endpoint(method="GET", path="/docs/style.css", handler=style, summary="Its style", url=None, told=False),
)
