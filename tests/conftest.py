"""What every test may count on: both event loops, and a last line that says which tests a marker kept out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings

LEFT_OUT = pytest.StashKey[Counter[str]]()
KEPT_OUT_BY = ("full", "soak")

# A deadline measures the machine, which other tests share; pytest-timeout stops what hangs.
settings.register_profile("deadletter", deadline=None, print_blob=True)
settings.load_profile("deadletter")


@pytest.fixture(params=["asyncio", "trio"], scope="module")
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each async test on both event loops."""
    return str(request.param)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = Counter()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        item.config.stash[LEFT_OUT].update(name for name in KEPT_OUT_BY if item.get_closest_marker(name))


def pytest_sessionfinish(session: pytest.Session) -> None:
    workeroutput: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if workeroutput is not None:
        workeroutput["left_out"] = dict(session.config.stash[LEFT_OUT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # Under xdist the workers collect, each all tests: the count of any one is enough.
    node.config.stash[LEFT_OUT] |= Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash[LEFT_OUT]
    if counts:
        told = ", ".join(f"{counts[name]} {name} (nox -s {name})" for name in KEPT_OUT_BY if counts[name])
        terminalreporter.write_line(f"left out by marker: {told}")
