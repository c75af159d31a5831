"""Hidden values over processes that were configured differently: one writes, the command line of another looks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import deadletter
from deadletter import DeadLetterQueue
from deadletter.cli.exits import run

CARD = "4111-1111-2222-3333"
TYPED = "4111111122223333"
CVV = "739"

WRITER = """
import json, logging, os, sys
from urllib.parse import quote
from deadletter import DeadLetterQueue, Task, current_attempt

logging.basicConfig(level=logging.DEBUG)
dlq = DeadLetterQueue(os.environ["STORE"], retry=[0], redact=json.loads(os.environ["REDACT"]))
card, cvv = os.environ["CARD"], os.environ["CVV"]


def refuse(task):
    given = task.payload["card_number"]
    assert given == card, "a processor gets the real value"
    try:
        try:
            raise KeyError(given)
        except KeyError as error:
            raise ValueError(json.dumps({"card": given})) from error
    except ValueError as error:
        error.add_note(f"GET /cards/{quote(given)}?raw={given.replace('-', '')}")
        raise RuntimeError(f"cannot charge {given!r}, cvv {task.payload['cvv']}") from error


for n in range(2):
    payload = {"card_number": card, "cvv": cvv, "n": n, "url": f"https://pay.example/?card={card}", "items": [card, 7]}
    key = f"pay-{card}-{n}"
    task = Task(type="pay", id=f"pay-{n}", payload=payload, idempotency_key=key, metadata={"card": card, "tenant": "x"})
    dlq.sync.enqueue(task)
    for _ in range(2):
        dlq.sync.process_task(task.id, refuse)
assert card in dlq.sync.get("pay-0").failure.message, "in Python code everything is whole"
dlq.sync.aclose()
"""


class Pair:
    """A writer and a viewer of one SQLite file, each with paths of its own."""

    def __init__(self, tmp_path: Path, *, hides: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        here = str(Path(deadletter.__file__).parents[1])
        kept = {name: text for name, text in os.environ.items() if not name.startswith("DEADLETTER_")}
        self.environ = {**kept, "PYTHONPATH": here, "CARD": CARD, "CVV": CVV}
        self.environ["STORE"] = f"sqlite:///{tmp_path / 'a.db'}"
        self.environ["REDACT"] = json.dumps(["card_number", "cvv"] if hides == "writer" else [])
        if hides == "viewer":
            self.environ["DEADLETTER_REDACT"] = "card_number,cvv"
        self.target = ["--url", self.environ["STORE"]]
        wrote = self._run(sys.executable, "-c", WRITER)
        assert wrote.returncode == 0, wrote.stderr
        self.logged = wrote.stdout + wrote.stderr

    def process(self, *tokens: str) -> str:
        """What a command prints as a process of its own, both streams."""
        done = self._run(sys.executable, "-m", "deadletter", *tokens, *self.target)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def __call__(self, *tokens: str, code: int = 0) -> str:
        """The same in this process, which is not the one that wrote."""
        self._capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name in ("DEADLETTER_URL", "DEADLETTER_APP", "DEADLETTER_QUEUE", "DEADLETTER_REDACT"):
                patch.delenv(name, raising=False)
            if "DEADLETTER_REDACT" in self.environ:
                patch.setenv("DEADLETTER_REDACT", self.environ["DEADLETTER_REDACT"])
            assert run([*tokens, *self.target]) == code
        return "".join(self._capsys.readouterr())

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )


@pytest.fixture(params=["writer", "viewer"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Pair:
    return Pair(tmp_path, hides=request.param, capsys=capsys)


def shows(text: str) -> list[str]:
    """What of the secrets a text holds."""
    folded = text.replace("%2D", "-")
    return [scrap for scrap in (CARD, TYPED, CARD[:9], CARD[-9:], f"cvv {CVV}", f'"{CVV}"') if scrap in folded]


def test_no_command_shows_what_either_process_hides(pair: Pair) -> None:
    assert not shows(pair.logged)
    for tokens in (("ls", "--json"), ("show", "pay-0"), ("groups",), ("export",)):
        assert not shows(pair.process(*tokens)), tokens
    for tokens in (
        ("ls",),
        ("ls", "--json"),
        ("show", "pay-0"),
        ("show", "pay-0", "--json"),
        ("search", "charge"),
        ("groups",),
        ("groups", "--json", "--by", "error_type"),
        ("export",),
        ("stats", "--json"),
        ("retry", "pay-1", "--payload", '{"card_number": 1, "cvv": 2}', "--why", f"was {CARD}"),
        ("show", "pay-1"),
        ("show", "pay-1", "--json"),
        ("ls", "--state", "pending", "--json"),
    ):
        assert not shows(pair(*tokens)), tokens
    assert "cannot charge '[redacted]', cvv [redacted]" in pair("show", "pay-0")
    assert "pay-[redacted]-0" in pair("show", "pay-0")


def test_a_guess_is_told_apart_from_the_truth_by_no_command(pair: Pair) -> None:
    """An attacker with the command line alone learns nothing: right and wrong guesses read the same."""
    conditions = (
        ("--payload", "card_number={}"),
        ("--payload", "cvv={}"),
        ("--payload", 'items=["{}",7]'),
        ("--payload", "url=https://pay.example/?card={}"),
        ("--error-contains", "{}"),
        ("--error-contains", "charge '{}'"),
        ("--metadata", "card={}"),
        ("--idempotency-key", "pay-{}-0"),
    )
    commands = (
        ("ls", "--json"),
        ("groups", "--json"),
        ("export",),
        ("retry-all", "--dry-run"),
        ("purge", "--dry-run"),
        ("erase", "--dry-run"),
    )
    for flag, form in conditions:
        for command in commands:
            right, wrong = (
                pair(*command, flag, form.format(guess)) for guess in (CVV if "cvv" in form else CARD, "5500-0000")
            )
            assert _timeless(right) == _timeless(wrong), (command, flag, form)
    assert len(pair("ls", "--payload", "n=0").splitlines()) == 1
    assert len(pair("ls", "--error-contains", "charge '[redacted]'").splitlines()) == 2


def _timeless(printed: str) -> str:
    return re.sub(r'"cutoff":"[^"]*"', "", printed)


def test_reveal_shows_says_so_and_matches(pair: Pair) -> None:
    shown = pair("show", "pay-0", "--reveal")
    assert CARD in shown
    assert "--reveal: hidden values are shown, and conditions match them" in shown
    assert "1 would be changed" in pair("erase", "--idempotency-key", f"pay-{CARD}-0", "--dry-run", "--reveal")


def test_an_edit_keeps_what_it_cannot_see_and_an_erasure_reaches_it(pair: Pair) -> None:
    place = {"$redacted": True}
    edited = json.dumps({"card_number": place, "cvv": place, "n": 5, "url": place})
    pair("retry", "pay-0", "--payload", edited)
    dlq = DeadLetterQueue(pair.environ["STORE"])
    payload = dict(dlq.sync.get("pay-0").task.payload)
    assert payload == {"card_number": CARD, "cvv": CVV, "n": 5, "url": f"https://pay.example/?card={CARD}"}
    for path in ("none", "card_number.digits"):
        nested: Any = place
        for name in reversed(path.split(".")):
            nested = {name: nested}
        assert "keeps a hidden value, but none is stored there" in pair(
            "retry", "pay-1", "--payload", json.dumps(nested), code=2
        )
    told = pair("erase", "--payload", f"card_number={CARD}", "--yes")
    assert "2 of 2 changed" in told
    assert dlq.sync.stats().by_state["dead"] == 0
    dlq.sync.aclose()


def test_letters_exported_hidden_arrive_hidden_and_not_replayable(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "letters.ndjson"
    pair("export", "-o", str(file))
    assert not shows(file.read_text())
    pair.target = ["--url", f"sqlite:///{tmp_path / 'b.db'}"]
    assert "2 read, 2 stored" in pair("import", str(file))
    assert '"replayable":false' in pair("show", "pay-0", "--json")
    assert "does not hold its real arguments" in pair("retry", "pay-0", code=1)
    kept = json.dumps({"card_number": {"$redacted": True}})
    assert "none is stored there" in pair("retry", "pay-0", "--payload", kept, code=2)
