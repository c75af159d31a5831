"""Every block in README and docs runs as it stands there.

All blocks of a page run in order, in an empty folder of the page's own:

- ``python``: one namespace and one event loop a page; ``await`` may stand at the top, as in ``python -m asyncio``. A
block
  whose first line is a comment with a file's name (``# shop.py``) becomes that file instead.
- ``bash``: runs, and has to succeed. ``sh`` is for the reader alone: it installs something, or never ends.
- ``console``: each ``$ command`` runs, and what it prints is compared; ``...`` stands for anything.
- ``text``, ``ini``, and the lists of pages that build the site: only shown.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

import deadletter
from deadletter import DeadLetterQueue

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SLOW = {
    "add-to-fastapi",
    "add-to-django",
    "beside-celery-or-rq",
    "keep-secrets",
    "size-a-queue",
}  # each takes a second or more
RUN = {"python", "bash", "console"}
SHOWN = {"sh", "text", "ini", "{toctree}"}
FILE = re.compile(r"# (\w+\.py)\n")
FENCE = re.compile(r"^ *```(\S+)", re.MULTILINE)
TREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
COMMANDS = {"deadletter": f'exec "{sys.executable}" -m deadletter "$@"', "python": f'exec "{sys.executable}" "$@"'}

runner_key = "deadletter docs runner"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_python(example: Example) -> None:
    """Run a block in the page's namespace, or write the file that it is."""
    source = example.parsed
    named = FILE.match(source)
    if named is not None:
        Path(named[1]).write_text(source)
        return
    padded = "\n" * (example.line + source.line_offset) + source
    code = compile(padded, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    running = eval(code, example.namespace)
    if inspect.iscoroutine(running):
        example.namespace[runner_key].run(running)


def run_bash(example: Example) -> str | None:
    """Run a block; answer what went wrong."""
    done = shell(example.parsed)
    return None if done.returncode == 0 else f"exit {done.returncode}\n{done.stdout}{done.stderr}"


def run_console(example: Example) -> str | None:
    """Run each command and compare what it prints."""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    checker = doctest.OutputChecker()
    for command, _, expected in (
        part.partition("\n") for part in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]
    ):
        done = shell(command)
        if not checker.check_output(expected, done.stdout + done.stderr, options):
            return f"$ {command}\n{done.stdout}{done.stderr}\nis not\n{expected}"
    return None


def shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=60, check=False)


SYBIL = Sybil(
    parsers=[
        CodeBlockParser("python", run_python),
        CodeBlockParser("bash", run_bash),
        CodeBlockParser("console", run_console),
    ]
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, our commands on the path, and no settings of whoever runs the tests."""
    before = dict(os.environ)  # a page may set what tests after it would obey
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, line in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PYTHONPATH", str(Path(deadletter.__file__).parents[1]))  # a relative one would not lead there
    for name in [name for name in os.environ if name.startswith("DEADLETTER_")]:
        monkeypatch.delenv(name)
    if (
        "deadletter" not in entry_points(group="pytest11").names
    ):  # not installed, so nothing tells pytest of our fixtures
        monkeypatch.setenv("PYTEST_PLUGINS", "deadletter.testing.plugin")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    known = set(sys.modules)
    yield work
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(sys.modules[name].__file__).startswith(str(work)):
            del sys.modules[name]
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def put_in_a_module(document: Document, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of a page have a module that can be found, as those of a file have."""
    name = re.sub(r"\W", "_", page.stem.lower())
    module = ModuleType(f"{name}_page" if name in sys.stdlib_module_names else name)  # http.md is not http
    monkeypatch.setitem(sys.modules, module.__name__, module)
    document.namespace = module.__dict__


async def close(namespace: dict[str, object]) -> None:
    for value in list(namespace.values()):
        if isinstance(value, DeadLetterQueue):
            await value.aclose()


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.full) if page.stem in SLOW else page for page in PAGES],
    ids=[name_of(page) for page in PAGES],
)
def test_every_block_runs(page: Path, folder: Path, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    document = SYBIL.parse(page)
    put_in_a_module(document, page, monkeypatch)
    document.namespace[runner_key] = runner
    try:
        for example in document.examples():
            example.evaluate()
    finally:
        runner.run(close(document.namespace))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_block_says_what_it_is(page: Path) -> None:
    text = page.read_text()
    languages = set(FENCE.findall(text))
    assert languages <= RUN | SHOWN
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(FENCE.findall(text)), "a fence names no language"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_link_leads_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not broken


def test_the_site_has_every_page() -> None:
    """Runbooks are listed by a glob of their own."""
    docs = ROOT / "docs"
    listed = re.findall(r"^[\w/-]+$", "".join(TREE.findall((docs / "index.md").read_text())), re.MULTILINE)
    pages = [str(page.relative_to(docs).with_suffix("")) for page in docs.rglob("*.md")]
    assert sorted(listed) == sorted(page for page in pages if page != "index" and "/runbooks/" not in page)


def test_readme_holds_each_of_its_two_commands_on_one_line() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    tests = [line for line in lines if re.match(r"^\$? ?python3 -m venv .*pytest", line)]
    demos = [line for line in lines if re.match(r"^\$? ?python3 -m venv .*deadletter demo", line)]
    assert tests == [
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[all,test]' && .venv/bin/python -m pytest -n auto"
    ]
    assert demos == ["python3 -m venv .venv && .venv/bin/pip install -q '.[all]' && .venv/bin/deadletter demo"]
