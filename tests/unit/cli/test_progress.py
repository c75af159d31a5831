"""How far a long command is, where nobody looks at a bar."""

from __future__ import annotations

import pytest

from deadletter.cli import progress


@pytest.mark.parametrize(("total", "told"), [(None, "purging: 7 so far"), (9, "purging: 7 of 9")])
def test_off_a_terminal_it_says_a_line_now_and_then(
    total: int | None, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.progress("purging", total=total) as tell:
        tell(3)
        now = 6.0
        tell(7)
        tell(8)
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{told}\n")


def test_a_quiet_one_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_PAUSE", -1.0)
    with progress.progress("purging", quiet=True) as tell:
        tell(3)
    assert capsys.readouterr() == ("", "")
