"""The house rules that no linter knows: who imports what, how long, under which name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import deadletter

SOURCE = Path(__file__).parents[2] / "src" / "deadletter"
MODULES = sorted(SOURCE.rglob("*.py"))

MAX_LINES = 450
LONGER_FILES = {  # path below src/deadletter: why it may be longer
    "engine/queue.py": "the public calls, each a few lines under its docstring: one page to read",
}

MAX_FUNCTION_LINES = 60
LONGER_FUNCTIONS = {  # path:function: why it may be longer
    "engine/queue.py:__init__": "the options that users type, one a line",
    "engine/decorator.py:dead_lettered": "the options that users type, and their docstring",
}

CORE = {"anyio", "attrs", "cattrs", "orjson", "tenacity", "uuid_utils"}
EXTRAS = {  # room: what it may import beside the core, each brought by an extra of pyproject.toml
    "backends": {"hiredis", "redis", "psycopg", "psycopg_pool"},
    "http": {"jinja2", "sse_starlette", "starlette", "uvicorn"},
    "cli": {"cyclopts", "httpx2", "rich", "uvicorn"},
    "alerts": {"aiosmtplib", "apprise", "httpcore2", "httpx2", "standardwebhooks"},
    "adapters": {"circuitbreaker", "opentelemetry"},
    "metrics": {"prometheus_client"},
    "testing": {"hypothesis", "pytest"},
}

HEAVY = ("redis", "sqlite3", "psycopg", "starlette", "rich", "cattrs", "tenacity", "cyclopts")


def named(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


every_module = pytest.mark.parametrize("path", MODULES, ids=named)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def third_parties(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names


def test_the_tests_run_on_this_source() -> None:
    """A copy of the package from elsewhere would make every other test here a lie."""
    assert Path(deadletter.__file__).parent.joinpath("__init__.py").read_text() == (SOURCE / "__init__.py").read_text()


@pytest.mark.parametrize("statement", ["import deadletter", "from deadletter import DeadLetterQueue, Task"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    probe = f"import sys; before = set(sys.modules); {statement}; print(*set({HEAVY!r}) & set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.full
def test_importing_takes_at_most_twice_as_long_as_asyncio() -> None:
    def best(statement: str) -> float:
        took: list[float] = []
        for _ in range(12):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            took.append(time.perf_counter() - began)
        return min(took)

    best("import deadletter")  # writes the byte code
    assert best("from deadletter import DeadLetterQueue, Task") <= 2 * best("import asyncio")


@pytest.mark.parametrize("name", deadletter.__all__)
def test_public_names_resolve_and_say_what_they_are(name: str) -> None:
    value = getattr(deadletter, name)
    assert isinstance(value, str) or (value.__doc__ or "").strip(), f"{name} has no docstring"


def test_public_names_are_all_in_dir() -> None:
    """What is loaded lazily must still show in a shell's completion."""
    assert set(deadletter.__all__) <= set(dir(deadletter))


@every_module
def test_files_stay_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES or named(path) in LONGER_FILES, f"{lines} lines: split it, or list it with a reason"


@every_module
def test_functions_stay_short(path: Path) -> None:
    longer = {
        f"{named(path)}:{node.name}"
        for node in functions(path)
        if (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    }
    assert longer <= set(LONGER_FUNCTIONS), "split them, or list them with a reason"


def test_exceptions_to_a_length_are_real() -> None:
    """A reason outlives the file it was given for unless something notices."""
    assert set(LONGER_FILES) <= {named(path) for path in MODULES}
    assert set(LONGER_FUNCTIONS) <= {f"{named(path)}:{node.name}" for path in MODULES for node in functions(path)}


@every_module
def test_modules_are_named_for_what_they_hold(path: Path) -> None:
    assert not re.search(r"(^|[/_])(utils?|helpers?|common|managers?)([/_.]|$)", named(path))


@every_module
def test_words_of_other_queues_are_not_used(path: Path) -> None:
    found = re.findall(r"(?<![a-z])(?:jobs?|n?acks?)(?![a-z])", path.read_text(), re.IGNORECASE)
    assert not found, "task, row, letter, settle: see CONTRIBUTING"


@every_module
def test_rooms_import_only_what_their_extra_brings(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert third_parties(path) <= CORE | EXTRAS.get(room, set())


@every_module
def test_annotations_are_postponed(path: Path) -> None:
    """Names needed only by a type checker cost nothing at run time, and forward references need no quotes."""
    text = path.read_text()
    assert "def " not in text or "from __future__ import annotations" in text
