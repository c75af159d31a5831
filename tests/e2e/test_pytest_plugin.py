"""The pytest plugin in runs of its own: what users' tests see of it, passing and failing."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import deadletter

HERE = str(Path(deadletter.__file__).parents[1])
PLUGIN = "deadletter.testing.plugin"
# An installed copy loads it by its entry point; twice is an error.
INSTALLED = "deadletter" in entry_points(group="pytest11").names
LOADED = () if INSTALLED else ("-p", PLUGIN)


def run(tmp_path: Path, tests: str, *options: str, conftest: str = "") -> tuple[int, str]:
    """The exit code and output of pytest over one file of a user's tests."""
    (tmp_path / "test_shop.py").write_text(tests)
    (tmp_path / "conftest.py").write_text(conftest)
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("DEADLETTER_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *LOADED, *options],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": HERE, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


SYNC = """
from deadletter import Task, PermanentError

def test_a_letter(dlq, dlq_worker, dlq_clock, assert_dead, assert_enqueued):
    attempts = []

    @dlq.processor("mail")
    async def mail(task):
        attempts.append(task.id)
        raise ConnectionError("mail server is down")

    task_id = dlq.sync.enqueue(Task(type="mail", payload={"to": {"id": 7}}, max_retries=1))
    assert assert_enqueued(type="mail", payload={"to.id": 7}).id == task_id
    assert_dead.none()
    dlq_worker.run_until_idle_sync()
    assert len(attempts) == 1
    dlq_clock.advance(3600)
    dlq_worker(concurrency=1).run_until_idle_sync()
    letter = assert_dead(type="mail", reason="retries_exhausted", count=1)
    assert letter.failure.message == "mail server is down"
    assert_enqueued.none()

def test_every_test_has_its_own(dlq, assert_dead):
    assert dlq.sync.stats().by_state["dead"] == 0
    assert_dead.none()
"""

ASYNC = """
import pytest
from deadletter import Task

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.mark.anyio
async def test_a_letter(dlq, dlq_worker, assert_dead, assert_enqueued):
    @dlq.processor("mail")
    def mail(task):
        return False

    await dlq.enqueue(Task(type="mail"))
    assert_enqueued(type="mail")
    await dlq_worker.run_until_idle()
    assert assert_dead(reason="rejected").task.type == "mail"
"""

BARE = """
import asyncio
from deadletter import Task

def test_a_loop_of_its_own(dlq, dlq_worker, assert_dead):
    # As pytest-asyncio runs a coroutine: sync fixtures around a loop that is new for each test.
    async def body():
        await dlq.process_task(await dlq.enqueue(Task(type="mail")), lambda task: False)
        assert_dead(type="mail")
    asyncio.run(body())
"""


@pytest.mark.parametrize(("tests", "passed"), [(SYNC, 2), (ASYNC, 2), (BARE, 1)], ids=["sync", "anyio", "asyncio"])
def test_users_tests_pass(tmp_path: Path, tests: str, passed: int) -> None:
    code, out = run(tmp_path, tests)
    assert code == 0, out
    assert f"{passed} passed" in out


@pytest.mark.full
def test_it_works_under_xdist(tmp_path: Path) -> None:
    code, out = run(tmp_path, SYNC + BARE, "-n", "2")
    assert code == 0, out
    assert "3 passed" in out


SWAPPED = """
import pytest

@pytest.fixture
def dlq_backend(tmp_path):
    return f"sqlite:///{tmp_path / 'shop.db'}"

@pytest.fixture
def dlq_options():
    return {"retry": [], "redact": ("card",)}
"""


def test_one_fixture_swaps_the_backend(tmp_path: Path) -> None:
    tests = """
def test_where(dlq, tmp_path):
    assert dlq.backend.url.startswith("sqlite:")
    assert dlq.options.redact == ("card",)
"""
    code, out = run(tmp_path, tests + SYNC, conftest=SWAPPED)
    assert code == 0, out
    assert (tmp_path / "shop.db").exists() is False, "each test has a directory of its own"


FAILING = """
from deadletter import Task

def fill(dlq):
    dlq.sync.enqueue(Task(type="sms", id="waits", payload={"card": "4111-1111"}))
    dlq.sync.capture(Task(type="mail", id="died", payload={"card": "5500-0000", "n": 1}), ValueError("no 5500-0000"))

def test_dead(dlq, assert_dead):
    fill(dlq)
    assert_dead(type="sms", reason="rejected")

def test_enqueued(assert_enqueued):
    assert_enqueued(payload={"n": 2})

def test_count(dlq, assert_dead):
    fill(dlq)
    assert_dead(type="mail", count=2)

def test_none(dlq, assert_enqueued):
    fill(dlq)
    assert_enqueued.none(type="s*")

def test_many(dlq, assert_dead):
    dlq.sync.enqueue_many([Task(type="long", payload={"x": "y" * 300}) for _ in range(21)])
    assert_dead(type="mail")

def test_zero(assert_dead):
    assert_dead(count=0)
"""


def test_a_failure_says_what_was_expected_and_what_is_there(tmp_path: Path) -> None:
    code, out = run(tmp_path, FAILING, conftest=SWAPPED)
    assert code == 1
    for line in (
        "expected a dead letter with type='sms', reason='rejected', found none",
        "in the queue:",
        '  pending  sms  {"card": {"$redacted": true}}  id=waits',
        '  dead (captured)  mail  {"card": {"$redacted": true}, "n": 1}  ValueError: no [redacted]  id=died',
        "expected an enqueued task with payload={'n': 2}, found none",
        "the queue is empty",
        "expected exactly 2 dead letters with type='mail', found 1",
        "expected no enqueued task with type='s*', found 1",
        "  and more",
        "count: 0 cannot be meant; .none(...) asserts that there is none",
    ):
        assert line in out, f"{line}\n{out}"
    assert "5500-0000" not in "".join(line for line in out.splitlines() if line.startswith("E"))
    assert "expecting.py" not in out, "the traceback ends in the user's own test"


def test_it_imports_nothing_before_a_fixture_is_used(tmp_path: Path) -> None:
    tests = """
import sys

def test_nothing_is_loaded():
    ours = sorted(name for name in sys.modules if name.split(".")[0] == "deadletter")
    assert ours == ["deadletter", "deadletter.__about__", "deadletter.testing", "deadletter.testing.plugin"]
    assert not {"orjson", "cattrs", "tenacity", "redis", "uuid_utils"} & set(sys.modules)
"""
    code, out = run(tmp_path, tests, "-p", "no:xdist", "-p", "no:cov", "-p", "no:hypothesispytest")
    assert code == 0, out


def test_the_package_names_it_as_an_entry_point() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"deadletter": PLUGIN}
