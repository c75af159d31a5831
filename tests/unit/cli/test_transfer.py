"""Letters that leave one store and arrive in another: whole, once, and nothing of a bad line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deadletter
from deadletter import DeadLetterQueue, IdempotencyConflict, Origin, Postpone, Query, Task, TaskRecord
from deadletter.cli import transfer
from deadletter.cli.exits import run
from deadletter.cli.letter_lines import LONGEST, row_of
from deadletter.engine.letters import dead_row
from deadletter.model.errors import InvalidTask
from deadletter.model.record import Reason

SECRET = "hunter2-and-more"


async def _fill(url: str) -> None:
    """Letters with all that a letter can have."""

    def fail(task: Task) -> None:
        raise ValueError(f"n = {task.payload.get('n')}")

    def postpone(task: Task) -> None:
        raise Postpone(0.001)

    async with DeadLetterQueue(url, release="v1", max_retries=0) as dlq:
        whole = Task(
            type="card.charge",
            id="whole",
            payload={"n": 1, "list": [1.5, None, True, "é\u2028"], "password": SECRET},
            priority="high",
            max_retries=2,
            idempotency_key=f"key-{SECRET}",
            timeout=timedelta(seconds=1.5),
            expires_in=3600,
            on_uncertain="dead",
            metadata={"tenant": "t 1"},
        )
        await dlq.enqueue(whole)
        await dlq.process_task("whole", postpone)
        for _ in range(3):
            await dlq.process_task("whole", fail)
        await dlq.retry("whole", payload={**whole.payload, "n": 2}, why="typo")
        for _ in range(3):
            await dlq.process_task("whole", fail)
        raw = Origin(system="celery", queue="q", native_id="7", raw=b"\x00\xff raw")
        await dlq.capture(Task(type="mail", id="origin", priority="low", origin=raw), KeyError("x"))
        lost = dead_row(dlq, dlq.new_row(Task(type="mail", id="lost")), RuntimeError("gone"), Reason.WORKER_LOST)
        await dlq.backend.insert("default", [attrs.evolve(lost, lease_losses=3, postpones=2)])
    async with DeadLetterQueue(url, dlq_ttl=None, redact=("card.number",), redact_defaults=False) as dlq:
        await dlq.capture(Task(type="mail", id="for-ever", payload={"n": 1}), ValueError("x" * 5000))
        await dlq.capture(Task(type="mail", id="hidden", payload={"card": {"number": SECRET}}), ValueError(SECRET))


def records(url: str) -> dict[str, TaskRecord]:
    dlq = DeadLetterQueue(url)
    found = dlq.sync.list(Query(), limit=1000).items
    dlq.sync.aclose()
    return {record.id: record for record in found}


def do(*tokens: str, code: int = 0) -> None:
    assert run([*tokens]) == code


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('source') / 'source.db'}"
    anyio.run(_fill, url)
    return url


@pytest.fixture(scope="module")
def revealed(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("revealed") / "letters.ndjson"
    do("export", "--reveal", "-o", str(file), "--url", source)
    return file


@pytest.fixture
def target(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'target.db'}"


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_letters_arrive_whole_and_come_back_the_same(source: str, revealed: Path, target: str, tmp_path: Path) -> None:
    """Equal records, dates and history included, and the same bytes; a second import changes nothing."""
    do("import", str(revealed), "--url", target)
    assert records(target) == records(source)
    assert len(records(target)["whole"].history) == 7  # six failures, and the note of the edit
    back = tmp_path / "back.ndjson"
    do("export", "--reveal", "-o", str(back), "--url", target)
    assert back.read_bytes() == revealed.read_bytes()
    before = records(target)
    do("import", str(back), "--url", target)
    assert records(target) == before
    dlq = DeadLetterQueue(target)
    assert dlq.sync.stats().lifetime == {"imported": 5, "duplicates": 5}
    dlq.sync.aclose()


def test_what_was_imported_can_be_retried_and_its_key_is_bound(revealed: Path, target: str) -> None:
    do("import", str(revealed), "--url", target)
    dlq = DeadLetterQueue(target)
    with pytest.raises(IdempotencyConflict):
        dlq.sync.enqueue(Task(type="card.charge", payload={"n": 9}, idempotency_key=f"key-{SECRET}"))
    assert dlq.sync.process_task(dlq.sync.retry("whole").id, lambda task: None)
    assert dlq.sync.process_task(dlq.sync.retry("lost").id, lambda task: None)
    dlq.sync.aclose()


def test_what_is_hidden_stays_at_home(source: str, target: str, tmp_path: Path) -> None:
    """It arrives not replayable, hides what it hid, and takes no key from the real task."""
    file = tmp_path / "letters.ndjson"
    do("export", "-o", str(file), "--url", source)
    assert SECRET not in file.read_text()
    do("import", str(file), "--url", target)
    do("import", str(file), "--url", target)
    arrived = records(target)
    assert {id_ for id_, record in arrived.items() if not record.replayable} == {"whole", "hidden"}
    assert arrived["hidden"].redact == ("card.number",)
    assert arrived["origin"].task.origin == Origin(system="celery", queue="q", native_id="7")
    assert arrived["hidden"].died_at == records(source)["hidden"].died_at
    dlq = DeadLetterQueue(target)
    task_id = dlq.sync.enqueue(Task(type="card.charge", payload={"n": 9}, idempotency_key="key-[redacted]"))
    assert task_id != "whole"
    dlq.sync.aclose()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "format": ({"format": 9}, "format: 9 is not one that this version reads"),
    "state": ({"state": "pending"}, "state: 'pending' cannot be imported"),
    "id": ({"id": "a b"}, "id: "),
    "no id": ({"id": None}, "id: "),
    "type": ({"type": "a\nb"}, "type: "),
    "payload": ({"payload": [1]}, "payload: "),
    "priority": ({"priority": "urgent"}, "priority: "),
    "max_retries": ({"max_retries": -1}, "max_retries: "),
    "metadata": ({"metadata": {"a": 1}}, "metadata"),
    "timeout": ({"timeout": "soon"}, "timeout: "),
    "reason": ({"reason": "boredom"}, "reason: 'boredom' is not one of"),
    "no time": ({"died_at": "now"}, "died_at: 'now' is no time"),
    "no zone": ({"created_at": "2026-01-01T00:00:00"}, "created_at: '2026-01-01T00:00:00' has no time zone"),
    "too early": ({"due_at": "0001-01-01T00:00:00Z"}, "due_at: '0001-01-01T00:00:00Z' is not between 1970 and 9998"),
    "too late": (
        {"created_at": "9999-12-31T23:59:59-14:00"},
        "created_at: '9999-12-31T23:59:59-14:00' is not between 1970 and 9998",
    ),
    "keep": ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at: '2020-01-01T00:00:00Z' is before died_at"),
    "attempts": ({"attempts": -1}, "attempts: -1 is no count"),
    "replays": ({"replays": True}, "replays: True is no count"),
    "lease_losses": ({"lease_losses": 1e9}, "lease_losses: 1000000000.0 is no count"),
    "redact": ({"redact": "x"}, "redact: 'x' is no list of paths"),
    "redact path": ({"redact": ["a..b"]}, "redact: "),
    "history": ({"history": {"a": 1}}, "history: {'a': 1} is no list"),
    "entry": ({"history": [1]}, "history: [1] holds at 0 what is no object"),
    "attempt": ({"history": [{"attempt": "1"}]}, "history[0].attempt: '1' is no count"),
    "at": ({"history": [{"attempt": 1}]}, "history[0].at: None is no time"),
    "message": ({"history": [{"attempt": 1, "at": "2026-01-01T00:00:00Z", "message": 5}]}, "history[0].message: 5"),
    "duration": ({"history": [{"attempt": 1, "at": "2026-01-01T00:00:00Z", "duration": "x"}]}, "history[0].duration"),
    "origin": ({"origin": {}}, "origin: {} names no system"),
    "raw": ({"origin": {"system": "x", "raw": "!"}}, "origin.raw: '!' is no base64"),
    "native": ({"origin": {"system": "x", "native_id": 7}}, "origin.native_id: 7 is no text"),
    "past its keep": (
        {"died_at": "2020-01-01T00:00:00Z", "expires_at": "2020-01-08T00:00:00Z"},
        "expires_at: it was kept until 2020-01-08T00:00:00Z; write null there to keep it",
    ),
}


def test_a_bad_line_is_named_by_number_and_field_and_nothing_of_it_stored(
    revealed: Path, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next(line for line in lines_of(revealed) if line["id"] == "whole")
    file = tmp_path / "bad.ndjson"
    bad = [json.dumps({**good, "id": f"bad-{n}", **edit}) for n, (edit, _) in enumerate(BAD.values())]
    file.write_text("\n".join([*bad, json.dumps(good)]))
    capsys.readouterr()
    do("import", str(file), "--json", "--url", target, code=1)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"read": len(bad) + 1, "stored": 1, "known": 0, "failed": len(bad)}
    for number, ((_, said), line) in enumerate(zip(BAD.values(), err.splitlines(), strict=True), 1):
        assert line.startswith(f"deadletter: line {number}: {said}")
    assert set(records(target)) == {"whole"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_whatever_a_line_holds_is_a_letter_or_refused(revealed: Path, data: st.DataObject) -> None:
    letter = data.draw(st.sampled_from(lines_of(revealed)))
    place: Any = letter
    while True:
        name = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
        if not (isinstance(place[name], dict | list) and place[name] and data.draw(st.booleans())):
            break
        place = place[name]
    place[name] = data.draw(_JSON)
    line = data.draw(st.sampled_from([json.dumps(letter).encode(), json.dumps(letter)[:-9].encode()]))
    queue = DeadLetterQueue("memory://")
    try:
        row = row_of(line, queue)
    except InvalidTask:
        return
    assert row.id


@given(st.binary(max_size=200))
def test_bytes_that_are_no_letter_are_refused(line: bytes) -> None:
    with pytest.raises(InvalidTask):
        row_of(line, DeadLetterQueue("memory://"))


def test_lines_come_in_every_shape(
    revealed: Path, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a byte order mark, carriage returns, empty lines, bytes that are no text, and a line without an end."""
    first, second, *_ = revealed.read_bytes().splitlines()
    file = tmp_path / "odd.ndjson"
    long = b'"' + b"x" * (2 * LONGEST + 10)
    file.write_bytes(b"\xef\xbb\xbf" + first + b"\r\n\n  \n\xff\xfe\n" + long + b"\n" + second)
    capsys.readouterr()
    do("import", str(file), "--url", target, code=1)
    out, err = capsys.readouterr()
    assert out == "import  4 read, 2 stored, 2 failed\n"
    assert err.splitlines() == [
        "deadletter: line 4: letter: is no UTF-8 text (byte 0); send UTF-8",
        f"deadletter: line 5: letter: is {LONGEST + 2} bytes, more than {LONGEST}; send less",
    ]


def test_a_stranger_among_them_keeps_no_neighbour_out(
    revealed: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dlq = DeadLetterQueue(target)
    dlq.sync.enqueue(Task(type="other", id="lost"))
    dlq.sync.enqueue(Task(type="card.charge", id="holder", idempotency_key=f"key-{SECRET}"))
    dlq.sync.aclose()
    capsys.readouterr()
    do("import", str(revealed), "--url", target, code=1)
    lost, whole = number_of(revealed, "lost"), number_of(revealed, "whole")
    assert set(capsys.readouterr().err.splitlines()) == {
        f"deadletter: line {lost}: id: lost is taken here by a task of another type or payload",
        f"deadletter: line {whole}: idempotency_key: it is bound here to holder, which has another payload",
    }
    assert set(records(target)) == {"origin", "for-ever", "hidden"}


def number_of(file: Path, id_: str) -> int:
    return [line["id"] for line in lines_of(file)].index(id_) + 1


def test_what_was_deleted_here_lately_does_not_come_back(
    revealed: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    do("import", str(revealed), "--url", target)
    do("erase", "--ids", "hidden", "--yes", "--url", target)
    capsys.readouterr()
    do("import", str(revealed), "--url", target, code=1)
    out, err = capsys.readouterr()
    assert out == "import  5 read, 0 stored, 4 known, 1 failed\n"
    assert "hidden went from here lately (purge, erase, cancel); try again later" in err
    assert "hidden" not in records(target)


def test_a_dry_run_stores_nothing(revealed: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    do("import", str(revealed), "--dry-run", "--url", target)
    assert capsys.readouterr().out == "dry run  5 read, 5 stored\n"
    assert records(target) == {}


def test_a_dash_is_stdin_and_stdout(
    source: str, target: str, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    do("export", "--reveal", "-o", "-", "--url", source)
    written = capsysbinary.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(written)))
    do("import", "-", "--url", target)
    assert records(target) == records(source)


def test_an_import_reads_no_further_than_its_step(revealed: Path) -> None:
    """However long the file, at most a step of it is in memory; a step is 50 letters or some megabytes."""
    line = next(line for line in lines_of(revealed) if line["id"] == "origin")
    ahead = 0

    def letters() -> Iterator[bytes]:
        nonlocal ahead
        for n in range(100_000):
            ahead += 1
            yield json.dumps({**line, "id": f"i{n}"}).encode() + b"\n"

    source = letters()
    file = SimpleNamespace(readline=lambda _: next(source))
    desk = SimpleNamespace(queue=DeadLetterQueue("memory://"))
    steps = transfer._steps(transfer._Intake(desk, False, print, 0).rows(file))  # type: ignore[arg-type]
    assert [len(next(steps)) for _ in range(3)] == [50, 50, 50]
    assert ahead == 150
    big = [transfer._Read(n, row_of(json.dumps(line).encode(), desk.queue), 3_000_000) for n in range(3)]
    assert [len(step) for step in transfer._steps(iter(big))] == [2, 1]


PEAK = """
import resource, sys
from deadletter.cli.exits import run
assert run(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def peak(*tokens: str) -> int:
    """The most memory that a command took, in KiB (Linux) or bytes."""
    environ = {**os.environ, "PYTHONPATH": str(Path(deadletter.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *tokens], env=environ, capture_output=True, text=True, check=True, timeout=100
    )
    kib = 1 if sys.platform != "darwin" else 1024
    return int(done.stderr.split()[-1]) // kib


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=[pytest.mark.full, pytest.mark.timeout(600)])])
def test_letters_stream_in_bounded_memory(count: int, tmp_path: Path) -> None:
    """12 MB of letters, or 400, take no more memory than some hundred."""
    file, few, url = tmp_path / "many.ndjson", tmp_path / "few.ndjson", f"sqlite:///{tmp_path / 'a.db'}"
    line = {
        "format": 1,
        "state": "dead",
        "type": "mail",
        "payload": {"fill": "x" * 4_000},
        **dict.fromkeys(("created_at", "due_at", "died_at"), "2026-01-01T00:00:00Z"),
    }
    with file.open("w") as out:
        out.writelines(json.dumps({**line, "id": f"i{n}"}) + "\n" for n in range(count))
    few.write_text("".join(json.dumps({**line, "id": f"f{n}"}) + "\n" for n in range(300)))
    least = peak("import", str(few), "--url", f"sqlite:///{tmp_path / 'few.db'}")
    assert peak("import", str(file), "--url", url) < least + 24_000
    assert peak("export", "-o", str(tmp_path / "out.ndjson"), "--url", url) < least + 24_000
    assert (tmp_path / "out.ndjson").read_bytes().count(b"\n") == count
