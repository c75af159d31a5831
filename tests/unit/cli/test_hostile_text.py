"""Text that would steer a terminal, in every field that a stranger can fill, in every command's output."""

from __future__ import annotations

import json
import re

import anyio
import attrs
import pytest

from deadletter import DeadLetterQueue, Task
from deadletter.cli.exits import run
from deadletter.cli.output import harmless
from deadletter.engine.letters import dead_row
from deadletter.model.record import Reason

HOSTILE = {
    "colours": "\x1b[31;5mred\x1b[0m",
    "clear": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;cm0gLXJmIH4=\x07",
    "device": "\x1bP+q544e\x1b\\\x1b_x\x1b\\\x1b^y\x1b\\",
    "c1": "\x9b31mred\x9d0;owned\x9c\x90\x85",
    "newlines": "a\nid       forged\r\nstate    dead\x0b\x0c",
    "overwrite": "good\rbad\x08\x08\x7f",
    "bidi": "\u202egnp.exe\u202c\u2066x\u2069\u200f\u061c",
    "zero width": "a\u200b\u200c\u200d\ufeff\u2060\u00adb",
    "separators": "a\u2028b\u2029c\u0085d",
    "tags": "\U000e0001\U000e0041",
    "noncharacters": "\ufff9\ufffb\ufffe\uffff",
    "markup": "[bold red]x[/] [link=http://e]y[/link] {{7*7}} <script>",
    "long word": "x" * 10_000,
}

COMMANDS = (
    "ls",
    "ls --state pending",
    "search refused",
    "groups",
    "groups --by type",
    "groups --by error_type",
    "groups --by worker",
    "groups --by release",
    "stats",
    "check --max-items 0 --max-overdue 0",
    "doctor",
    "retry-all --everything --dry-run",
    "cancel letter-0",
    "retry no\x1b[2Jbody",
    "export --reveal",
    *(f"show letter-{n} --reveal" for n in range(len(HOSTILE))),
)
STYLE = re.compile(r"\x1b\[[01]m")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A letter and a task for each text, with it wherever it fits: put in by the back door where the front refuses it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('hostile') / 'a.db'}"

    async def store() -> None:
        async with DeadLetterQueue(url) as dlq:
            for n, text in enumerate(HOSTILE.values()):
                task = Task(
                    type="mail",
                    id=f"letter-{n}",
                    payload={text: [text], "note": text},
                    metadata={text: text},
                    idempotency_key=text[:1000],
                )
                raised = type(text, (ValueError,), {"__module__": text})(f"refused {text}")
                letter = dead_row(dlq, dlq.new_row(task), raised, Reason.CAPTURED)
                [failure] = letter.history
                marked = attrs.evolve(failure, worker=text, release=text, traceback=f"{text}\n{failure.traceback}")
                waiting = attrs.evolve(dlq.new_row(Task(type="mail", id=f"waiting-{n}")), type=text)
                late = attrs.evolve(waiting, due_at_ms=1)
                odd = attrs.evolve(letter, id=f"odd-{n}", type=text, key=None)  # which nobody can read
                await dlq.backend.insert("default", [attrs.evolve(letter, history=[marked]), odd, late])
                await dlq.backend.insert(f"q{text}", [waiting])

    anyio.run(store)
    return url


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
@pytest.mark.parametrize("command", COMMANDS, ids=[harmless(command) for command in COMMANDS])
def test_it_is_shown_and_does_nothing(
    url: str, command: str, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("output", "simulation"):
        monkeypatch.setattr(f"deadletter.cli.{module}.on_terminal", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "120")
    assert run([*command.split(" "), "--url", url]) in (0, 1)
    out, err = capsys.readouterr()
    assert (out + err).strip()
    lines = [*STYLE.sub("", out).replace("\t", " ").split("\n"), *err.split("\n")]
    assert [line for line in lines if not line.isprintable()] == []
    assert not [line for line in lines if line.startswith(("state    dead", "id       forged"))]
    if command.startswith("show"):
        assert harmless(list(HOSTILE.values())[int(command.split()[1].partition("-")[2])])[:100] in out
    if command.startswith(("ls", "search", "groups")):
        assert max(map(len, lines)) < 1500


def test_json_holds_it_whole_and_nothing_raw(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", "--json", "--reveal", "--limit", "100", "--url", url]) == 0
    lines = capsys.readouterr().out.split("\n")[:-1]
    assert [line for line in lines if not line.isprintable()] == []
    notes = {item["id"]: item["payload"].get("note") for item in map(json.loads, lines)}
    assert {id_: note for id_, note in notes.items() if id_.startswith("letter")} == {
        f"letter-{n}": text for n, text in enumerate(HOSTILE.values())
    }
