"""Operations: how far they came, and calling them off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import attrs
from starlette.responses import Response

from ...engine import standing
from ...model.operation import Operation, OperationKind, OperationState
from ..access import Level
from ..reading import path_id
from ..site import Call
from .filters import LABELS
from .forms import read_form
from .pages import page, render, see_other
from .words import pretty

_SHOWN = 100


@attrs.frozen
class Words:
    """How a kind of operation is spoken of."""

    verb: str
    done: str
    noun: str


_WORDS: Mapping[OperationKind, Words] = {
    "retry-all": Words("Retry", "Sent back", "letter"),
    "purge": Words("Purge", "Purged", "letter"),
    "erase": Words("Erase", "Erased", "task"),
}


@attrs.frozen
class Shown:
    """An operation as it is shown.

    Attributes:
        percent: how far it came; None where that cannot be known.
        conditions: (label, text) of its query.
        url: the query of the list of its letters.
    """

    operation: Operation
    percent: int | None
    conditions: list[tuple[str, str]]
    url: str

    @property
    def words(self) -> Words:
        """How it is spoken of."""
        return _WORDS[self.operation.kind]

    @property
    def live(self) -> bool:
        """Whether it goes on."""
        return self.operation.ended_at is None

    @property
    def tone(self) -> str:
        """How its state reads: "good", "bad", "warn" or nothing."""
        tones = {OperationState.DONE: "good", OperationState.FAILED: "bad", OperationState.CANCELLED: "warn"}
        return tones.get(self.operation.state, "")


def _shown(operation: Operation) -> Shown:
    percent = None
    if operation.ended_at is not None and operation.state is OperationState.DONE:
        percent = 100
    elif operation.total:
        percent = min(100, operation.matched * 100 // operation.total)
    elif operation.total == 0:
        percent = 100
    conditions = [
        (LABELS.get(name, name), _text(value))
        for name, value in operation.query.items()
        if (name, value) != ("state", "dead")
    ]
    return Shown(operation, percent, conditions, urlencode(_pairs(operation.query)))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} selected" if len(value) > 1 else str(value[0]) if value else "none"
    return pretty(value) if isinstance(value, Mapping) else str(value)


def _pairs(query: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        if isinstance(value, Mapping):
            pairs += [(name, f"{key}={_value(name, part)}") for key, part in value.items()]
        elif isinstance(value, list):
            pairs.append((name, ",".join(map(str, value))))
        elif name != "state":
            pairs.append((name, str(value)))
    return pairs


def _value(name: str, part: Any) -> str:
    return str(part) if name == "metadata" else pretty(part)


@page
async def operations(call: Call) -> Response:
    """Those on their way and those that ended lately."""
    found = await standing.listed(call.site.queue)
    if any(one.ended_at is None for one in found):
        call.site.operations.start()
    return render(call, "operations.html", operations=[_shown(one) for one in found[:_SHOWN]], more=len(found) > _SHOWN)


@page
async def operation(call: Call) -> Response:
    """How far one came."""
    found = await standing.look(call.site.queue, path_id(call))
    if found.ended_at is None:
        call.site.operations.start()
    return render(call, "operation.html", shown=_shown(found))


@page
async def call_off(call: Call) -> Response:
    """One does no further step."""
    call.need(Level.WRITE, "calling off")
    await read_form(call)
    ended = await standing.call_off(call.site.queue, path_id(call))
    return see_other(call, f"/operations/{ended.id}?told=called-off")
