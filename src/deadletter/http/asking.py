"""From what a request says, in its URL or its body, to values and a Query. The dashboard's filters are read here, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request

from ..model.errors import InvalidQuery, InvalidTask
from ..model.query import Query
from ..rules.strict_json import loads_strict
from .fields import QUERY, Field
from .problems import Problem, problem_of, refused

_SLOWEST = 30.0  # seconds that a body may take
_ERRORS = 20  # fields that one answer names


def from_url(
    given: Iterable[tuple[str, str]], fields: Mapping[str, Field], *, blank_is_unset: bool = False
) -> dict[str, Any]:
    """The values of a URL's query, by name.

    Args:
        given: names and texts, as Starlette's ``request.query_params.multi_items()`` has them.
        fields: what may be given.
        blank_is_unset: leave out what is empty, as a form sends it; else it is refused.

    Raises:
        Problem: 400; names each field that is unknown, given twice or cannot be meant.
    """
    texts: dict[str, list[str]] = {}
    for name, text in given:
        if text or not blank_is_unset:
            texts.setdefault(name, []).append(text)
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, listed in texts.items():
        field = fields.get(name)
        if field is None:
            continue
        if len(listed) > 1 and not field.many:
            errors[name] = "is given twice; give it once"
            continue
        try:
            values[name] = field.from_text(listed if field.many else listed[0])
        except ValueError as error:
            errors[name] = str(error)
    return _checked({**dict.fromkeys(texts), **values}, fields, errors)


def from_document(document: Any, fields: Mapping[str, Field]) -> dict[str, Any]:
    """The values of a JSON body, by name; null leaves a field out. Raises Problem 400 likewise."""
    if not isinstance(document, dict):
        raise Problem(400, "the body is no JSON object; send one, such as {}")
    return _checked(document, fields, {})


def _checked(given: Mapping[str, Any], fields: Mapping[str, Field], errors: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields:
            errors[name] = f"is no field of this request; it knows {', '.join(fields) or 'none'}"
        elif value is not None and name not in errors:
            try:
                values[name] = fields[name].check(value)
            except ValueError as error:
                errors[name] = str(error)
    if errors:
        told = [{"field": name[:100], "detail": detail} for name, detail in [*errors.items()][:_ERRORS]]
        raise Problem(400, "; ".join(f"{error['field']}: {error['detail']}" for error in told[:3]), errors=told)
    return values


async def read_json(request: Request, *, most: int) -> Any:
    """The JSON document of a body, read strictly.

    Raises:
        Problem: 415 for another media type, 413 for more than ``most`` bytes, 408 for one that never ends, 400 for what
            is no JSON.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        said = f"{media_type[:60]} is not read here" if media_type else "it has no Content-Type"
        raise Problem(415, f"{said}; send application/json", headers={"Accept": "application/json"})
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "a compressed body is not read here; send it as it is", headers={"Accept-Encoding": ""})
    raw = await read_body(request, most)
    try:
        return loads_strict(raw, max_bytes=most)
    except InvalidTask as error:
        raise Problem(400, str(error)) from None


async def read_body(request: Request, most: int) -> bytes:
    """The bytes of a body; raises Problem 413 for more than ``most``, 408 for one that never ends."""
    too_large = Problem(413, f"the body is larger than {most} bytes; send less")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 12 or int(length) > most):
        raise too_large
    raw = bytearray()
    try:
        with anyio.fail_after(_SLOWEST):
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    raw += chunk
                    if len(raw) > most:
                        raise too_large
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {_SLOWEST:g} s; send it again") from None
    except ClientDisconnect:
        raise Problem(400, "the body ended too early; send it again") from None
    return bytes(raw)


def query_of(values: Mapping[str, Any]) -> Query:
    """The Query that values mean; raises Problem 400 that names the field."""
    wanted = {name: values[name] for name in QUERY if name in values}
    for other, name, value in (
        ("task_type", "type", values.get("task_type")),
        ("older_than_days", "older_than", _days(values.get("older_than_days"))),
    ):
        if value is not None:
            if wanted.get(name, value) != value:
                raise refused(other, f"says another than {name}; give one of them")
            wanted[name] = value
    try:
        return Query(**wanted)
    except (InvalidQuery, InvalidTask) as error:
        problem = problem_of(error)
        assert problem is not None  # noqa: S101 - both are known
        raise problem from None


def _days(days: float | None) -> float | None:
    return None if days is None else days * 86400
