"""What is written by a program stands there as the program would write it now."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

import deadletter
from deadletter import DeadLetterQueue, Origin, Task
from deadletter.rules import changes

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "reference" / "export.schema.json").read_text())


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_states_is_what_the_machine_does() -> None:
    """Draw it anew by ``python docs/states.py``."""
    states = program("states")
    assert states.PICTURE.read_text() == states.drawn()


def test_the_picture_leaves_out_no_verb_of_a_task() -> None:
    """Every constructor of a change is drawn, or is named as one of rows that are no tasks."""
    states = program("states")
    drawn = {name for verb in states.VERBS.values() for name in verb.__code__.co_names}
    there = {name for name, value in vars(changes).items() if getattr(value, "__module__", "") == changes.__name__}
    public = {name for name in there if not name.startswith("_")}
    assert public - drawn == states.NO_TASK


def test_a_verb_that_leads_elsewhere_changes_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    states = program("states")
    monkeypatch.setitem(states.VERBS, "cancel", states.VERBS["expire"])
    assert states.PICTURE.read_text() != states.drawn()


def test_llms_txt_has_every_page() -> None:
    """Write it anew by ``python docs/sitemap.py``."""
    sitemap = program("sitemap")
    assert sitemap.MAP.read_text() == sitemap.written()


def exported(url: str, *flags: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "deadletter", "export", "--url", url, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


async def fill(url: str) -> None:
    """Letters of every kind: captured, out of retries, edited, not replayable, with everything set and with nothing."""

    def fail(task: Task) -> None:
        raise ValueError(f"no {task.payload.get('password')}")

    async with DeadLetterQueue(url, retry=[0, 0], release="2.0") as dlq:
        whole = Task(
            type="whole",
            payload={"password": "hunter22", "n": [1, None, {"x": 1.5}]},
            priority="high",
            idempotency_key="k",
            timeout=5,
            expires_in=3600,
            on_uncertain="dead",
            metadata={"tenant": "acme"},
            origin=Origin(system="celery", queue="q", native_id="7", raw=b"\x00raw"),
        )
        await dlq.capture(whole, TimeoutError("no answer"))
        task_id = await dlq.enqueue(Task(type="plain"))
        for _ in range(3):
            await dlq.process_task(task_id, fail)
        await dlq.retry(task_id, payload={"n": 2}, why="a new address")
        for _ in range(3):
            await dlq.process_task(task_id, fail)
        assert (await dlq.stats()).by_state["dead"] == 2


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('export') / 'letters.db'}"
    asyncio.run(fill(url))
    return url


@pytest.mark.parametrize("flags", [(), ("--reveal",)], ids=["hidden", "revealed"])
def test_a_real_export_is_what_its_schema_says(url: str, flags: tuple[str, ...]) -> None:
    lines = exported(url, *flags)
    assert len(lines) == 2
    validator = jsonschema.Draft202012Validator(SCHEMA)
    attempt = set(SCHEMA["$defs"]["failure"]["properties"]) | set(SCHEMA["$defs"]["attempt"]["properties"])
    for line in lines:
        validator.validate(line)
        assert set(line) <= set(SCHEMA["properties"]), "a field that the schema does not tell"
        assert all(set(entry) <= attempt for entry in line["history"])
    for field, value in (
        ("format", 2),
        ("state", "pending"),
        ("attempts", -1),
        ("died_at", "yesterday"),
        ("payload", []),
    ):
        assert not validator.is_valid({**lines[0], field: value}), f"{field} may be {value!r}"


def test_every_column_of_a_task_is_told(url: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
        columns = {name for _, name, *_ in file.execute("PRAGMA table_info(dl_rows)")}
    page = (DOCS / "reference" / "sqlite.md").read_text()
    assert {name for name in columns if f"`{name}`" not in page} == set()


def test_every_public_module_has_its_page_of_the_api() -> None:
    source = Path(deadletter.__file__).parent
    rooms = {"deadletter", *(f"deadletter.{room}" for room in ("retry", "alerts", "http", "metrics", "testing"))}
    adapters = {
        f"deadletter.adapters.{path.stem}"
        for path in (source / "adapters").glob("[!_]*.py")
        if "__all__" in path.read_text()
    }
    assert {page.stem for page in (DOCS / "reference" / "api").glob("*.rst")} == rooms | adapters
    told = (DOCS / "reference" / "api.md").read_text()
    assert [name for name in rooms | adapters if f"[{name}](api/{name}.rst)" not in told] == []
