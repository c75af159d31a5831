"""One letter: its story, its payload, and what can be done with it."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from typing import Any

import attrs
import orjson
from starlette.responses import Response

from ...model.errors import InvalidTask
from ...model.record import EDITED, TaskRecord
from ...rules.duration_text import parse_duration
from ...rules.strict_json import loads_strict
from ..access import Level
from ..fields import FIELDS
from ..problems import Problem, refused
from ..reading import named, path_id
from ..site import Call
from .forms import Form, read_form
from .pages import page, render, see_other
from .words import pretty

_MOST_LINES = 5_000  # of a diff


@attrs.frozen
class Copied:
    """A call that can be copied."""

    label: str
    text: str


@page
async def letter(call: Call) -> Response:
    """The whole story of one task."""
    return await _letter(call, await named(call))


async def _letter(call: Call, record: TaskRecord, **form: Any) -> Response:
    shown = {
        "payload_text": pretty(record.task.payload),
        "type_text": record.task.type,
        "delay_text": "",
        "why_text": "",
        "keep_attempts": False,
        "diff": None,
        "error": None,
        **form,
    }
    return render(
        call,
        "letter.html",
        status=400 if shown["error"] else 200,
        record=record,
        edited=EDITED,
        hidden=_hides(record.task.payload),
        copies=_copies(call, record),
        **shown,
    )


def _hides(value: Any) -> bool:
    return '"$redacted": true' in pretty(value)


def _copies(call: Call, record: TaskRecord) -> Sequence[Copied]:
    """A retry of this letter, for a terminal and for code."""
    base = f"{call.request.url.scheme}://{call.request.headers['host']}"
    body = orjson.dumps({"task_id": record.id}).decode()
    token = [] if call.site.access.tokens is None else ['-H "Authorization: Bearer $DEADLETTER_TOKEN"']
    curl = [
        f"curl -X POST {shlex.quote(base + call.link('/api/dlq/retry'))}",
        "-H 'Content-Type: application/json'",
        *token,
        f"-d {shlex.quote(body)}",
    ]
    queue = "" if record.queue == "default" else f" --queue {shlex.quote(record.queue)}"
    return [
        Copied("curl", " \\\n  ".join(curl)),
        Copied("Command line", f"deadletter retry {shlex.quote(record.id)}{queue}"),
        Copied("Python", f"await dlq.retry({record.id!r})"),
    ]


@page
async def retry(call: Call) -> Response:
    """Send a letter back as it is."""
    call.need(Level.WRITE, "a retry")
    form = await read_form(call)
    task_id = path_id(call)
    await call.site.queue.retry(task_id, **_how(form))
    return see_other(call, f"/letters/{task_id}?told=retried")


def _how(form: Form) -> dict[str, Any]:
    """The options of a retry; raises Problem 400 that names the field."""
    how: dict[str, Any] = {"reset_attempts": not form.ticked("keep_attempts")}
    if form.text("delay"):
        try:
            how["delay"] = FIELDS["delay"].check(parse_duration(form.text("delay")))
        except ValueError as error:
            raise refused("delay", str(error)) from None
    if form.text("why"):
        try:
            how["why"] = FIELDS["why"].check(form.text("why"))
        except ValueError as error:
            raise refused("why", str(error)) from None
    return how


@page
async def edit(call: Call) -> Response:
    """Show what an edit changes; then send the letter back with it."""
    call.need(Level.ADMIN, "an edit")
    form = await read_form(call)
    record = await named(call)
    text, type_ = form.text("payload"), form.text("type")
    written = {
        "payload_text": text,
        "type_text": type_,
        "delay_text": form.text("delay"),
        "why_text": form.text("why"),
        "keep_attempts": form.ticked("keep_attempts"),
    }
    try:
        edits = _edits(record, text, type_)
    except (ValueError, Problem) as error:
        return await _letter(call, record, error=_words(error), **written)
    how = _how(form)
    if form.text("step") != "apply":
        return await _letter(call, record, diff=_diff(record, edits), **written)
    try:
        await call.site.queue.retry(record.id, **edits, **how)
    except InvalidTask as error:
        return await _letter(call, record, error=str(error), **written)
    return see_other(call, f"/letters/{record.id}?told={'edited' if edits else 'retried'}")


def _words(error: Exception) -> str:
    return error.detail if isinstance(error, Problem) else str(error)


def _edits(record: TaskRecord, text: str, type_: str) -> dict[str, Any]:
    """What was changed; raises ValueError or Problem with what is wrong."""
    edits: dict[str, Any] = {}
    payload = loads_strict(text.encode(), max_bytes=len(text.encode()) + 1, field="payload")
    if not isinstance(payload, dict):
        raise refused("payload", 'this is no JSON object; write one, such as {"customer": 7}')
    if pretty(payload) != pretty(record.task.payload):  # as texts: 1 and 1.0 and True are three
        edits["payload"] = payload
    if type_ != record.task.type:
        edits["type"] = FIELDS["edited_type"].check(type_)
    return edits


def _diff(record: TaskRecord, edits: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines with what became of each: "same", "old", "new" or "skip"."""
    before = [f"type: {record.task.type}", *pretty(record.task.payload).split("\n")]
    after = [
        f"type: {edits.get('type', record.task.type)}",
        *pretty(edits.get("payload", record.task.payload)).split("\n"),
    ]
    kinds = {" ": "same", "-": "old", "+": "new", "@": "skip"}
    lines = list(difflib.unified_diff(before, after, n=3, lineterm=""))[2:]
    return [(kinds[line[0]], line[1:] if line[0] != "@" else "…") for line in lines[:_MOST_LINES]]


@page
async def cancel(call: Call) -> Response:
    """Delete a pending task."""
    call.need(Level.WRITE, "a cancel")
    await read_form(call)
    task_id = path_id(call)
    if await call.site.queue.cancel(task_id):
        return see_other(call, "/letters?state=pending&told=cancelled")
    return see_other(call, f"/letters/{task_id}?told=not-cancelled")
