"""The OpenAPI 3.1 document, made from the endpoints, their fields and the classes of their answers."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

import orjson
from starlette.responses import Response

from ..__about__ import __version__
from .access import Level
from .fields import Field
from .schemas import components, or_null, ref
from .site import Call, Endpoint

_IN_PATH = re.compile(r"\{(\w+)\}")


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        if endpoint.told:
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "deadletter",
            "version": __version__,
            "description": "Dead letters: look at them, send them back, delete them.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "."}],
        "security": [{"bearer": []}, {"basic": []}, {}],
        "paths": paths,
        "components": {
            "schemas": components(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "any user; the token is the password"},
            },
        },
    }


def written(endpoints: Iterable[Endpoint]) -> bytes:
    """The document as it is committed."""
    return orjson.dumps(document(endpoints), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": _name(endpoint),
        "parameters": [*map(_path_parameter, _IN_PATH.findall(endpoint.path))],
        "responses": _answers(endpoint),
    }
    if endpoint.level is None:
        told["security"] = []
    else:
        told["description"] = f"Wants the scope {endpoint.level.word}."
    if endpoint.url is not None:
        told["parameters"] += [_url_parameter(name, field) for name, field in endpoint.url.items()]
    if endpoint.body is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": _body(endpoint)}}}
    told["parameters"] += _headers(endpoint)
    return told


def _name(endpoint: Endpoint) -> str:
    parts = [part.strip("{}") for part in endpoint.path.split("/") if part not in ("", "api", "dlq")] or ["letters"]
    return "_".join((endpoint.method.lower(), *parts)).replace("-", "_")


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,200}$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _url_parameter(name: str, field: Field) -> dict[str, Any]:
    schema = dict(field.in_url or field.schema)
    return {"name": name, "in": "query", "description": field.told, "schema": schema}


def _headers(endpoint: Endpoint) -> list[dict[str, Any]]:
    found = []
    if endpoint.body is not None and endpoint.level is not Level.READ:
        told = "a request that is sent again with its key answers as the first time, and does nothing"
        schema = {"type": "string", "pattern": "^[!-~]{1,255}$"}
        found.append({"name": "Idempotency-Key", "in": "header", "description": told, "schema": schema})
    if endpoint.may_respond_async:
        told = "respond-async: answer 202 at once with the Location of an operation"
        found.append({"name": "Prefer", "in": "header", "description": told, "schema": {"type": "string"}})
    return found


def _body(endpoint: Endpoint) -> dict[str, Any]:
    fields = endpoint.body or {}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            name: {**(field.schema if name in endpoint.required else or_null(field.schema)), "description": field.told}
            for name, field in fields.items()
        },
        "additionalProperties": False,
    }
    return {**schema, "required": [*endpoint.required]} if endpoint.required else schema


def _answers(endpoint: Endpoint) -> dict[str, Any]:
    if not endpoint.answer:
        content: dict[str, Any] = {}
    elif "/" in endpoint.answer:
        schema = {"type": "object"} if endpoint.answer == "application/json" else {"type": "string"}
        content = {"content": {endpoint.answer: {"schema": schema}}}
    else:
        content = {"content": {"application/json": {"schema": ref(endpoint.answer)}}}
    problem = {"content": {"application/problem+json": {"schema": ref("Problem")}}}
    answers = {str(endpoint.status): {"description": endpoint.summary, **content}}
    if endpoint.may_respond_async:
        accepted = {"content": {"application/json": {"schema": ref("Operation")}}}
        answers["202"] = {"description": "Ordered as an operation; see Location", **accepted}
    if endpoint.level is None:
        answers["503"] = {"description": "Unavailable", **content}
    return {**answers, "default": {"description": "What is wrong (RFC 9457)", **problem}}


@functools.cache
def served() -> bytes:
    """The document of this version, made once."""
    from .app import endpoints  # which lists ours, too

    return written(endpoints())


async def openapi(call: Call) -> Response:
    """The OpenAPI document."""
    del call
    return Response(served(), media_type="application/json")


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/openapi.json",
        handler=openapi,
        summary="This document",
        url=None,
        answer="application/json",
    ),
)
