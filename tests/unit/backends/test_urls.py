from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

from deadletter import backends
from deadletter.backends import backend_from_url, without_password
from deadletter.backends.memory import MemoryBackend
from deadletter.model.errors import InvalidSetting, MissingExtra
from deadletter.testing import VirtualClock


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:6379/0", "redis://user:***@host:6379/0"),
        ("redis://:secret@host", "redis://:***@host"),
        ("redis://host:6379", "redis://host:6379"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("memory://", "memory://"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_a_scheme_names_a_backend() -> None:
    backend = backend_from_url("memory://")
    assert isinstance(backend, MemoryBackend)
    assert backend.url == "memory://"


@pytest.mark.anyio
async def test_the_clock_is_handed_on() -> None:
    assert (await backend_from_url("memory://", clock=VirtualClock(7)).inspect()).now_ms == 7


@pytest.mark.parametrize("url", ["", "a.db", "memory:", "user:secret@host"])
def test_without_a_scheme_the_message_shows_one(url: str) -> None:
    with pytest.raises(InvalidSetting, match="sqlite:///path.db") as caught:
        backend_from_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///a\0b", "sqlite:///\udcff", "redis://u:secret@h?\udc83=0"])
def test_what_is_no_text_is_refused(url: str) -> None:
    with pytest.raises(InvalidSetting, match="a NUL, or bytes that are no UTF-8") as caught:
        backend_from_url(url)
    assert "secret" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("url", ["redis+cluster://[::1", "redis+sentinel://[a/main", "redis://[::1"])
def test_brackets_that_do_not_match_are_told(url: str) -> None:
    with pytest.raises(InvalidSetting, match="^url: redis"):
        backend_from_url(url)


def test_an_unknown_scheme_is_told_with_the_known_ones() -> None:
    with pytest.raises(InvalidSetting, match=r"nobody here knows mongodb://; use one of memory, .*sqlite") as caught:
        backend_from_url("mongodb://user:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", sorted(backends._PLANNED))
def test_what_is_planned_says_so(scheme: str) -> None:
    with pytest.raises(InvalidSetting, match="not in this version"):
        backend_from_url(f"{scheme}://host")


def test_an_entry_point_adds_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("someones_backend")
    module.TheirBackend = MemoryBackend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "someones_backend", module)
    points = [
        EntryPoint("other", "someones_backend:Other", "deadletter.backends"),
        EntryPoint("theirs", "someones_backend:TheirBackend", "deadletter.backends"),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: points * (group == "deadletter.backends"))
    assert isinstance(backend_from_url("theirs://x"), MemoryBackend)
    with pytest.raises(InvalidSetting):
        backend_from_url("nobodys://x")


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(_: str) -> Any:
        raise ModuleNotFoundError("no module")

    monkeypatch.setattr("importlib.import_module", not_there)
    with pytest.raises(MissingExtra, match="memory"):
        backend_from_url("memory://")
