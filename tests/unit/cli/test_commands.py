"""Each command in this process, off a terminal: what it prints, and its exit code."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from deadletter import DeadLetterQueue, State, Task
from deadletter.backends.sqlite import SpoolFile
from deadletter.cli.exits import run
from deadletter.model.row import Finding, Inspection, NewRow
from deadletter.testing import VirtualClock

SECRET = "hunter2-and-more"


class Shell:
    """Runs commands against one SQLite file."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = f"sqlite:///{path}"
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *tokens: str) -> int:
        self._capsys.readouterr()
        code = run([*tokens, "--url", self.url])
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err
        return code

    def lines(self, *tokens: str, code: int = 0) -> list[dict]:
        assert self(*tokens, "--json") == code
        return [json.loads(line) for line in self.out.splitlines()]

    def one(self, *tokens: str, code: int = 0) -> dict:
        [line] = self.lines(*tokens, code=code)
        return line

    def refused(self, *tokens: str, code: int = 2) -> str:
        """The one line that says why."""
        assert self(*tokens) == code
        assert self.out == ""
        [line] = self.err.splitlines()
        assert line.startswith("deadletter: ")
        return line


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A worker command sends all logs to the stderr of its own test, which is closed by the next."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEADLETTER_URL", "DEADLETTER_QUEUE", "DEADLETTER_APP", "DEADLETTER_RETRY_DELAYS", "DEADLETTER_SPOOL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three letters (a hidden value and hostile text in each) and one pending task."""
    path = tmp_path_factory.mktemp("filled") / "a.db"
    dlq = DeadLetterQueue(f"sqlite:///{path}", release="v1")
    for n in range(3):
        payload = {"n": n, "password": f"{SECRET}-{n}", "evil": "\x1b[31m\u202e"}
        task = Task(type="email.send", id=f"letter-{n}", payload=payload, metadata={"tenant": "t\n1"}, max_retries=2)
        dlq.sync.capture(task, ValueError(f"refused \x1b[2J {SECRET}-{n}\nsecond line"))
    dlq.sync.enqueue(Task(type="email.later", id="waiting", delay=5000))
    dlq.sync.aclose()
    return path


@pytest.fixture
def sh(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A copy of it."""
    return Shell(Path(shutil.copy(filled, tmp_path / "a.db")), capsys)


def test_ls_is_tab_separated_lines_newest_first(sh: Shell) -> None:
    assert sh("ls") == 0
    lines = [line.split("\t") for line in sh.out.splitlines()]
    assert [line[0] for line in lines] == ["letter-2", "letter-1", "letter-0"]
    assert lines[0][1] == "email.send"
    assert lines[0][3:] == ["1", "captured", "ValueError: refused \\x1b[2J [redacted]"]
    assert sh.err == ""


def test_ls_says_what_it_left_out(sh: Shell) -> None:
    assert sh("ls", "--limit", "2") == 0
    assert len(sh.out.splitlines()) == 2
    assert sh.err == "2 shown of 3; --limit shows more\n"


def test_a_long_list_is_paged(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadletter.cli.reading._PAGE", 2)
    assert [item["id"] for item in sh.lines("ls", "--limit", "100")] == ["letter-2", "letter-1", "letter-0"]
    assert sh("export", "--limit", "0") == 0
    assert (sh.out, sh.err) == ("", "0 exported\n")


def test_ls_says_so_where_nobody_counted_them_all(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadletter.engine.reading.COUNTED", 1)
    monkeypatch.setattr("deadletter.backends.sqlite.SQLiteBackend.scan_limit", 2)
    assert sh("ls", "--limit", "1", "--error-contains", "refused") == 0
    assert sh.err == "1 shown of at least 2; --limit shows more\n"


def test_ls_narrows(sh: Shell) -> None:
    assert [item["id"] for item in sh.lines("ls", "--payload", "n=1")] == ["letter-1"]
    assert [item["id"] for item in sh.lines("ls", "--ids", "letter-0", "letter-2")] == ["letter-2", "letter-0"]
    assert [item["id"] for item in sh.lines("ls", "--state", "pending")] == ["waiting"]
    assert sh.lines("ls", "--type", "sms.*") == []
    assert sh.lines("ls", "--older-than", "1h") == []
    assert len(sh.lines("ls", "--type", "email.*", "--newer-than", "1h", "--release", "v1")) == 3


def test_an_item_in_json_is_the_item_without_traceback_and_history(sh: Shell) -> None:
    item = sh.lines("ls", "--limit", "1")[0]
    assert item["payload"]["password"] == {"$redacted": True}
    assert "traceback" not in item["error"]
    assert "history" not in item
    assert "\x1b" not in sh.out


def test_show_tells_the_whole_story_and_hides_what_is_hidden(sh: Shell) -> None:
    assert sh("show", "letter-1") == 0
    assert "state       dead (captured)" in sh.out
    assert '"$redacted": true' in sh.out
    assert "ValueError: refused \\x1b[2J [redacted]" in sh.out
    assert "metadata    tenant=t\\n1\n" in sh.out
    assert SECRET not in sh.out
    assert "\x1b" not in sh.out
    assert sh("show", "letter-1", "--reveal") == 0
    assert SECRET in sh.out


def test_show_in_json_has_the_history(sh: Shell) -> None:
    assert sh.one("show", "letter-1")["history"][0]["attempt"] == 1


def test_show_of_a_pending_task(sh: Shell) -> None:
    assert sh("show", "waiting") == 0
    assert "due " in sh.out


def test_an_unknown_id_is_one_line_and_exit_1(sh: Shell) -> None:
    assert sh.refused("show", "nobody", code=1) == "deadletter: no task 'nobody' is known here"


def test_search_matches_only_what_is_shown(sh: Shell) -> None:
    assert len(sh.lines("search", "REFUSED")) == 3
    assert sh.lines("search", SECRET) == []
    assert len(sh.lines("search", SECRET, "--reveal")) == 3
    assert "one of them" in sh.refused("search", "x", "--error-contains", "y")


def test_groups(sh: Shell) -> None:
    group = sh.one("groups")
    assert (group["count"], group["type"], group["releases"]) == (3, "email.send", ["v1"])
    assert SECRET not in sh.out
    assert sh("groups", "--by", "type") == 0
    assert sh.out.startswith("email.send\t3\temail.send\t")


def test_stats(sh: Shell) -> None:
    stats = sh.one("stats")
    assert stats["by_state"] == {"pending": 1, "running": 0, "succeeded": 0, "dead": 3}
    assert sh("stats") == 0
    assert "dead              3\n" in sh.out
    assert "workers           none\n" in sh.out


def test_retry_answers_for_each_id_and_says_what_failed(sh: Shell) -> None:
    assert sh("retry", "letter-0", "nobody") == 1
    assert sh.out == "letter-0 pending\n"
    assert sh.err == "deadletter: no task 'nobody' is known here\n"
    assert sh.lines("retry", "letter-1", "letter-0", code=1) == [
        {"task_id": "letter-1", "state": "pending"},
        {"task_id": "letter-0", "error": "task 'letter-0' is pending, and only a dead letter can be retried"},
    ]


def test_retry_edits_and_keeps_hidden_values(sh: Shell) -> None:
    edit = '{"n": 9, "password": {"$redacted": true}}'
    assert sh("retry", "letter-0", "--payload", edit, "--type", "email.again", "--delay", "5m", "--why", "typo") == 0
    item = sh.one("show", "letter-0", "--reveal")
    assert item["payload"] == {"n": 9, "password": f"{SECRET}-0"}
    assert (item["type"], item["attempts"], item["replays"]) == ("email.again", 0, 1)
    assert sh("retry", "letter-1", "--keep-attempts") == 0
    assert sh.one("show", "letter-1")["attempts"] == 1


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["retry"], "which letters?"),
        (["retry", "letter-0", "--payload", "[1]"], "--payload: give a JSON object"),
        (["retry", "letter-0", "--payload", "{"], "--payload: is no JSON"),
        (["retry", "letter-0", "--type", "a\nb"], "--type: "),
        (["cancel"], "which tasks?"),
        (["retry-all"], "there is no condition"),
        (["purge", "--yes"], "there is no condition"),
        (["erase", "--yes"], "there is no condition"),
        (["retry-all", "--everything"], "nobody is here to be asked; --yes does it"),
        (["retry-all", "--type", "x", "--state", "pending", "--yes"], "state: pending cannot be meant"),
        (["erase", "--everything", "--yes", "--cutoff", "2026-01-01T00:00:00Z"], "--cutoff: erase takes what lives"),
        (["purge", "--everything", "--yes", "--cutoff", "today"], "--cutoff: 'today' is no time with a zone"),
        (["retry-all", "--everything", "--yes", "--cutoff", "2026-01-01T00:00"], "--cutoff: '2026-01-01T00:00' is no"),
        (["retry-all", "--everything", "--yes", "--rate", "0"], "--rate: 0 is no rate"),
        (["erase", "--everything", "--yes", "--limit", "-1"], "--limit: -1 is no count"),
        (["export", "--state", "pending"], "--state: only dead letters can be exported"),
        (["ls", "--limit", "0"], "--limit: 0 is no number of lines"),
        (["ls", "--older-than", "soon"], "--older-than: 'soon' is no duration"),
        (["ls", "--reason", "boredom"], "reason: 'boredom' is none of"),
        (["ls", "--nonsense"], "Unknown option: --nonsense"),
        (["lss"], "Did you mean"),
        (["ls", "extra"], "extra: this command takes no such argument"),
        (["completion", "tcsh"], 'Choose from: "bash", "zsh", "fish"'),
        (["show"], "requires an argument"),
        (["check", "--max-items", "-1"], "give 0 or more"),
        (["pause", "", "--why", "x"], "types: '' can match no type"),
        (["pause", "sms", "--why", " "], "why: ' ' says nothing"),
        (["pause", "sms"], "--why"),
        (["pause", "--why", "x"], "GLOB"),
        (["resume", "a\n"], "can match no type"),
        (["worker"], "there is nothing to run"),
        (["worker", "--app", "no_such_module:dlq"], "--app: there is no module"),
        (["worker", "--import", "no_such_module"], "--import: there is no module"),
        (["worker", "--processes", "0"], "--processes: 0"),
        (["import", "/no/such/file"], "/no/such/file: No such file"),
        (["export", "-o", "/no/such/dir/x"], "/no/such/dir/x: No such file"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exit_2(sh: Shell, tokens: Sequence[str], said: str) -> None:
    assert said in sh.refused(*tokens)


def test_cancel(sh: Shell) -> None:
    assert sh.one("cancel", "waiting") == {"task_id": "waiting", "state": "cancelled"}
    assert "is not pending" in sh.refused("cancel", "letter-0", code=1)


def test_retry_all_counts_first_and_changes_with_yes(sh: Shell) -> None:
    result = sh.one("retry-all", "--payload", "n=1", "--dry-run")
    assert (result["matched"], result["changed"]) == (1, 0)
    assert sh("retry-all", "--limit", "2", "--yes") == 0
    assert sh.out == "2 of 2 changed\n"
    assert [item["id"] for item in sh.lines("ls")] == ["letter-2"]


def test_retry_all_is_no_oracle_for_hidden_values(sh: Shell) -> None:
    assert sh.one("retry-all", "--payload", f"password={SECRET}-1", "--dry-run")["matched"] == 0
    assert sh.one("retry-all", "--payload", f"password={SECRET}-1", "--dry-run", "--reveal")["matched"] == 1


@pytest.mark.parametrize("command", ["retry-all", "purge"])
def test_the_cutoff_of_an_earlier_run_goes_on_with_it(sh: Shell, command: str) -> None:
    first = sh.one(command, "--limit", "1", "--yes")
    early = sh.one(command, "--everything", "--yes", "--cutoff", "2001-01-01T00:00:00Z")
    assert (early["matched"], early["cutoff"]) == (0, "2001-01-01T00:00:00Z")
    second = sh.one(command, "--everything", "--yes", "--cutoff", first["cutoff"])
    assert (second["changed"], second["cutoff"]) == (2, first["cutoff"])


def test_purge_deletes_dead_letters_only(sh: Shell) -> None:
    assert sh("purge", "--everything", "--dry-run") == 0
    assert sh.out == "3 would be changed\n"
    assert sh.one("purge", "--everything", "--yes", "--why", "done with")["changed"] == 3
    assert sh.lines("ls") == []
    assert sh("show", "waiting") == 0


def test_erase_reaches_every_state_and_hidden_values(sh: Shell) -> None:
    assert sh.one("erase", "--payload", f"password={SECRET}-1", "--yes")["changed"] == 1
    assert sh.one("erase", "--type", "email.*", "--dry-run")["matched"] == 3
    assert sh.one("erase", "--type", "email.*", "--limit", "2", "--rate", "50", "--yes")["changed"] == 2
    assert sh.one("erase", "--everything", "--yes")["changed"] == 1
    assert sh.one("stats")["by_state"]["pending"] == 0


def test_check_is_unhealthy_above_a_limit(sh: Shell) -> None:
    assert sh("check") == 0
    assert sh.out == "healthy\n"
    assert sh.one("check", "--max-items", "2", code=1)["problems"] == ["3 dead letters, more than 2"]
    assert sh("check", "--max-items", "3", "--max-age", "1h") == 0
    assert sh("check", "--max-age", "0") == 1
    assert "the oldest dead letter is" in sh.out


def test_pause_and_resume(sh: Shell) -> None:
    assert sh("pause", "email.*", "--why", "down \x1b[2J\n\u202e since noon") == 0
    assert sh.out == "email.* paused: down \\x1b[2J \\u202e since noon\n"
    again = sh.one("pause", "email.*", "--why", "x")
    assert (again["types"], again["why"]) == ("email.*", "down \x1b[2J \u202e since noon")
    assert again["since"].endswith("Z")
    assert "\x1b" not in sh.out
    assert "\u202e" not in sh.out
    assert sh("stats") == 0
    assert "paused            email.*: down \\x1b[2J \\u202e since noon\n" in sh.out
    assert sh.one("stats")["paused"] == {"email.*": again["why"]}
    assert sh("resume", "email.send") == 0
    assert sh.out.splitlines()[0] == "nothing was paused as email.send"
    assert sh.out.splitlines()[1].startswith("email.* is still paused: down \\x1b")
    assert sh.one("pause", "sms", "--why", "y")["why"] == "y"
    told = sh.one("resume", "email.*")
    assert ([pause["types"] for pause in told["resumed"]], [pause["types"] for pause in told["paused"]]) == (
        ["email.*"],
        ["sms"],
    )
    assert sh("resume") == 0
    assert sh.out == "sms resumed\n"
    assert sh("resume") == 0
    assert sh.out == "nothing was paused\n"


def test_check_tells_what_is_paused_and_does_not_call_it_overdue(sh: Shell) -> None:
    dlq = DeadLetterQueue(sh.url, name="late", clock=VirtualClock(start_ms=1_000))
    dlq.sync.enqueue_many([Task(type="email.send"), Task(type="sms")])
    dlq.sync.aclose()
    assert sh.one("check", "--queue", "late", code=1)["overdue"] == 2
    assert sh("pause", "sms", "--why", "no \x1b[2J", "--queue", "late") == 0
    assert sh.one("check", "--queue", "late", code=1)["overdue"] == 1
    assert sh("check", "--queue", "late", "--max-overdue", "1") == 0
    assert sh.out == "healthy\npaused: sms (no \\x1b[2J)\n"
    assert sh("pause", "e*", "--why", "x", "--queue", "late") == 0
    assert sh.one("check", "--queue", "late")["paused"] == {"sms": "no \x1b[2J", "e*": "x"}
    assert sh.one("stats", "--queue", "late")["overdue"] == {"email.send": 1, "sms": 1}


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpoolFile:
    """What the environment names, with one capture of another queue in it."""
    path = tmp_path / "captures.spool"
    monkeypatch.setenv("DEADLETTER_SPOOL", str(path))
    file = SpoolFile(path)
    file.put(f"sqlite:///{tmp_path / 'a.db'}", "other", NewRow(id="a", type="t"), 0)
    return file


def test_doctor_and_stats_tell_what_waits_in_the_spool(sh: Shell, spool: SpoolFile, tmp_path: Path) -> None:
    file = spool
    file.put(f"sqlite:///{tmp_path / 'a.db'}", "default", NewRow(id="b", type="t"), 0)
    file.refuse(2, "ValueError: too odd", 2**60)
    told = [finding["text"] for finding in sh.one("doctor")["findings"]]
    assert any(f"the spool {file.path} holds 1 captures for this queue" in text for text in told)
    assert any("b from the spool: ValueError: too odd" in text for text in told)
    assert sh.one("stats")["spooled"] == 1
    assert sh("stats") == 0
    assert "spooled" in sh.out


def test_doctor_tells_it_too_where_the_store_is_away(sh: Shell, spool: SpoolFile, tmp_path: Path) -> None:
    sh.url = f"sqlite:///{tmp_path / 'gone.db'}"
    assert sh("doctor") == 2
    assert f"the spool {spool.path} holds 0 captures for this queue, and 1 for others" in sh.err


def test_a_command_gives_back_what_waits(sh: Shell, spool: SpoolFile, tmp_path: Path) -> None:
    assert sh("stats", "--queue", "other") == 0
    until = time.monotonic() + 10
    while spool.count(f"sqlite:///{tmp_path / 'a.db'}", "other"):
        assert time.monotonic() < until
        sh("stats", "--queue", "other")
    assert sh.one("ls", "--state", "pending", "--queue", "other")["id"] == "a"


def test_a_spool_that_cannot_be_names_its_variable(sh: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEADLETTER_SPOOL", str(tmp_path / "none" / "x"))
    assert "DEADLETTER_SPOOL: " in sh.refused("ls")


def test_doctor(sh: Shell) -> None:
    found = sh.one("doctor")
    assert found["durability"].startswith("synchronous=FULL")
    assert found["queues"] == ["default"]
    assert sh("doctor") == 0
    assert "clock skew ms" in sh.out


@pytest.mark.parametrize(("ahead", "level", "code"), [(5_000, "warning", 0), (0, "error", 1)])
def test_doctor_warns_of_clocks_and_fails_for_errors(
    sh: Shell, monkeypatch: pytest.MonkeyPatch, ahead: int, level: str, code: int
) -> None:
    async def inspect(self: object) -> Inspection:
        findings = [] if ahead else [Finding(level="error", text="the disk is a network's")]
        now_ms = time.time_ns() // 1_000_000 + ahead
        return Inspection(backend="sqlite", version="1", now_ms=now_ms, durability="none", findings=findings)

    monkeypatch.setattr("deadletter.backends.sqlite.SQLiteBackend.inspect", inspect)
    [finding] = sh.one("doctor", code=code)["findings"]
    assert finding["level"] == level
    assert ahead == 0 or finding["text"] == "this machine's clock and the store's differ by 5.0 s"
    assert sh("doctor") == code
    assert f"{level}   " in sh.out
    assert "queues         none" in sh.out


@pytest.mark.parametrize(
    "tokens",
    [["ls"], ["groups"], ["stats"], ["check"], ["export"], ["search", "x"], ["purge", "--everything", "--yes"]],
)
def test_a_mistyped_queue_is_told_from_an_empty_one(sh: Shell, tokens: Sequence[str]) -> None:
    remark = "queue 'defualt' was never used here; this store holds default\n"
    assert sh(*tokens, "--queue", "defualt") == 0
    assert sh.err.startswith(remark)
    assert sh(*tokens, "--type", "nobody") == 0 if tokens[0] not in ("stats", "check") else True
    assert remark not in sh.err or tokens[0] in ("stats", "check")


def test_simulate(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--outage", "30s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deaths"] == 0
    assert run(["simulate", "--outage", "30s", "--base", "1s", "--cap", "10s", "--jitter", "none"]) == 0
    assert "attempts a second" in capsys.readouterr().out
    assert run(["simulate", "--delays", "1,soon"]) == 2
    assert run(["simulate", "--delays", "1", "--base", "1"]) == 2
    assert run(["simulate", "--arrivals", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 3


def test_export_says_how_many_and_keeps_others_out(sh: Shell, tmp_path: Path) -> None:
    file = tmp_path / "letters.ndjson"
    assert sh("export", "--limit", "2", "-o", str(file)) == 0
    assert (sh.out, sh.err) == ("", "2 exported\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["letter-2", "letter-1"]


def test_commands_that_read_do_not_make_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Shell(tmp_path / "none.db", capsys)
    for tokens in (["ls"], ["show", "x"], ["stats"], ["retry", "x"], ["purge", "--everything", "--yes"], ["export"]):
        assert "none.db does not exist" in other.refused(*tokens)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environ", "tokens", "said"),
    [
        ({}, ["--url", "nowhere"], "--url: "),
        ({}, ["--url", "nowhere://x"], "--url: nobody here knows nowhere://"),
        ({"DEADLETTER_URL": "nowhere://x"}, [], "DEADLETTER_URL: nobody here knows"),
        ({"DEADLETTER_RETRY_DELAYS": "soon"}, [], "DEADLETTER_RETRY_DELAYS: 'soon'"),
        ({"DEADLETTER_APP": "nowhere"}, [], "DEADLETTER_APP: "),
        ({}, ["--queue", "a\nb"], "name: "),
    ],
)
def test_a_bad_setting_names_where_it_was_said(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    environ: dict[str, str],
    tokens: Sequence[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    assert run(["ls", *tokens]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"deadletter: {said}")


APP = """
from deadletter import DeadLetterQueue
fixed = DeadLetterQueue("memory://", name="fixed")
env = DeadLetterQueue.from_env()
"""


def test_an_app_is_used_and_flags_that_it_ignores_are_refused(
    sh: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "cli_app_a.py").write_text(APP)
    monkeypatch.setenv("DEADLETTER_URL", "memory://")  # put back afterwards: --url sets it for the app
    monkeypatch.setenv("DEADLETTER_QUEUE", "default")
    assert len(sh.lines("ls", "--app", "cli_app_a:env")) == 3
    assert "--url: cli_app_a:fixed is on memory://" in sh.refused("ls", "--app", "cli_app_a:fixed")
    capsys.readouterr()
    assert run(["ls", "--app", "cli_app_a:fixed", "--queue", "x"]) == 2
    assert "--queue: cli_app_a:fixed is queue 'fixed'" in capsys.readouterr().err
    monkeypatch.setenv("DEADLETTER_APP", "cli_app_a:fixed")
    assert run(["stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["by_state"]["dead"] == 0


@pytest.mark.parametrize("command", ["ls", "show", "search", "groups", "stats", "retry", "retry-all", "purge", "erase"])
def test_help_has_an_example_and_the_shared_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Example: deadletter {command}" in out
    for flag in ("--url", "--queue", "--app", "--json", "--reveal"):
        assert flag in out


@pytest.mark.parametrize(
    "command", ["demo", "worker", "check", "doctor", "simulate", "cancel", "pause", "resume", "export", "import"]
)
def test_other_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"Example: deadletter {command}" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    from deadletter import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_our_own_mistakes_are_not_hidden(monkeypatch: pytest.MonkeyPatch, sh: Shell) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("deadletter.cli.reading.stats_item", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run(["stats", "--url", sh.url])


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, sh: Shell) -> None:
    def interrupted(_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("deadletter.cli.reading.stats_item", interrupted)
    assert run(["stats", "--url", sh.url]) == 130


def test_states_are_named_as_the_model_does() -> None:
    from typing import get_args

    from deadletter.cli.flags import StateName

    assert set(get_args(StateName)) == set(map(str, State))
