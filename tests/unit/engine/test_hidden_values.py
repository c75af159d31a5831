"""What the engine itself writes of hidden values: logs, notes, events, and letters whose arguments cannot be stored."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import attrs
import pytest

from deadletter import DeadLetterQueue, Discard, InvalidTask, Query, Task, dead_lettered
from deadletter.interfaces import FailedAttempt, Instrumentation, RetryPolicy
from deadletter.rules.arguments import plain_arguments
from deadletter.testing import VirtualClock
from deadletter.views import Viewer, item

SECRET = "s3cret-4111-5500"
pytestmark = pytest.mark.anyio


@pytest.fixture
def dlq() -> DeadLetterQueue:
    return DeadLetterQueue("memory://", clock=VirtualClock(), retry=[], redact=("card_number",))


def payload() -> dict[str, Any]:
    return {"card_number": SECRET}


def refuse(task: Task) -> None:
    raise ValueError(f"refused {task.payload['card_number']}")


class Broken(RetryPolicy):
    def delay(self, failed: FailedAttempt) -> float | None:
        raise RuntimeError(f"no delay for {failed.error}") from failed.error

    def observe(self, now: float) -> None:
        raise RuntimeError(f"cannot count {SECRET}")


async def test_a_broken_policy_is_logged_without_the_values_of_its_failure(caplog: pytest.LogCaptureFixture) -> None:
    dlq = DeadLetterQueue("memory://", retry=Broken(), redact=("card_number",))
    await dlq.process_task(await dlq.enqueue(Task(type="pay", payload=payload())), refuse)
    assert "RuntimeError: no delay for refused [redacted]" in caplog.text
    assert "RuntimeError: cannot count [redacted]" in caplog.text
    assert SECRET not in caplog.text


async def test_a_broken_watcher_is_logged_without_the_values_of_the_attempt(caplog: pytest.LogCaptureFixture) -> None:
    class Watching(Instrumentation):
        def metadata(self) -> dict[str, str]:
            return {}

        def operation(self, name: str, *, queue: str, count: int = 1) -> Any:
            return contextlib.nullcontext()

        def attempt(self, task: Task, *, queue: str, number: int, start: Any) -> Any:
            raise RuntimeError(f"no span for {task.payload}")

    dlq = DeadLetterQueue("memory://", Watching(), retry=[], redact=("card_number",))
    await dlq.process_task(await dlq.enqueue(Task(type="pay", payload=payload())), refuse)
    assert "RuntimeError: no span for {'card_number': '[redacted]'}" in caplog.text
    assert SECRET not in caplog.text


async def test_an_event_tells_no_hidden_value(dlq: DeadLetterQueue) -> None:
    def discard(task: Task) -> None:
        raise Discard(f"already paid with {SECRET}")

    async with dlq.subscribe("discarded", "replayed") as events:
        await dlq.process_task(await dlq.enqueue(Task(type="pay", payload=payload())), discard)
        assert (await anext(events)).detail["why"] == "already paid with [redacted]"
        died = Task(type="pay", payload=payload())
        await dlq.process_task(await dlq.enqueue(died), refuse)
        await dlq.retry(died.id, why=f"{SECRET} is valid")
        assert (await anext(events)).detail["why"] == "[redacted] is valid"


async def test_what_an_edit_took_away_stays_hidden(dlq: DeadLetterQueue) -> None:
    task_id = await dlq.capture(Task(type="pay", payload=payload()), ValueError(f"refused {SECRET}"))
    for n in range(3):
        await dlq.retry(task_id, payload={"card_number": f"other-{n}"})
        await dlq.process_task(task_id, refuse)
    record = await dlq.get(task_id)
    assert [earlier["card_number"] for earlier in record.earlier] == [SECRET, "other-0", "other-1"]
    shown = item(record, Viewer(paths=()).redactor(record))
    assert SECRET not in repr(shown)
    assert "other-" not in repr(shown)
    assert [entry["message"] for entry in shown["history"] if entry["type"] == "ValueError"] == [
        "refused [redacted]",
    ] * 4


async def test_the_same_cause_with_other_hidden_values_is_one_group(dlq: DeadLetterQueue) -> None:
    """And a fingerprint gives nobody a value to try guesses on."""
    for word in ("correct-horse", "battery-staple"):
        task = Task(type="pay", payload={"card_number": word})
        await dlq.process_task(await dlq.enqueue(task), refuse)
    [group] = await dlq.groups()
    assert group.count == 2


@attrs.define
class Order:
    lock: Any
    card_number: str


@attrs.define
class Opaque:
    inner: dict[str, Any]

    def __repr__(self) -> str:
        return f"<opaque {self.inner['card_number']}>"


async def test_a_letter_that_is_not_replayable_hides_what_it_could_not_keep(dlq: DeadLetterQueue) -> None:
    """Its payload holds no values by which a view could find them, so they go before it is stored."""

    @dead_lettered(dlq, name="pay", redact=("*.card_number",))
    async def pay(order: Order, about: Opaque, card_number: str, file: Any) -> None:
        raise ValueError(f"refused {order.card_number}, {card_number}, {about}")

    about = Opaque({"card_number": f"{SECRET}-2"})
    with pytest.raises(ValueError, match="refused s3cret") as caught:
        await pay(Order(object(), SECRET), about, f"{SECRET}-3", object())
    [note] = [note for note in caught.value.__notes__ if "is kept as dead letter" in note]
    assert SECRET not in "".join(caught.value.__notes__)
    record = await dlq.get(note.split("letter ")[1].split()[0])
    assert not record.replayable
    assert record.failure is not None
    assert record.failure.message == "refused [redacted], [redacted], <opaque [redacted]>"
    assert SECRET not in repr(item(record, Viewer().redactor(record)))


async def test_a_path_names_an_argument_among_the_others(dlq: DeadLetterQueue) -> None:
    @dead_lettered(dlq, name="pay", redact=("pin",))
    async def pay(**options: str) -> None:
        raise ValueError(f"refused {options}")

    with pytest.raises(ValueError, match="refused"):
        await pay(card_number=SECRET, pin="pin-9876")
    await pay.enqueue(card_number=SECRET, pin="pin-9876")
    await dlq.enqueue(pay.task(card_number=SECRET, pin="pin-9876"))
    marks = set()
    async for record in dlq.scan(Query(state=None)):
        marks.add(tuple(record.redact))
        shown = repr(item(record, Viewer(paths=()).redactor(record)))
        assert SECRET not in shown
        assert "pin-9876" not in shown
    assert len(marks) == 1, "captured, enqueued by the function, or as its task: all three hide the same"


async def test_a_key_is_logged_without_hidden_values(dlq: DeadLetterQueue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    @dead_lettered(dlq, name="pay", idempotency_key=lambda card_number: f"pay-{card_number}")
    async def pay(card_number: str) -> Any:
        return object()

    await pay(SECRET)
    await pay(SECRET)
    assert "key 'pay-[redacted]' will return None" in caplog.text
    assert "key 'pay-[redacted]' is done already" in caplog.text
    assert SECRET not in caplog.text


async def test_a_call_that_could_not_be_kept_is_told_without_hidden_values(caplog: pytest.LogCaptureFixture) -> None:
    dlq = DeadLetterQueue("memory://", redact=("card_number",))

    async def away(new: Any) -> Any:
        raise OSError(f"cannot write {SECRET}")

    dlq.insert_row = away  # type: ignore[method-assign]

    @dead_lettered(dlq, name="pay", when=lambda error: 1 / 0)
    async def pay(card_number: str) -> None:
        raise ValueError(f"refused {card_number}")

    with pytest.raises(ValueError, match="refused s3cret") as caught:
        await pay(SECRET)
    assert "could not be kept" in caplog.text
    assert "cannot write [redacted]" in caplog.text
    assert "failed with ZeroDivisionError" in caplog.text
    assert SECRET not in caplog.text + "".join(caught.value.__notes__)


@pytest.mark.parametrize("path", ["a..b", "$defaults", "a\nb", 5])
async def test_a_decorator_refuses_what_is_no_path(dlq: DeadLetterQueue, path: Any) -> None:
    with pytest.raises(InvalidTask, match="redact: "):
        dead_lettered(dlq, redact=(path,))


def test_arguments_are_looked_through_whatever_they_are() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no")

    class Slotted:
        __slots__ = ("a", "unset")

        def __init__(self) -> None:
            self.a = b"x\xff"

    loop: list[Any] = []
    loop.append(loop)
    named = plain_arguments(
        lambda a, b, c, d, e: None, (Order(None, "x"), Slotted(), Hostile(), loop, {1: {2.5, "y"} - {2.5}}), {}
    )
    assert named["a"] == {"lock": None, "card_number": "x"}
    assert named["b"] == {"a": "x\\xff"}
    assert named["c"] is None
    assert named["e"] == {"1": ["y"]}
    assert plain_arguments(lambda: None, ("x",), {"y": 1}) == {"argument 1": "x", "y": 1}
    assert len(plain_arguments(lambda a: None, (list(range(5_000)),), {})["a"]) < 2_001
