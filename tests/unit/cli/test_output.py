from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter.cli.output import emit, harmless, moment, pairs, span, table, when


@given(st.text())
def test_harmless_text_is_printable_and_plain_text_is_untouched(text: str) -> None:
    assert harmless(text).isprintable()
    if text.isprintable():
        assert harmless(text) == text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_json_reads_back_and_holds_nothing_that_steers_a_terminal(text: str) -> None:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        emit({"text": text})
    [line] = out.getvalue().split("\n")[:-1]
    assert json.loads(line) == {"text": text}
    assert not any(char in line for char in "\x1b\x7f\x85\x9b\u200e\u202e\u2028\u2066\ufeff")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[31m", "\\x1b[31m"), ("a\nb", "a\\nb"), ("\u202ex", "\\u202ex"), ("\U000e0001", "\\U000e0001"), ("é", "é")],
)
def test_hostile_text_is_spelled_out(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_lines_are_kept_where_they_are_meant() -> None:
    assert harmless("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"


def test_a_table_off_a_terminal_is_tab_separated_lines(capsys: pytest.CaptureFixture[str]) -> None:
    table(("ID", "ERROR"), [("1", "a\tb\nc"), ("2", "[bold]x[/bold]")])
    assert capsys.readouterr().out == "1\ta\\tb\\nc\n2\t[bold]x[/bold]\n"


def test_further_lines_of_a_value_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    pairs([("id", "7"), ("payload", "a\n\nb")])
    assert capsys.readouterr().out == "id       7\npayload  a\n\n         b\n"


def test_times_and_spans() -> None:
    at = datetime(2026, 11, 24, 17, 7, 49, 748000, UTC)
    assert moment(at) == when(at) == "2026-11-24T17:07:49Z"
    assert when(None) == moment(None) == ""
    assert [span(n) for n in (0, 59, 60, 3600, 86400 * 3)] == ["0s", "59s", "1m", "1h", "3d"]
