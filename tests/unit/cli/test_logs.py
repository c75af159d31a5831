from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from deadletter.cli.logs import log_to_stderr


@pytest.fixture(autouse=True)
def _root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def _fail() -> None:
    try:
        raise ValueError("bad \x1b[31m")
    except ValueError:
        logging.getLogger("deadletter.test").exception("could not \x1b %s", "go", extra={"task_id": "x"})


def test_off_a_terminal_each_record_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(None)
    _fail()
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    record = json.loads(line)
    assert (record["level"], record["logger"], record["task_id"]) == ("error", "deadletter.test", "x")
    assert record["message"] == "could not \x1b go"
    assert "ValueError: bad" in record["traceback"]
    assert out == ""


def test_plain_lines_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("plain")
    _fail()
    err = capsys.readouterr().err
    assert "error   could not \\x1b go\nTraceback" in err
    assert "\x1b" not in err
