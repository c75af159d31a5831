"""``@dead_lettered``: what a failing call leaves behind, and what a success does not touch."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import os
import subprocess
import sys
import threading
import time
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs
import pytest

from deadletter import (
    BackendUnavailable,
    Captured,
    DeadLetterQueue,
    Discard,
    InvalidTask,
    PermanentError,
    Postpone,
    Query,
    RetryAfter,
    Task,
    dead_lettered,
)
from deadletter.backends.memory import MemoryBackend
from deadletter.engine import lazy
from deadletter.retry import Budget, Schedule

pytestmark = pytest.mark.anyio


class Away(MemoryBackend):
    """Every call that could touch the store fails."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("open", "insert", "claim", "apply", "sweep", "load", "scan", "counts", "listen"):
            raise BackendUnavailable(f"{name} is away")
        return super().__getattribute__(name)


class Slow(MemoryBackend):
    """Takes its time to insert tasks."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def insert(self, queue: str, rows: Any) -> Any:
        await anyio.sleep(self.seconds)
        return await super().insert(queue, rows)


@pytest.fixture(params=["memory", "sqlite"])
async def dlq(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DeadLetterQueue]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/letters.db"
    async with DeadLetterQueue(url, retry=[7], redact_defaults=True) as queue:
        yield queue


async def the_only(dlq: DeadLetterQueue) -> Any:
    found = [r for state in ("pending", "dead", "running") async for r in dlq.scan(Query(state=state))]
    assert len(found) == 1, found
    return await dlq.get(found[0].task.id)


async def nothing_in(dlq: DeadLetterQueue) -> bool:
    return not [r for state in ("pending", "dead", "running") async for r in dlq.scan(Query(state=state))]


def both(plain: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same body as a sync and as an async function."""

    def sync_body(amount: Decimal, note: str = "x") -> Any:
        return plain(amount)

    async def async_body(amount: Decimal, note: str = "x") -> Any:
        return plain(amount)

    return sync_body, async_body


FORMS = pytest.mark.parametrize("form", [0, 1], ids=["sync", "async"])


async def run(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a sync function in this very thread, as a program without a loop would."""
    result = function(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


def fails(amount: Decimal) -> Any:
    raise ValueError(f"no {amount}")


def decorated(dlq: Any, form: int, body: Callable[..., Any] = fails, **options: Any) -> Any:
    return dead_lettered(dlq, name="charge", **options)(both(body)[form])


@FORMS
async def test_a_failure_is_kept_with_its_arguments_and_raised_with_a_note(dlq: DeadLetterQueue, form: int) -> None:
    charge = decorated(dlq, form)
    with pytest.raises(ValueError, match="no 9.99") as raised:
        await run(charge, Decimal("9.99"))
    record = await the_only(dlq)
    assert (record.state, record.attempts, record.task.type) == ("pending", 1, "charge")
    assert record.task.payload == {"amount": "9.99"}
    assert record.failure.error_type == "ValueError"
    assert "async_body" in record.failure.traceback or "sync_body" in record.failure.traceback
    assert any(record.task.id in text for text in raised.value.__notes__)
    assert 5 < (record.due_at - record.created_at).total_seconds() < 9


@FORMS
async def test_a_worker_retries_it_with_restored_arguments(dlq: DeadLetterQueue, form: int) -> None:
    calls: list[Any] = []

    def body(amount: Decimal) -> bool:
        calls.append(amount)
        if len(calls) == 1:
            raise ValueError("first")
        return False  # no outcome

    charge = decorated(dlq, form, body)
    with pytest.raises(ValueError, match="first"):
        await run(charge, Decimal("1.50"))
    task_id = (await the_only(dlq)).task.id
    registration = dlq.registry.get("charge")
    assert registration is not None
    assert await dlq.process_task(task_id, registration.processor)
    assert calls == [Decimal("1.50"), Decimal("1.50")]


@FORMS
async def test_success_touches_no_store(form: int) -> None:
    dlq = DeadLetterQueue(Away())
    charge = decorated(dlq, form, lambda amount: amount)
    assert await run(charge, 5) == 5


@FORMS
async def test_a_store_that_is_away_never_replaces_the_exception(form: int, caplog: pytest.LogCaptureFixture) -> None:
    charge = decorated(DeadLetterQueue(Away()), form, on_failure="suppress")
    with pytest.raises(ValueError, match="no 3") as raised:
        await run(charge, Decimal(3))
    assert any("could not be kept" in text and "is away" in text for text in raised.value.__notes__)
    assert [(r.levelname, "charge" in r.getMessage()) for r in caplog.records] == [("ERROR", True)]
    assert "Decimal" not in caplog.text


@FORMS
async def test_a_capture_takes_no_longer_than_capture_timeout(form: int) -> None:
    charge = decorated(DeadLetterQueue(Slow(30), capture_timeout=0.05), form)
    began = time.monotonic()
    with pytest.raises(ValueError, match="no 3") as raised:
        await run(charge, Decimal(3))
    assert time.monotonic() - began < 3
    assert any("longer than capture_timeout=0.05 s" in text for text in raised.value.__notes__)


@FORMS
async def test_suppress_answers_a_falsy_captured(dlq: DeadLetterQueue, form: int) -> None:
    charge = decorated(dlq, form, on_failure="suppress")
    captured = await run(charge, Decimal(2))
    assert isinstance(captured, Captured)
    assert not captured
    assert captured.task_id == (await the_only(dlq)).task.id
    assert isinstance(captured.error, ValueError)


@FORMS
@pytest.mark.parametrize(
    ("error", "options", "state", "reason"),
    [
        (ValueError("x"), {"max_retries": 0}, "dead", "retries_exhausted"),
        (PermanentError("x"), {}, "dead", "permanent"),
        (SystemExit(3), {}, "pending", None),
        (RetryAfter(500, "x"), {}, "pending", None),
        (KeyboardInterrupt(), {"capture_cancelled": True}, "pending", None),
        (asyncio.CancelledError(), {"capture_cancelled": True}, "pending", None),
    ],
    ids=["no-retries", "permanent", "exit", "retry-after", "interrupt", "cancelled"],
)
async def test_what_was_raised_decides(
    dlq: DeadLetterQueue, form: int, error: BaseException, options: dict[str, Any], state: str, reason: str | None
) -> None:
    error = type(error)(*error.args)

    def body(_: Decimal) -> None:
        raise error

    with contextlib.suppress(BaseException):
        await run(decorated(dlq, form, body, **options), Decimal(1))
    record = await the_only(dlq)
    assert (record.state, record.reason, record.attempts) == (state, reason, 1)
    if isinstance(error, RetryAfter):
        assert (record.due_at - record.created_at).total_seconds() == pytest.approx(500, abs=1)


@FORMS
async def test_a_postponed_call_waits_without_a_failure(dlq: DeadLetterQueue, form: int) -> None:
    def body(_: Decimal) -> None:
        raise Postpone(60, "closed")

    with pytest.raises(Postpone):
        await run(decorated(dlq, form, body), Decimal(1))
    record = await the_only(dlq)
    assert (record.state, record.attempts, record.history) == ("pending", 0, ())


@FORMS
@pytest.mark.parametrize("kind", [KeyboardInterrupt, asyncio.CancelledError, Discard, GeneratorExit])
async def test_what_passes_through_uncaptured(dlq: DeadLetterQueue, form: int, kind: type[BaseException]) -> None:
    error = kind()

    def body(_: Decimal) -> None:
        raise error

    caught = None
    try:
        await run(decorated(dlq, form, body, on_failure="suppress"), Decimal(1))
    except BaseException as raised:
        caught = raised
    assert caught is error
    assert await nothing_in(dlq)


async def test_cancelling_the_caller_captures_nothing(dlq: DeadLetterQueue) -> None:
    @dead_lettered(dlq)
    async def wait() -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01):
        await wait()
    assert await nothing_in(dlq)


async def test_capture_cancelled_stores_what_was_cancelled(dlq: DeadLetterQueue) -> None:
    @dead_lettered(dlq, capture_cancelled=True)
    async def wait() -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01):
        await wait()
    assert (await the_only(dlq)).state == "pending"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancel_amid_a_capture_loses_nothing() -> None:
    """A plain task.cancel() goes through anyio's shields: the letter is stored, and the caller is cancelled."""
    dlq = DeadLetterQueue(Slow(0.1))

    @dead_lettered(dlq, name="slow")
    async def fail() -> None:
        raise ValueError("x")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0.03)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await the_only(dlq)).state == "pending"


@FORMS
async def test_when_decides(dlq: DeadLetterQueue, form: int) -> None:
    charge = decorated(dlq, form, when=lambda error: "7" in str(error))
    with pytest.raises(ValueError, match="no 6"):
        await run(charge, Decimal(6))
    assert await nothing_in(dlq)
    with pytest.raises(ValueError, match="no 7"):
        await run(charge, Decimal(7))
    await the_only(dlq)


@FORMS
async def test_a_when_that_fails_captures(dlq: DeadLetterQueue, form: int, caplog: pytest.LogCaptureFixture) -> None:
    def when(_: BaseException) -> bool:
        raise RuntimeError("broken")

    with pytest.raises(ValueError, match="no 6"):
        await run(decorated(dlq, form, when=when), Decimal(6))
    await the_only(dlq)
    assert "the failure is captured" in caplog.text


async def test_the_outermost_owns_the_failure(dlq: DeadLetterQueue) -> None:
    @dead_lettered(dlq, name="leaf")
    def leaf() -> None:
        raise ValueError("leaf")

    @dead_lettered(dlq, name="inner", on_failure="suppress")
    async def inner() -> None:
        leaf()

    @dead_lettered(dlq, name="outer")
    async def outer() -> None:
        async with anyio.create_task_group() as group:  # child tasks know their owner, too
            group.start_soon(inner)

    with pytest.raises(ExceptionGroup):
        await outer()
    assert (await the_only(dlq)).task.type == "outer"


async def test_after_a_nested_success_the_owner_still_owns(dlq: DeadLetterQueue) -> None:
    @dead_lettered(dlq, name="inner")
    def inner(*, fine: bool) -> None:
        if not fine:
            raise ValueError("inner")

    @dead_lettered(dlq, name="outer")
    def outer() -> None:
        inner(fine=True)
        inner(fine=False)

    with pytest.raises(ValueError, match="inner"):
        outer()
    assert (await the_only(dlq)).task.type == "outer"


async def test_a_task_that_outlives_its_owner_owns_its_failure(dlq: DeadLetterQueue) -> None:
    @dead_lettered(dlq, name="inner")
    def inner() -> None:
        raise ValueError("late")

    @dead_lettered(dlq, name="outer")
    def outer() -> contextvars.Context:
        return contextvars.copy_context()

    with pytest.raises(ValueError, match="late"):
        outer().run(inner)
    assert (await the_only(dlq)).task.type == "inner"


@pytest.mark.parametrize("threaded", [False, True])
async def test_inside_an_attempt_nothing_is_captured(dlq: DeadLetterQueue, threaded: bool) -> None:
    @dead_lettered(dlq, name="inner")
    def inner() -> None:
        raise ValueError("inner")

    async def process(_: Task) -> None:
        inner()

    def process_in_thread(_: Task) -> None:
        inner()

    task_id = await dlq.enqueue(Task(type="outside"))
    assert not await dlq.process_task(task_id, process_in_thread if threaded else process)
    assert (await the_only(dlq)).task.id == task_id


async def test_a_captured_exception_is_never_captured_again(dlq: DeadLetterQueue) -> None:
    first = decorated(dlq, 0)
    with pytest.raises(ValueError, match="no 1") as raised:
        first(Decimal(1))

    @dead_lettered(dlq, name="second", on_failure="suppress")
    async def second() -> None:
        raise raised.value

    captured = await second()
    record = await the_only(dlq)
    assert record.task.type == "charge"
    assert captured == Captured(record.task.id, raised.value)
    assert sum(record.task.id in text for text in raised.value.__notes__) == 1


async def test_an_exception_that_refuses_changes_still_carries_its_id(dlq: DeadLetterQueue) -> None:
    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    @dead_lettered(dlq)
    async def fail() -> None:
        raise Frozen(3)

    with pytest.raises(Frozen) as raised:
        await fail()
    assert (await the_only(dlq)).task.id in raised.value.__notes__[0]


@FORMS
async def test_the_same_exception_with_its_traceback(dlq: DeadLetterQueue, form: int) -> None:
    error = ValueError("x")

    def body(_: Decimal) -> None:
        raise error

    with pytest.raises(ValueError, match="x") as raised:
        await run(decorated(dlq, form, body, inline_retries=1), Decimal(1))
    assert raised.value is error
    assert raised.traceback[-1].name == "body"


@FORMS
async def test_inline_retries_come_first(dlq: DeadLetterQueue, form: int) -> None:
    calls: list[object] = []

    def body(amount: Decimal) -> str:
        calls.append(amount)
        if len(calls) < 3:
            raise ValueError("x")
        return "done"

    charge = decorated(dlq, form, body, inline_retries=2)
    assert await run(charge, Decimal(1)) == "done"
    assert len(calls) == 3
    assert await nothing_in(dlq)


@FORMS
async def test_inline_retries_are_the_first_attempt(dlq: DeadLetterQueue, form: int) -> None:
    charge = decorated(dlq, form, inline_retries=1, max_retries=0)
    with pytest.raises(ValueError, match="no 1"):
        await run(charge, Decimal(1))
    record = await the_only(dlq)
    assert (record.state, record.attempts, len(record.history)) == ("dead", 1, 1)


@FORMS
async def test_a_signal_is_not_retried_in_place(dlq: DeadLetterQueue, form: int) -> None:
    calls: list[object] = []

    def body(amount: Decimal) -> None:
        calls.append(amount)
        raise PermanentError("no")

    with pytest.raises(PermanentError):
        await run(decorated(dlq, form, body, inline_retries=3), Decimal(1))
    assert len(calls) == 1


async def test_a_timeout_ends_an_async_run(dlq: DeadLetterQueue) -> None:
    @dead_lettered(dlq, timeout=0.1)
    async def hang() -> None:
        await anyio.sleep_forever()

    with pytest.raises(TimeoutError, match="ran longer than its timeout of 0.1 s"):
        await hang()
    record = await the_only(dlq)
    assert record.task.timeout == 0.1
    assert record.failure.error_type == "TimeoutError"


@FORMS
async def test_an_argument_that_cannot_be_stored(dlq: DeadLetterQueue, form: int) -> None:
    charge = decorated(dlq, form, redact=("note",))
    with pytest.raises(ValueError, match="no") as raised:
        await run(charge, object(), note="secret")
    record = await the_only(dlq)
    assert (record.state, record.reason, record.replayable) == ("dead", "not_replayable", False)
    assert record.task.payload["amount"].startswith("<object object")
    assert any("UnserializablePayload: amount" in text for text in raised.value.__notes__)
    assert record.redact[-1] == "note"


@FORMS
async def test_too_large_a_payload_is_kept_as_reprs(form: int) -> None:
    dlq = DeadLetterQueue("memory://", max_payload_bytes=100)
    with pytest.raises(ValueError, match="no 1"):
        await run(decorated(dlq, form), Decimal(1), note="y" * 1000)
    record = await the_only(dlq)
    assert (record.reason, record.replayable) == ("not_replayable", False)
    assert len(record.task.payload["note"]) == 200


async def test_reprs_hide_what_a_path_would_have_hidden(dlq: DeadLetterQueue) -> None:
    @dead_lettered(dlq, redact=("card.*",))
    def pay(customer: dict[str, Any], card: object, amount: int) -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        pay({"PassWord": "hunter2", "x": object()}, object(), 5)
    record = await the_only(dlq)
    assert record.task.payload == {"customer": "<hidden>", "card": "<hidden>", "amount": "5"}


async def test_enqueue_skips_the_inline_run(dlq: DeadLetterQueue) -> None:
    charge = decorated(dlq, 1, redact=("amount",), priority="high", max_retries=5, timeout=10)
    task = charge.task(Decimal(4))
    assert (task.type, task.payload, task.priority, task.max_retries, task.timeout) == (
        "charge",
        {"amount": "4"},
        "high",
        5,
        10,
    )
    task_id = await charge.enqueue(Decimal(4), note="n")
    record = await the_only(dlq)
    assert (record.task.id, record.attempts, record.redact[-1]) == (task_id, 0, "amount")
    assert record.task.payload == {"amount": "4", "note": "n"}


async def test_enqueue_sync_blocks(dlq: DeadLetterQueue) -> None:
    charge = decorated(dlq, 0)
    task_id = await anyio.to_thread.run_sync(charge.enqueue_sync, Decimal(4))
    assert (await the_only(dlq)).task.id == task_id


async def test_enqueue_of_a_bad_argument_is_refused(dlq: DeadLetterQueue) -> None:
    charge = decorated(dlq, 1)
    with pytest.raises(InvalidTask, match="amount"):
        await charge.enqueue(object())
    assert await nothing_in(dlq)


async def test_methods_and_staticmethods(dlq: DeadLetterQueue) -> None:
    seen: list[object] = []

    @attrs.define
    class Account:
        number: int

        @dead_lettered(dlq, name="account.pay")
        async def pay(self: Account, amount: int) -> None:
            seen.append((self.number, amount))
            raise ValueError("x")

        @staticmethod
        @dead_lettered(dlq, name="account.outside")
        def outside(amount: int) -> int:
            return amount + 1

        @dead_lettered(dlq, name="account.inside")
        @staticmethod
        def inside(amount: int) -> int:
            return amount + 2

    assert (Account.outside(1), Account(1).outside(1), Account.inside(1), Account(1).inside(1)) == (2, 2, 3, 3)
    assert Account.inside.original(1) == 3
    with pytest.raises(ValueError, match="x"):
        await Account(7).pay(5)
    assert seen == [(7, 5)]
    await the_only(dlq)


@FORMS
async def test_signature_and_hints_survive(dlq: DeadLetterQueue, form: int) -> None:
    body = both(fails)[form]
    charge = dead_lettered(dlq, name="charge")(body)
    assert inspect.signature(charge) == inspect.signature(body)
    assert typing.get_type_hints(charge) == {"amount": Decimal, "note": str, "return": Any}
    assert inspect.iscoroutinefunction(charge) is bool(form)
    assert (charge.__name__, charge.__module__, charge.original) == (body.__name__, __name__, body)


async def test_the_default_name(dlq: DeadLetterQueue) -> None:
    @dead_lettered(dlq)
    def pay() -> None: ...

    assert pay.task().type == f"{__name__}.test_the_default_name.<locals>.pay"


@pytest.mark.parametrize("main", ["app.py", "python -m pkg"])
async def test_a_function_in_main_gets_its_modules_name(dlq: DeadLetterQueue, main: str, tmp_path: Path) -> None:
    code = (
        "from deadletter import dead_lettered\n"
        "@dead_lettered('memory://')\n"
        "def pay() -> None: ...\n"
        "print(pay.task().type)\n"
    )
    (tmp_path / "app.py").write_text(code)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__main__.py").write_text(code)
    command = ["app.py"] if main == "app.py" else ["-m", "pkg"]
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.strip() == {"app.py": "app.pay", "python -m pkg": "pkg.__main__.pay"}[main]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}


def test_a_function_in_a_nameless_main_is_refused() -> None:
    code = "from deadletter import dead_lettered\n@dead_lettered('memory://')\ndef pay() -> None: ...\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment())
    assert "defined in __main__, which no worker can import" in done.stderr


def test_two_functions_with_one_name_are_refused() -> None:
    dlq = DeadLetterQueue("memory://")
    decorated(dlq, 0)
    with pytest.raises(InvalidTask, match="has a processor already"):
        decorated(dlq, 1)


def test_two_functions_with_one_name_at_one_url_are_refused() -> None:
    decorated("memory://twice", 0)
    with pytest.raises(InvalidTask, match="give one of the two another name"):
        decorated("memory://twice", 1)
    decorated("memory://elsewhere", 1)


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (generator, "is a generator"),
        (async_generator, "is a generator"),
        (print, "is no function"),
        (classmethod(generator), "use a staticmethod"),
        (Decimal, "is no function"),
    ],
)
def test_what_cannot_be_decorated(function: Any, problem: str) -> None:
    with pytest.raises(InvalidTask, match=problem):
        dead_lettered("memory://", name="x")(function)
    with pytest.raises(InvalidTask, match=problem):
        dead_lettered(function)


def test_something_else_in_place_of_a_queue_is_refused() -> None:
    with pytest.raises(InvalidTask, match="5 is no function"):
        dead_lettered(5)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "options",
    [
        {"on_failure": "ignore"},
        {"inline_retries": -1},
        {"inline_retries": True},
        {"redact": "card"},
        {"redact": ("a\nb",)},
        {"priority": "urgent"},
        {"max_retries": -1},
        {"timeout": 0},
        {"name": "x" * 201},
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    field = "type" if "name" in options else next(iter(options))
    with pytest.raises(InvalidTask, match=field):
        dead_lettered("memory://", **{"name": "bad", **options})(both(fails)[0])


@FORMS
async def test_a_url_makes_one_queue_that_others_at_the_place_adopt(form: int, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/at-url-{form}.db"
    before = DeadLetterQueue(url)
    lazy.adopt(before)
    charge = decorated(url, form)
    assert before.registry.get("charge") is not None
    with pytest.raises(ValueError, match="no 1"):
        await run(charge, Decimal(1))
    after = DeadLetterQueue(url)
    lazy.adopt(after)
    record = await the_only(after)
    assert record.task.type == "charge"
    assert after.registry.get("charge") is lazy.queue_at(url).registry.get("charge") is before.registry.get("charge")
    assert lazy.queue_at(url) in lazy.made()
    assert DeadLetterQueue("memory://other").registry.types() == []
    for queue in (before, after, lazy.queue_at(url)):
        await queue.aclose()


async def test_the_same_source_again_takes_the_earlier_ones_place(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    queue = lazy.queue_at(url)
    lazy.adopt(queue)
    decorated(url, 0)
    first = queue.registry.get("charge")
    decorated(url, 0)
    assert queue.registry.get("charge") is not first


async def test_the_bare_form_asks_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @dead_lettered
    async def pay(amount: int) -> None:
        raise ValueError("x")

    monkeypatch.setenv("DEADLETTER_URL", f"sqlite:///{tmp_path}/bare.db")
    with pytest.raises(ValueError, match="x"):
        await pay(1)
    dlq = lazy.queue_at(None)
    assert (await the_only(dlq)).task.type == pay.task(1).type
    await dlq.aclose()


@FORMS
async def test_a_url_takes_all_else_from_the_environment(
    form: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Above all its spool, without which a store that is away loses the capture."""
    url = f"sqlite:///{tmp_path}/gone/queue.db"
    for name, value in {"URL": "memory://unused", "QUEUE": "mail", "SPOOL": f"{tmp_path}/spool"}.items():
        monkeypatch.setenv(f"DEADLETTER_{name}", value)
    charge = decorated(url, form)
    with pytest.raises(ValueError, match="no 1"):
        await run(charge, Decimal(1))
    dlq = lazy.queue_at(url)
    assert dlq.name == "mail"
    assert await dlq.spooler.waiting() == 1
    (tmp_path / "gone").mkdir()
    with anyio.fail_after(10):
        while await dlq.spooler.waiting():
            await anyio.sleep(0.01)
    assert (await the_only(dlq)).task.type == "charge"
    await dlq.aclose()


async def test_a_bad_environment_is_told_by_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    @dead_lettered
    async def pay_nowhere(amount: int) -> None:
        raise ValueError("x")

    monkeypatch.setenv("DEADLETTER_URL", "nonsense://")
    with pytest.raises(ValueError, match="x") as raised:
        await pay_nowhere(1)
    assert "nonsense" in raised.value.__notes__[0]


async def test_a_bad_environment_concerns_no_function_that_names_its_url(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One forgotten variable must not cost the captures of functions that never ask for it."""

    @dead_lettered
    async def pay_as_the_environment_says(amount: int) -> None:
        raise ValueError("x")

    monkeypatch.setenv("DEADLETTER_URL", "nonsense://")
    url = f"sqlite:///{tmp_path}/good.db"
    charge = decorated(url, 1)
    with pytest.raises(ValueError, match="no 1") as raised:
        await charge(Decimal(1))
    assert "is kept as task" in raised.value.__notes__[0]
    dlq = lazy.queue_at(url)
    assert (await the_only(dlq)).task.type == "charge"
    await dlq.aclose()


async def test_one_warning_where_no_worker_knows_the_type(
    dlq: DeadLetterQueue, caplog: pytest.LogCaptureFixture
) -> None:
    charge = decorated(dlq, 1, on_failure="suppress")
    with caplog.at_level(logging.WARNING):
        await charge(Decimal(1))
        await charge(Decimal(2))
    assert sum("no live worker knows charge" in record.getMessage() for record in caplog.records) == 1


async def test_no_warning_where_a_worker_knows_the_type(dlq: DeadLetterQueue, caplog: pytest.LogCaptureFixture) -> None:
    charge = decorated(dlq, 1, on_failure="suppress")
    worker = dlq.worker()
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        with anyio.fail_after(5):
            while not (await dlq.stats()).workers:
                await anyio.sleep(0.01)
        await charge(Decimal(1))
        group.cancel_scope.cancel()
    assert "no live worker" not in caplog.text


async def test_not_knowing_the_workers_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class NoScan(MemoryBackend):
        async def scan(self, queue: str, scan: Any) -> Any:
            raise BackendUnavailable("away")

    captured = await decorated(DeadLetterQueue(NoScan()), 1, on_failure="suppress")(Decimal(1))
    assert isinstance(captured, Captured)
    assert not caplog.records


@FORMS
async def test_a_counting_policy_hears_of_every_first_attempt(form: int) -> None:
    class Counting(Budget):
        heard = 0

        def observe(self, now: float) -> None:
            type(self).heard += 1
            if type(self).heard == 2:
                raise RuntimeError("broken")
            super().observe(now)

    policy = Counting(Schedule([1]), ratio=0.5)
    charge = decorated(DeadLetterQueue("memory://"), form, lambda amount: amount, retry=policy)
    assert [await run(charge, Decimal(n)) for n in range(3)] == [0, 1, 2]
    assert Counting.heard == 3


async def test_a_capture_from_a_thread_without_a_loop(dlq: DeadLetterQueue) -> None:
    charge = decorated(dlq, 0, on_failure="suppress")
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(charge(Decimal(3))))
    thread.start()
    await anyio.to_thread.run_sync(thread.join)
    assert answers[0].task_id == (await the_only(dlq)).task.id


@pytest.mark.parametrize("ways", ["enqueue", "enqueue_many", "of the function", "capture"])
async def test_a_functions_own_hidden_paths_go_with_its_tasks_whoever_stores_them(
    dlq: DeadLetterQueue, ways: str
) -> None:
    @dead_lettered(dlq, name="charge", redact=("card",))
    async def charge(card: str) -> None: ...

    task = charge.task("4111")
    if ways == "enqueue":
        await dlq.enqueue(task)
    elif ways == "enqueue_many":
        await dlq.enqueue_many([task])
    elif ways == "capture":
        await dlq.capture(task, ValueError("no"))
    else:
        await charge.enqueue("4111")
    assert "card" in (await the_only(dlq)).redact
