from __future__ import annotations

import functools
import gc
import importlib.util
import linecache
import os
import sys
import threading
import traceback
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import deadletter.rules
from deadletter.model.outcome import RetryAfter
from deadletter.model.row import FailureRow
from deadletter.rules import frames
from deadletter.rules.error_text import cut, plain, storable, type_name
from deadletter.rules.frames import trace
from deadletter.rules.story import failure_row


def tell(error: BaseException) -> FailureRow:
    return failure_row(error, task_type="t", attempt=2, duration_ms=7, worker="w", release="r1")


def caught(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def raiser(error: BaseException) -> Callable[[], object]:
    def call() -> object:
        raise error

    return call


def chained(*, suppress: bool = False, explicit: bool = False) -> None:
    try:
        os.environ["NO SUCH VARIABLE"]
    except KeyError as error:
        if suppress:
            raise ValueError("no such card") from None
        if explicit:
            raise ValueError("no such card") from error
        raise ValueError("no such card")  # noqa: B904 - the implicit context is the case


def grouped() -> None:
    with_frames = caught(lambda: chained(explicit=True))
    nested = caught(raiser(BaseExceptionGroup("inner", [ValueError("1\n2"), with_frames])))
    assert isinstance(nested, Exception)
    try:
        os.environ["NO SUCH VARIABLE"]
    except KeyError as before:
        raise ExceptionGroup("outer", [nested, TypeError(), OSError(2, "gone")]) from before


def recurse(depth: int) -> int:
    return recurse(depth - 1) if depth else 1 // 0


def even(depth: int) -> int:
    return odd(depth - 1) if depth else 1 // 0


def odd(depth: int) -> int:
    return even(depth - 1) if depth else 1 // 0


def noted() -> None:
    error = ValueError("noted")
    error.add_note("first note")
    error.add_note("second\nnote")
    raise error


@pytest.mark.parametrize(
    "call",
    [
        lambda: 1 // 0,
        chained,
        lambda: chained(suppress=True),
        lambda: chained(explicit=True),
        grouped,
        raiser(ExceptionGroup("only", [ValueError(1)])),
        noted,
        lambda: recurse(4),
        lambda: recurse(300),
        lambda: even(20),
        lambda: compile("a b", "file.py", "exec"),
        raiser(KeyboardInterrupt()),
    ],
)
def test_a_traceback_reads_as_pythons_own(call: Callable[[], object]) -> None:
    error = caught(call)
    assert tell(error).traceback == "".join(traceback.format_exception(error))
    assert tell(error).traceback == "".join(traceback.format_exception(error)), "and again out of the cache"


@pytest.mark.parametrize("group", [ExceptionGroup("g", [ValueError(1)]), ExceptionGroup("g", [TypeError()])])
def test_an_error_that_was_never_raised_reads_as_pythons_own(group: Exception) -> None:
    assert tell(group).traceback == "".join(traceback.format_exception(group))


def test_a_row_says_what_it_was_told() -> None:
    row = tell(caught(lambda: 1 // 0))
    assert (row.attempt, row.duration_ms, row.worker, row.release) == (2, 7, "w", "r1")
    assert (row.error_type, row.message) == ("ZeroDivisionError", "integer division or modulo by zero")
    assert len(row.fingerprint) == 16


class Boom(Exception):
    class Inner(Exception):
        pass


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TimeoutError, "TimeoutError"),
        (Boom.Inner, f"{__name__}.Boom.Inner"),
        (type("Boom", (Exception,), {"__module__": "__main__"}), "__main__.Boom"),
        (type("Boom", (Exception,), {"__module__": None}), "Boom"),
        (type("Boom", (Exception,), {"__module__": "m\udc00"}), "m\\udc00.Boom"),
        (RetryAfter, "deadletter.RetryAfter"),
    ],
)
def test_an_error_type_is_fully_qualified(kind: type[BaseException], name: str) -> None:
    assert type_name(kind.__new__(kind)) == name


def test_a_type_name_of_10_megabytes_is_cut() -> None:
    assert len(type_name(type("B" * 10_000_000, (Exception,), {})())) <= 300


def test_main_stands_alone_in_the_text_as_in_pythons_own() -> None:
    error = type("Boom", (Exception,), {"__module__": "__main__"})("x")
    assert tell(error).traceback == "Boom: x\n"


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Endless(Exception):
    def __str__(self) -> str:
        return str(self)


class Sly(str):
    __slots__ = ()

    def __getitem__(self, key: Any) -> str:
        raise RuntimeError("no")

    def __len__(self) -> int:
        raise RuntimeError("no")


class Masked(Exception):
    def __str__(self) -> str:
        return Sly("sly")


@pytest.mark.parametrize("kind", [Hostile, Exiting, Endless])
def test_an_error_whose_str_raises_is_still_told(kind: type[Exception]) -> None:
    row = tell(caught(raiser(kind())))
    assert row.message == "<exception str() failed>"
    assert row.traceback.endswith(f"{kind.__name__}: <exception str() failed>\n")


def test_a_str_that_is_no_plain_str_is_made_one() -> None:
    assert type(tell(Masked()).message) is str


@pytest.mark.parametrize("name", ["__cause__", "__traceback__", "__notes__", "__suppress_context__"])
def test_an_error_that_overrides_what_is_read_of_it_is_still_told(name: str) -> None:
    def refuse(_: object) -> object:
        raise RuntimeError("no")

    kind = type("Closed", (Exception,), {name: property(refuse)})
    error = kind("sorry")
    error.__context__ = ValueError("before")
    row = tell(error)
    assert row.message == "sorry"
    assert row.traceback == f"[the traceback cannot be rendered: RuntimeError]\n{__name__}.Closed: sorry\n"
    assert len(row.fingerprint) == 16


def test_a_nameless_class_is_still_told() -> None:
    def refuse(_: object) -> object:
        raise RuntimeError("no")

    meta: Any = type("Meta", (type,), {"__module__": property(refuse)})
    assert tell(meta("Nameless", (Exception,), {})("x")).error_type == "<nameless exception>"


def test_notes_that_are_no_list_are_left_out() -> None:
    error = ValueError("x")
    error.__notes__ = 5  # type: ignore[assignment]
    assert tell(error).traceback == "ValueError: x\n"


def test_a_message_of_10_megabytes_is_cut_at_both_ends_and_says_so() -> None:
    row = tell(ValueError("a" * 5_000_000 + "z" * 5_000_000))
    assert len(row.message) == 2_000
    assert row.message.startswith("aaa")
    assert row.message.endswith("zzz")
    assert "characters or more left out" in row.message
    assert len(row.traceback) <= 16_000


def test_a_long_traceback_keeps_both_ends() -> None:
    error = ValueError("last words")
    for number in range(20):
        error.add_note(f"{number} " + "n" * 1_900)
    text = tell(caught(raiser(error))).traceback
    assert len(text) == 16_000
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("nnn\n")


def test_thousands_of_frames_are_told_in_few_lines() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        text = tell(caught(lambda: recurse(5_000))).traceback
        mutual = tell(caught(lambda: even(5_000))).traceback
    finally:
        sys.setrecursionlimit(limit)
    assert "[Previous line repeated 4998 more times]" in text
    assert len(text) < 2_000
    assert len(mutual) <= 16_000


@given(st.text(st.characters(), max_size=50))
def test_every_text_can_be_stored(text: str) -> None:
    """Lone surrogates and NUL are escaped, all else stays as it is."""
    message = tell(ValueError(text)).message
    assert "\0" not in message
    assert message.encode().decode() == message
    if text.isprintable():
        assert message == text


def test_surrogates_and_nul_are_escaped() -> None:
    assert storable("a\ud800\0é") == "a\\ud800\\x00é"


@given(st.text(max_size=300), st.integers(min_value=80, max_value=200))
def test_cut_never_exceeds_its_limit(text: str, limit: int) -> None:
    assert len(cut(text, limit)) <= limit
    assert cut(text, limit)[:10] == text[:10]


def test_escapes_do_not_exceed_the_limit_either() -> None:
    assert len(plain("\0" * 5_000)) == 2_000


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    text = tell(first).traceback
    assert text.count("first") == text.count("ValueError: second") == 1
    assert text.startswith("[earlier exceptions are left out]\n")


def test_a_chain_of_10_000_keeps_its_last_20() -> None:
    error = ValueError("0")
    for number in range(1, 10_000):
        later = ValueError(str(number))
        later.__cause__ = error
        error = later
    text = tell(error).traceback
    assert text.count("ValueError") == 20
    assert text.endswith("ValueError: 9999\n")


def test_a_group_of_10_000_tells_a_few_and_how_many_more() -> None:
    text = tell(ExceptionGroup("many", [ValueError(n) for n in range(10_000)])).traceback
    assert text.count("ValueError") == 19
    assert "and 9981 more exceptions" in text


def test_a_member_that_is_its_own_cause_is_told_once() -> None:
    member = ValueError("member")
    group = ExceptionGroup("twice", [member, member])
    assert "\n    | [told above]\n" in tell(group).traceback


def test_groups_in_groups_end() -> None:
    group: Any = ValueError("deep")
    for _ in range(500):
        group = ExceptionGroup("g", [group])
    row = tell(group)
    assert row.traceback.count("ExceptionGroup: g") <= 20
    assert len(row.fingerprint) == 16


def ours(source: str) -> dict[str, Any]:
    """Run source as if it were a file of the package."""
    filename = str(Path(next(iter(deadletter.rules.__path__))) / "made_up.py")
    space: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), space)
    return space


def test_our_own_frames_are_left_out() -> None:
    call = ours("def run(call): return call()")["run"]
    text = tell(caught(lambda: call(lambda: 1 // 0))).traceback
    assert "made_up" not in text
    assert "test_story" in text


def test_our_own_frames_stay_where_nothing_else_is_left() -> None:
    error = caught(ours("def run(): return 1 // 0")["run"])
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next
    row = tell(error)
    assert "made_up" in row.traceback
    assert "in run" in row.traceback


def test_a_source_that_cannot_be_read_is_told_by_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    error = caught(lambda: 1 // 0)

    def refuse(*_: object) -> object:
        raise RuntimeError("no")

    frames._cache.clear()
    monkeypatch.setattr(linecache, "checkcache", refuse)
    text = tell(error).traceback
    assert f'File "{__file__}", line ' in text
    assert text.endswith("ZeroDivisionError: integer division or modulo by zero\n")


def test_equal_tracebacks_are_rendered_once() -> None:
    first, second = (trace(caught(lambda: recurse(3)).__traceback__) for _ in range(2))
    assert first is second


def test_another_line_of_the_same_function_is_another_trace() -> None:
    def either(*, late: bool) -> None:
        if late:
            raise ValueError("late")
        raise ValueError("early")

    first, second = (trace(caught(lambda: either(late=late)).__traceback__) for late in (True, False))  # noqa: B023
    assert first.text != second.text
    assert first.place == second.place


class Big:
    """Something that a failing frame holds."""


def test_the_cache_keeps_no_local_variables_alive() -> None:
    kept: list[weakref.ref[Big]] = []

    def fail() -> None:
        big = Big()
        kept.append(weakref.ref(big))
        raise ValueError("x")

    try:
        fail()
    except ValueError as error:
        tell(error)
    gc.collect()
    assert kept[0]() is None


def test_a_code_object_of_the_cache_lives_as_long_as_its_entry() -> None:
    """Its id is the key: were it freed, another function could be taken for it."""
    frames._cache.clear()
    texts = set()
    for number in range(200):
        space: dict[str, Any] = {}
        exec(compile(f"def f{number}(): raise ValueError", f"file{number}.py", "exec"), space)
        texts.add(tell(caught(space[f"f{number}"])).traceback)
        del space
        gc.collect(0)
    assert len(texts) == 200


def test_the_cache_is_bounded() -> None:
    frames._cache.clear()
    for number in range(1_200):
        space: dict[str, Any] = {}
        exec(compile("def f(): raise ValueError", f"bounded{number}.py", "exec"), space)
        trace(caught(space["f"]).__traceback__)
    assert len(frames._cache) <= 512


def test_deep_tracebacks_are_not_cached() -> None:
    frames._cache.clear()
    trace(caught(lambda: recurse(300)).__traceback__)
    assert not frames._cache


def test_threads_share_the_cache() -> None:
    frames._cache.clear()
    errors = [caught(functools.partial(recurse, depth)) for depth in range(50)]
    expected = ["".join(traceback.format_exception(error)) for error in errors]
    told: list[list[str]] = []
    threads = [threading.Thread(target=lambda: told.append([tell(e).traceback for e in errors])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [expected] * 4


def load(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_place_is_the_users_innermost_frame(tmp_path: Path) -> None:
    library = tmp_path / "site-packages" / "client.py"
    library.parent.mkdir()
    library.write_text("def send(): raise ConnectionError('refused')")
    error = caught(load(library).send)
    assert trace(error.__traceback__).place == "test_story:caught"
    assert error.__traceback__ is not None
    assert trace(error.__traceback__.tb_next).place == "client:send", "nothing of the user's is left"


def test_a_package_is_named_by_its_folder(tmp_path: Path) -> None:
    package = tmp_path / "billing" / "__init__.py"
    package.parent.mkdir()
    package.write_text("def charge(): return [1 // 0 for _ in 'x']")
    assert trace(caught(load(package).charge).__traceback__).place == "billing.__init__:charge"
