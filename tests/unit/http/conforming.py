"""Whatever the OpenAPI document describes or forbids is answered as it says: schemathesis makes the requests."""

from __future__ import annotations

import contextlib
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deadletter import DeadLetterQueue, Task
from deadletter.http import create_app

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
EXAMPLES = 40


def ask_all(tmp_path: Path, *, allowed: bool) -> None:
    """Ask every operation for what the document allows, or for what it forbids."""
    mode = schemathesis.GenerationMode.POSITIVE if allowed else schemathesis.GenerationMode.NEGATIVE
    dlq = DeadLetterQueue(f"sqlite:///{tmp_path / 'a.db'}")
    for n in range(3):
        dlq.sync.capture(Task(type="t", id=f"task-{n}", payload={"n": n}), ValueError("x"))
    app = create_app(dlq, allowed_hosts=["testserver"])
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    schema = schema.exclude(path="/api/dlq/events")  # which never ends
    asked = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            asked.add(f"{case.method} {case.path}")
            case.call_and_validate(checks=CHECKS)

        with contextlib.suppress(Unsatisfiable):  # where nothing is taken, nothing can be wrong
            ask()
    assert len(asked) >= 12
    dlq.sync.aclose()
