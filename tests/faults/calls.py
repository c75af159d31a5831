"""Every call of the store by every process, in one file of JSON lines, and the history that they make.

A line is written before a call is made, another once its answer is there, and one for each time that a request is sent
again. What a killed process asked stays without an answer. A proxy adds what became of each request on its way.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import time
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import cattrs.preconf.json

from deadletter.backends.redis import RedisBackend
from deadletter.backends.redis.client import Connections
from deadletter.backends.sqlite import SQLiteBackend
from deadletter.interfaces import Backend
from deadletter.model.row import Change, Claim, Claimed, Insertion, NewRow, Row, Scan, Slice, Verdict

from ..sim.history import LOGGED, Call, History

QUEUE = "default"
ASKED: dict[str, Any] = {"insert": list[NewRow], "claim": Claim, "apply": list[Change], "scan": Scan, "load": list[str]}
ANSWERED: dict[str, Any] = {
    "insert": list[Insertion],
    "claim": Claimed,
    "apply": list[Verdict],
    "scan": Slice,
    "load": list[Row | None],
    "sweep": list[Row],
}
_SENDING: ContextVar[list[Any] | None] = ContextVar("_SENDING", default=None)
_CONVERTER = cattrs.preconf.json.make_converter()


class CallLog:
    """The file; any number of processes append to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "calls.jsonl"

    def write(self, **said: Any) -> None:
        """Append a line; it outlives its writer's SIGKILL."""
        line = json.dumps({"at": time.time() * 1000, **said}).encode() + b"\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def lines(self) -> list[dict[str, Any]]:
        """All of them but the half line of a writer that just died."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_bytes().split(b"\n")[:-1]]


def log_process(folder: Path, who: str) -> None:
    """Have all backends of this process write down their calls."""
    log, numbers = CallLog(folder), itertools.count()
    for kind in (SQLiteBackend, RedisBackend):
        for name in LOGGED:
            setattr(kind, name, _logged(log, who, numbers, name, getattr(kind, name)))
    log_repeats(log)


def log_backend(backend: Backend, folder: Path, who: str) -> None:
    """Have one backend write down its calls."""
    log, numbers = CallLog(folder), itertools.count()
    for name in LOGGED:
        logged = _logged(log, who, numbers, name, getattr(type(backend), name))
        setattr(backend, name, functools.partial(logged, backend))


def log_repeats(log: CallLog) -> None:
    """Have Redis' client write down what it sends again."""
    once = Connections.once

    async def logged(self: Connections, commands: Sequence[Sequence[Any]]) -> list[Any]:
        sending = _SENDING.get()
        if sending is not None:
            sending[2] += 1
            if sending[2] > 1:
                log.write(who=sending[0], n=sending[1], again=True)
        return await once(self, commands)

    Connections.once = logged  # type: ignore[method-assign]


def _logged(log: CallLog, who: str, numbers: itertools.count[int], name: str, call: Any) -> Any:
    async def logged(self: Backend, queue: str, *args: Any, **options: Any) -> Any:
        if queue != QUEUE:
            return await call(self, queue, *args, **options)
        n = next(numbers)
        log.write(who=who, n=n, call=name, args=_CONVERTER.unstructure(args), options=options)
        token = _SENDING.set([who, n, 0])
        try:
            answer = await call(self, queue, *args, **options)
        finally:
            _SENDING.reset(token)
        log.write(who=who, n=n, answer=_CONVERTER.unstructure(answer))
        return answer

    return logged


def history_of(log: CallLog) -> History:
    """What the lines tell."""
    history, lines = History(), log.lines()
    calls: dict[tuple[str, int], Call | None] = {}
    again: dict[tuple[str, int], list[float]] = {}
    for line in lines:
        if "passed" in line:
            continue
        key = (line["who"], line["n"])
        if "call" in line:
            name, args = line["call"], line["args"]
            given = [_CONVERTER.structure(args[0], ASKED[name])] if name in ASKED else args
            calls[key] = history.ask(line["who"], name, given, line["options"], line["at"])
        elif "answer" in line:
            call = calls[key]
            assert call is not None
            history.tell(call, _CONVERTER.structure(line["answer"], ANSWERED[call.name]), line["at"])
        else:
            again.setdefault(key, []).append(line["at"])
    reached = _reached([line for line in lines if "passed" in line], history.calls)
    for key, call in calls.items():
        if call is not None:
            _repeat(history, call, again.get(key, []), reached.get(id(call)))
    return history


def _repeat(history: History, call: Call, again: list[float], reached: list[bool] | None) -> None:
    """Each request that reached the server may have run, whatever came of its answer."""
    runs = 1 + len(again)
    if reached is not None and len(reached) >= runs:
        runs = sum(reached)
    for _ in range(runs - 1):
        history.repeat(call, call.asked)
    if runs == 0 and call.answer is None:
        history.calls.remove(call)


def _reached(lines: Sequence[dict[str, Any]], calls: Sequence[Call]) -> dict[int, list[bool]]:
    """Which of a call's requests a proxy let through, where it saw them whole."""
    seen: dict[int, list[bool]] = {}
    named = {mark: call for call in calls for mark in [_mark(call)] if mark is not None}
    for line in lines:
        for call in {named[word] for word in line["request"] if word in named}:
            seen.setdefault(id(call), []).append(line["passed"])
    return seen


def _mark(call: Call) -> str | None:
    """A word that no other call's request holds."""
    if call.name == "claim":
        return str(call.args[0].op)
    return str(call.args[0][0].op) if call.name == "apply" else None
