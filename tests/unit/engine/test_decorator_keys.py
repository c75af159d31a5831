"""``@dead_lettered`` with an idempotency key: one effect per key, whatever fails around it."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from deadletter import (
    BackendUnavailable,
    Begun,
    Captured,
    DeadLetterQueue,
    IdempotencyConflict,
    IdempotencyStore,
    InProgress,
    LeaseLost,
    Query,
    dead_lettered,
)
from deadletter.backends.memory import MemoryBackend
from deadletter.model.row import Insertion, NewRow

pytestmark = pytest.mark.anyio
FORMS = pytest.mark.parametrize("form", [0, 1], ids=["sync", "async"])


@attrs.frozen
class Receipt:
    amount: Decimal


class Charge:
    """A function to decorate that counts its runs and does what it is told."""

    def __init__(self) -> None:
        self.runs = 0
        self.error: BaseException | None = None
        self.result: Any = None

    def __call__(self, amount: Decimal) -> Any:
        self.runs += 1
        if self.error is not None:
            raise self.error
        return self.result if self.result is not None else Receipt(amount)

    def decorated(self, dlq: DeadLetterQueue, form: int, **options: Any) -> Any:
        def pay(customer: int, amount: Decimal = Decimal(1), **more: object) -> Receipt:
            return self(amount)

        async def pay_async(customer: int, amount: Decimal = Decimal(1), **more: object) -> Receipt:
            return self(amount)

        options = {"idempotency_key": lambda customer, **_: f"charge-{customer}", "name": "pay", **options}
        return dead_lettered(dlq, **options)((pay, pay_async)[form])


async def run(function: Any, *args: Any, **kwargs: Any) -> Any:
    result = function(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


@pytest.fixture(params=["memory", "sqlite"])
async def dlq(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DeadLetterQueue]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/letters.db"
    async with DeadLetterQueue(url, retry=[7]) as queue:
        yield queue


@pytest.fixture
def charge() -> Charge:
    return Charge()


async def letters(dlq: DeadLetterQueue) -> list[Any]:
    return [record for state in ("pending", "dead") async for record in dlq.scan(Query(state=state))]


@FORMS
async def test_a_completed_call_answers_its_stored_result(dlq: DeadLetterQueue, charge: Charge, form: int) -> None:
    pay = charge.decorated(dlq, form)
    assert await run(pay, 1, Decimal("9.99")) == await run(pay, 1, amount=Decimal("9.99")) == Receipt(Decimal("9.99"))
    assert charge.runs == 1
    assert await run(pay, 2, Decimal("9.99")) == Receipt(Decimal("9.99"))
    assert charge.runs == 2
    assert not await letters(dlq)


@FORMS
async def test_no_key_is_a_plain_call(dlq: DeadLetterQueue, charge: Charge, form: int) -> None:
    pay = charge.decorated(dlq, form, idempotency_key=lambda **_: None)
    await run(pay, 1)
    await run(pay, 1)
    assert charge.runs == 2


@FORMS
async def test_a_key_function_may_take_its_arguments_by_place(dlq: DeadLetterQueue, charge: Charge, form: int) -> None:
    pay = charge.decorated(dlq, form, idempotency_key=lambda who, *_: f"charge-{who}")
    await run(pay, 1, Decimal(2))
    await run(pay, 1, Decimal(2))
    assert charge.runs == 1
    assert pay.task(5, Decimal(2)).idempotency_key == "charge-5"


async def test_a_key_function_gets_further_arguments_by_name(dlq: DeadLetterQueue, charge: Charge) -> None:
    pay = charge.decorated(dlq, 1, idempotency_key=lambda customer, amount, tenant: f"{tenant}-{customer}-{amount}")
    assert pay.task(5, tenant="x").idempotency_key == "x-5-1"


@FORMS
async def test_other_arguments_under_one_key_conflict(dlq: DeadLetterQueue, charge: Charge, form: int) -> None:
    pay = charge.decorated(dlq, form)
    await run(pay, 1, Decimal(1))
    with pytest.raises(IdempotencyConflict):
        await run(pay, 1, Decimal(2))
    assert charge.runs == 1


async def test_a_call_in_progress_is_not_run_beside(dlq: DeadLetterQueue) -> None:
    begun, go = anyio.Event(), anyio.Event()

    @dead_lettered(dlq, name="pay", idempotency_key=lambda: "one")
    async def pay() -> int:
        begun.set()
        await go.wait()
        return 3

    async with anyio.create_task_group() as group:
        group.start_soon(pay)
        await begun.wait()
        with pytest.raises(InProgress, match="one"):
            await pay()
        go.set()
    assert await pay() == 3


@FORMS
async def test_a_store_that_is_away_is_told_before_the_body_runs(charge: Charge, form: int) -> None:
    class Away(MemoryBackend):
        async def open(self) -> None:
            raise BackendUnavailable("away")

    with pytest.raises(BackendUnavailable):
        await run(charge.decorated(DeadLetterQueue(Away()), form), 1)
    assert charge.runs == 0


@FORMS
@pytest.mark.parametrize("retries", [None, 0], ids=["pending", "dead"])
async def test_what_was_captured_holds_its_key(
    dlq: DeadLetterQueue, charge: Charge, form: int, retries: int | None
) -> None:
    """A repeated call is not run beside the task (or before the letter) that will do the same."""
    pay = charge.decorated(dlq, form, on_failure="suppress", max_retries=retries)
    charge.error = ValueError("x")
    captured = await run(pay, 1)
    assert isinstance(captured, Captured)
    with pytest.raises(InProgress) as raised:
        await run(pay, 1)
    state = "dead" if retries == 0 else "pending"
    assert raised.value.__notes__ == [f"task {captured.task_id} has it and is {state}"]
    with pytest.raises(IdempotencyConflict):
        await run(pay, 1, Decimal(55))
    assert charge.runs == 1
    (letter,) = await letters(dlq)
    assert letter.task.idempotency_key == "charge-1"


@FORMS
async def test_what_a_worker_did_is_not_done_again(
    dlq: DeadLetterQueue, charge: Charge, form: int, caplog: pytest.LogCaptureFixture
) -> None:
    pay = charge.decorated(dlq, form, on_failure="suppress")
    charge.error = ValueError("x")
    captured = await run(pay, 1)
    charge.error = None
    registration = dlq.registry.get("pay")
    assert registration is not None
    assert await dlq.process_task(captured.task_id, registration.processor)
    assert await run(pay, 1) is None  # a worker keeps no result
    assert await run(pay, 1) is None
    assert charge.runs == 2
    assert "is done already; what it returned was not kept" in caplog.text


@FORMS
async def test_a_purged_letter_frees_its_key(dlq: DeadLetterQueue, charge: Charge, form: int) -> None:
    pay = charge.decorated(dlq, form, on_failure="suppress", max_retries=0)
    charge.error = ValueError("x")
    await run(pay, 1)
    await dlq.purge(everything=True)
    charge.error = None
    assert await run(pay, 1) == Receipt(Decimal(1))


@FORMS
async def test_what_is_not_captured_frees_its_key(dlq: DeadLetterQueue, charge: Charge, form: int) -> None:
    pay = charge.decorated(dlq, form, when=lambda _: False)
    charge.error = ValueError("x")
    with pytest.raises(ValueError, match="x"):
        await run(pay, 1)
    charge.error = None
    assert await run(pay, 1) == Receipt(Decimal(1))
    assert not await letters(dlq)


async def test_a_cancelled_call_frees_its_key(dlq: DeadLetterQueue) -> None:
    runs: list[int] = []

    @dead_lettered(dlq, name="pay", idempotency_key=lambda: "one")
    async def pay() -> None:
        runs.append(1)
        if len(runs) == 1:
            scope.cancel()
            await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await pay()
    await pay()
    assert len(runs) == 2


async def test_a_call_that_is_cancelled_while_it_asks_for_its_key_frees_it(
    dlq: DeadLetterQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    insert = dlq.backend.insert

    @dead_lettered(dlq, name="pay", idempotency_key=lambda: "one")
    async def pay() -> None:
        runs.append(1)

    with anyio.CancelScope() as scope:

        async def and_then_cancelled(queue: str, rows: Sequence[NewRow]) -> list[Insertion]:
            told = await insert(queue, rows)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
            return told

        monkeypatch.setattr(dlq.backend, "insert", and_then_cancelled)
        await pay()
    assert scope.cancelled_caught
    monkeypatch.undo()
    await pay()
    assert runs == [1]


@FORMS
async def test_nested_in_another_call_the_key_still_guards(dlq: DeadLetterQueue, charge: Charge, form: int) -> None:
    pay = charge.decorated(dlq, form)

    @dead_lettered(dlq, name="outer", on_failure="suppress")
    async def outer() -> None:
        await run(pay, 1)

    charge.error = ValueError("x")
    await outer()
    assert [letter.task.type for letter in await letters(dlq)] == ["outer"]
    charge.error = None
    await outer()
    await outer()
    assert charge.runs == 2


@FORMS
async def test_a_result_that_cannot_be_stored_is_never_bought_with_a_second_run(
    dlq: DeadLetterQueue, charge: Charge, form: int, caplog: pytest.LogCaptureFixture
) -> None:
    pay = charge.decorated(dlq, form)
    charge.result = object()
    assert await run(pay, 1) is charge.result
    assert "a repeated call with key 'charge-1' will return None" in caplog.text
    assert await run(pay, 1) is None
    assert charge.runs == 1


@FORMS
async def test_arguments_that_cannot_be_stored_may_still_have_a_key(
    dlq: DeadLetterQueue, charge: Charge, form: int
) -> None:
    pay = charge.decorated(dlq, form, on_failure="suppress")
    assert (await run(pay, 1, tenant=object())) == Receipt(Decimal(1))
    assert (await run(pay, 1, tenant=object())) == Receipt(Decimal(1))
    assert charge.runs == 1
    charge.error = ValueError("x")
    await run(pay, 2, tenant=object())
    (letter,) = await letters(dlq)
    assert (letter.reason, letter.task.idempotency_key) == ("not_replayable", None)


async def test_a_key_bound_meanwhile_costs_the_letter_its_key_only(dlq: DeadLetterQueue, charge: Charge) -> None:
    pay = charge.decorated(dlq, 1, on_failure="suppress")

    @dead_lettered(dlq, name="pay2", idempotency_key=lambda _: "k", on_failure="suppress")
    async def pay2(amount: int) -> None:
        await dlq.enqueue(attrs.evolve(pay2.task(99), id="other"))
        raise ValueError("x")

    captured = await pay2(1)
    notes = captured.error.__notes__
    assert any("its idempotency key belongs to task other" in text for text in notes)
    record = await dlq.get(captured.task_id)
    assert record.task.payload == {"amount": 1}
    assert pay.task(1).idempotency_key == "charge-1"


async def test_a_key_bound_meanwhile_to_the_same_call_is_that_call(dlq: DeadLetterQueue) -> None:
    @dead_lettered(dlq, name="pay", idempotency_key=lambda _: "k", on_failure="suppress")
    async def pay(amount: int) -> None:
        await dlq.enqueue(attrs.evolve(pay.task(1), id="other"))
        raise ValueError("x")

    captured = await pay(1)
    assert captured.task_id == "other"
    assert any("is task other already" in text for text in captured.error.__notes__)


class Book(IdempotencyStore):
    """A store of the user's that notes what it is asked and fails as told."""

    def __init__(self, *, answer: Begun | None = None, fault: BaseException | None = None, hang: bool = False) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answer = answer or Begun(word="started", token="t")
        self.fault = fault
        self.hang = hang

    async def begin(self, key: str, digest: str, ttl: float) -> Begun:
        self.asked.append(("begin", ttl))
        return self.answer

    async def complete(self, token: str, result: bytes, ttl: float) -> None:
        await self._end("complete", token, ttl)

    async def abandon(self, token: str) -> None:
        await self._end("abandon", token)

    async def _end(self, *asked: Any) -> None:
        self.asked.append(asked)
        if self.hang:
            await anyio.sleep_forever()
        if self.fault is not None:
            raise self.fault


@FORMS
async def test_the_users_own_store_is_asked(charge: Charge, form: int) -> None:
    book = Book()
    dlq = DeadLetterQueue("memory://", idempotency=book, idempotency_ttl=77, max_runtime=44)
    await run(charge.decorated(dlq, form), 1)
    assert book.asked == [("begin", 44), ("complete", "t", 77)]


@pytest.mark.parametrize(("options", "lease"), [({"timeout": 5}, 5 + 2 + 60), ({}, 600)])
async def test_how_long_a_key_is_held(charge: Charge, options: dict[str, Any], lease: float) -> None:
    book = Book()
    dlq = DeadLetterQueue("memory://", idempotency=book, idempotency_ttl=600)
    assert dlq.options.max_runtime < math.inf
    await charge.decorated(dlq, 1, **options)(1)
    assert book.asked[0] == ("begin", lease)


@FORMS
async def test_a_failure_is_stored_before_its_key_is_freed(charge: Charge, form: int) -> None:
    """A process that dies between the two leaves a taken key, never a free one beside a lost letter."""
    seen: list[int] = []

    class Watching(Book):
        async def abandon(self, token: str) -> None:
            seen.append(len(await letters(dlq)))

    dlq = DeadLetterQueue("memory://", idempotency=Watching())
    charge.error = ValueError("x")
    await run(charge.decorated(dlq, form, on_failure="suppress"), 1)
    assert seen == [1]


@FORMS
@pytest.mark.parametrize(
    ("book", "said"),
    [
        (Book(fault=BackendUnavailable("away")), "could not be remembered: away"),
        (Book(fault=LeaseLost("t")), "ran out while the call was running"),
        (Book(hang=True), "longer than capture_timeout=0.05 s"),
    ],
    ids=["away", "lost", "hangs"],
)
async def test_a_success_is_a_success_though_it_cannot_be_remembered(
    charge: Charge, form: int, book: Book, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    dlq = DeadLetterQueue("memory://", idempotency=book, capture_timeout=0.05)
    assert await run(charge.decorated(dlq, form), 1) == Receipt(Decimal(1))
    assert said in caplog.text


@FORMS
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Begun(word="in_progress", remaining=3), InProgress),
        (Begun(word="conflict"), IdempotencyConflict),
    ],
)
async def test_what_the_store_refuses_is_not_run(
    charge: Charge, form: int, answer: Begun, error: type[Exception]
) -> None:
    dlq = DeadLetterQueue("memory://", idempotency=Book(answer=answer))
    with pytest.raises(error):
        await run(charge.decorated(dlq, form), 1)
    assert charge.runs == 0


async def test_asking_for_a_key_stores_nothing(dlq: DeadLetterQueue, charge: Charge) -> None:
    await charge.decorated(dlq, 1)(1)
    stats = await dlq.stats()
    assert not await letters(dlq)
    assert not [r async for r in dlq.scan(Query(state="running"))]
    assert not any(stats.by_state.values()) if hasattr(stats, "by_state") else True


async def test_a_coroutine_that_is_closed_waits_for_nothing(charge: Charge) -> None:
    """``close()`` allows no await: the key stays taken until its lease ends."""
    book = Book()
    dlq = DeadLetterQueue("memory://", idempotency=book)
    started = anyio.Event()

    @dead_lettered(dlq, name="pay", idempotency_key=lambda: "one")
    async def pay() -> None:
        started.set()
        await Forever()

    class Forever:
        def __await__(self) -> Any:
            yield "pending"

    coroutine = pay()
    reached: Any = None
    with anyio.CancelScope(shield=True):
        reached = await _drive(coroutine)
    assert reached == "pending"
    coroutine.close()
    assert started.is_set()
    assert [asked[0] for asked in book.asked] == ["begin"]


async def _drive(coroutine: Any) -> object:
    """Step a coroutine until it waits for what no loop knows."""

    class Steps:
        def __await__(self) -> Any:
            value = None
            while True:
                step = coroutine.send(value)
                if step == "pending":
                    return step
                value = yield step

    return await Steps()
